"""Readers: samples as they are stored, over the sources of imgzoo."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from typing import Any

import imgzoo
from imgzoo_data.sources.base import IMAGE_EXTENSIONS

from ._targets import Reader, hf_reader
from ._targets import load_class_map as load_class_map

SCHEMES = {"hfds": "hf", "hfids": "hf", "tfds": "tfds", "wds": "wds", "torch": "torchvision", "csv": "csv"}


class SourceReader(Reader):
    """The samples of a source."""

    def __init__(self, source: Any, root: Any = None):
        self.source, self.root = source, root
        own = getattr(source, "class_to_idx", None)
        self.class_to_idx = {name: i for i, name in enumerate(source.class_names)} if own is None else own

    def __len__(self) -> int:
        return len(self.source)

    @property
    def num_samples(self) -> int:
        return len(self)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        data, target, _ = self.source[index]
        return (io.BytesIO(data) if isinstance(data, (bytes, memoryview)) else data), target

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        name = self.source.key(index)
        if basename:
            return os.path.basename(name)
        root = getattr(self.source, "root", None) or self.root  # of the split
        return os.path.join(str(root), name) if absolute and root else name


def source_of(name: str | None, root: Any, split: str, options: Mapping[str, Any]) -> Any:
    """The source of a name of the field: "" for a folder or an archive, `hfds/...`, `torch/...`, ..."""
    word, _, rest = (name or "").partition("/")
    scheme, given = word.lower(), {key: value for key, value in options.items() if value not in (None, "")}
    if scheme not in SCHEMES:
        return imgzoo.create_dataset(str(root), split, **given)
    if SCHEMES[scheme] == "hf":
        return hf_reader(rest or str(root), split, scheme == "hfids", **given)
    if scheme in ("torch", "tfds") and root:
        given["root"] = str(root)
    if scheme == "torch":
        rest = rest.lower()
    return imgzoo.create_dataset(f"{SCHEMES[scheme]}:{rest or root}", split, **given)


def create_reader(name: str, root: str | None = None, split: str = "train", **kwargs: Any) -> Reader:
    """Samples of a folder or an archive (name ""), or of `hfds/...`, `wds/...`, `tfds/...`, `torch/...`."""
    source = source_of(name, root, split, kwargs)
    return source if isinstance(source, Reader) else SourceReader(source, root)


def get_img_extensions(as_set: bool = False) -> Any:
    """Endings of files that are images to imgzoo's sources."""
    return set(IMAGE_EXTENSIONS) if as_set else tuple(IMAGE_EXTENSIONS)


def is_img_extension(ext: str) -> bool:
    return ext.lower() in IMAGE_EXTENSIONS

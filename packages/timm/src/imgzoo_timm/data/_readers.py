"""Readers: samples as they are stored, over the sources of imgzoo."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import imgzoo
from imgzoo_data.sources.base import IMAGE_EXTENSIONS

SCHEMES = {"hfds": "hf", "hfids": "hf", "tfds": "tfds", "wds": "wds", "torch": "torchvision", "csv": "csv"}


class Reader:
    """`reader[i]` is an open file and a target; a script's own has `_filename` too."""

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        raise NotImplementedError

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        return self._filename(index, basename=basename, absolute=absolute)

    def filenames(self, basename: bool = False, absolute: bool = False) -> list[str]:
        return [self._filename(i, basename=basename, absolute=absolute) for i in range(len(self))]  # type: ignore[arg-type]


class SourceReader(Reader):
    """The samples of a source."""

    def __init__(self, source: Any, root: Any = None):
        self.source, self.root = source, root
        self.class_to_idx = {name: i for i, name in enumerate(source.class_names)}

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        data, target, _ = self.source[index]
        return (io.BytesIO(data) if isinstance(data, (bytes, memoryview)) else data), target

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        name = self.source.key(index)
        if basename:
            return os.path.basename(name)
        return os.path.join(str(self.root), name) if absolute and self.root else name


def source_of(name: str | None, root: Any, split: str, options: Mapping[str, Any]) -> Any:
    """The source of a name of the field: "" for a folder or an archive, `hfds/...`, `torch/...`, ..."""
    scheme, _, rest = (name or "").partition("/")
    given = {key: value for key, value in options.items() if value not in (None, "")}
    if scheme not in SCHEMES:
        return imgzoo.create_dataset(str(root), split, **given)
    if scheme in ("torch", "tfds") and root:
        given["root"] = str(root)
    return imgzoo.create_dataset(f"{SCHEMES[scheme]}:{rest or root}", split, **given)


def create_reader(name: str, root: str | None = None, split: str = "train", **kwargs: Any) -> SourceReader:
    """Samples of a folder or an archive (name ""), or of `hfds/...`, `wds/...`, `tfds/...`, `torch/...`."""
    return SourceReader(source_of(name, root, split, kwargs), root)


def load_class_map(map_or_filename: Any, root: str = "") -> dict[str, int]:
    """Names and numbers of classes: a table, or a file with a name a line."""
    if isinstance(map_or_filename, Mapping):
        return dict(map_or_filename)
    path = next((each for each in (Path(map_or_filename), Path(root, map_or_filename)) if each.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"there is no file of classes {map_or_filename}")
    if path.suffix == ".pkl":
        raise pickle.UnpicklingError(f"{path} would run code: write its classes into a text file, a name a line")
    if path.suffix != ".txt":
        raise ValueError(f"classes are a table or a text file with a name a line, not {path.name}")
    return {line.strip(): i for i, line in enumerate(path.read_text().splitlines())}


def get_img_extensions(as_set: bool = False) -> Any:
    """Endings of files that are images to imgzoo's sources."""
    return set(IMAGE_EXTENSIONS) if as_set else tuple(IMAGE_EXTENSIONS)


def is_img_extension(ext: str) -> bool:
    return ext.lower() in IMAGE_EXTENSIONS

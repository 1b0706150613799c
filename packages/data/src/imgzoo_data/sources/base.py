"""The source contract, and the door `create_dataset("scheme:location?option=value")`."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from imgzoo.errors import OptionError, UsageError

from .layout import SPLITS as SPLITS
from .layout import TEST as TEST
from .layout import TRAIN as TRAIN
from .layout import VALIDATION as VALIDATION
from .layout import split_words as split_words
from .options import check_options as check_options
from .options import parse_source as parse_source

IMAGE_EXTENSIONS = frozenset((
    ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff",
    ".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc", ".avif", ".avifs",
    ".heic", ".heif", ".ico", ".tga", ".pcx", ".sgi", ".rgb", ".bw", ".dds", ".qoi", ".psd", ".npy",
))  # fmt: skip
"""Endings of image files. What cannot be opened here (HEIC without its library) says so when it is read."""


class Sample(NamedTuple):
    """One image as stored (encoded bytes, or an array (H, W) or (H, W, C)), its target, and a name for messages."""

    data: Any
    target: Any
    key: str


class Facts:
    """What is known of a source beside its samples; `describe()` puts it into words.

    `class_names` is empty for unlabeled sources, whose targets are -1, and where targets are numbers to predict.
    `num_classes` counts the classes (left out: their names), or those numbers; `multi_label` says that targets are
    vectors (num_classes,) of 0 and 1, `numeric` that they are numbers to predict.
    """

    class_names: Sequence[str] = ()
    num_classes: int = 0
    multi_label: bool = False
    numeric: bool = False
    value_names: Sequence[str] = ()
    """What the numbers to predict are called, where each has a field of its own."""
    name: str = ""
    """How the source was asked for, `scheme:location`."""
    split: str = ""
    served: str = ""
    """What serves the split: a folder, archives, rows."""
    whole: bool = False
    """Whether nothing names a split, so that all there is serves any of them."""
    rule: str = ""
    """Where labels come from."""
    left_out: Mapping[str, int] = MappingProxyType({})
    """What was found and is no sample: reason -> count."""
    notes: Sequence[str] = ()
    range: tuple[float, float] | None = None
    """Values of black and white, where they are declared."""

    def describe(self, most: int = 32) -> Any:
        """A `Description`: what serves the split, classes, what was left out, and the values of up to `most` images."""
        from .describe import describe

        return describe(self, most)


class Source(Facts):
    """A map-style source: `len(source)` and `source[i] -> Sample`. Samples are read by several threads at once."""

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Sample:
        raise NotImplementedError

    def key(self, index: int) -> str:
        """Name of a sample without reading it where the source can."""
        return self[index].key

    def place(self, index: int) -> str | None:
        """Where a sample lies, the same only for the same sample, in any split; None where that is not known."""
        return None

    def region(self) -> str | None:
        """A folder, with its slash, that all samples lie in by no link; None where that is not known."""
        return None

    def size(self, index: int) -> int | None:
        """Bytes of an encoded sample without reading it, None where that is not known."""
        return None

    def is_missing(self, index: int) -> bool:
        """Whether a listed file is known not to be there, without reading it."""
        return False

    def targets(self) -> np.ndarray:
        """(N,) or (N, num_classes) targets of all samples; the base class reads every sample."""
        return np.asarray([self[i].target for i in range(len(self))])


class StreamSource(Facts):
    """A source that can only be read in order: it keeps its own order, which depends on the number of readers.

    `stream(seed, epoch, reader, readers)` yields the samples of one of `readers` disjoint shares, shuffled its own way
    when `training`. `len(source)` may be unknown: then it raises TypeError and the loader needs `num_samples`.
    """

    def stream(self, seed: int, epoch: int, reader: int, readers: int, training: bool) -> Iterator[Sample]:
        raise NotImplementedError

    def __len__(self) -> int:
        raise TypeError(f"{self.name or type(self).__name__} does not know its length; pass num_samples")


def create_dataset(
    source: Any,
    split: str = TRAIN,
    *,
    task: str = "classification",
    target_transform: Callable[[Any], Any] | None = None,
    **options: Any,
) -> Any:
    """Open a source: `create_dataset("folder:/data/pets", "validation")`, `"digits:"`,
    `"tar:/data/train.tar?class_map=map.txt"`.

    The scheme is any name of `imgzoo list --kind datasets`, plugins included. `options` join those written after `?`
    and go to the scheme; an unknown one raises `OptionError` naming the valid ones. Every scheme takes `range`, the
    values of black and white (`4095`, `0,255`), for images of more than 8 bits. For `task="regression"` listings read
    their targets as numbers. A torch data set, or a sequence of (image, label), is taken as it is.
    `target_transform` changes every target. Returns a `Source` (or a `StreamSource`).
    """
    if not isinstance(source, str | Path):
        if options:
            raise OptionError("options go to a source given by name; this one is already open")
        from .views import as_source

        opened = as_source(source)
    else:
        opened = _open(str(source), split, task, options)
    if target_transform is not None:
        from .views import Retargeted

        opened = Retargeted(opened, target_transform)
    return opened


def _open(source: str, split: str, task: str, options: Mapping[str, Any]) -> Any:
    from imgzoo.registry import registry

    scheme, location, written = parse_source(source)
    spec = registry("datasets").resolve(scheme)
    target = spec.load()
    options = {**spec.kwargs, **written, **{key: value for key, value in options.items() if value is not None}}
    if task == "regression" and "target_format" in inspect.signature(target).parameters:
        options.setdefault("target_format", "value")
    split = str(options.pop("split", split))
    values = options.pop("range", None)
    check_options(target, options, f"source '{scheme}:'", skip=("location", "split"))
    opened = target(location, split=split, **options)
    opened.name = opened.name or f"{scheme}:{location}"
    opened.split = opened.split or split
    opened.num_classes = opened.num_classes or len(opened.class_names)
    if values is not None:
        from imgzoo_data.depth import parse_range

        opened.range = parse_range(values)
    return opened


def real_place(path: str | Path) -> str:
    """The path of a file with its links followed; what its folder is called is looked up once."""
    folder, name = os.path.split(path)
    place = os.path.join(_real_folder(folder), name)
    return os.path.realpath(place) if os.path.islink(place) else place


@functools.lru_cache(4096)
def _real_folder(folder: str) -> str:
    return os.path.realpath(folder)


def require_path(location: str, what: str) -> Path:
    """The existing path of a location, or a `UsageError` that says what was looked for."""
    path = Path(location).expanduser()
    if not location or not path.exists():
        raise UsageError(f"{what} '{location}' does not exist; give the path after the scheme, as in folder:/data/pets")
    return path

"""The source contract, and the door `create_dataset("scheme:location?option=value")`."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import numpy as np

from imgzoo.errors import OptionError, UsageError

IMAGE_EXTENSIONS = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".png",
        ".webp",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".jp2",
        ".avif",
        ".npy",
    ]
)
TRAIN, VALIDATION, TEST = "train", "validation", "test"
_SYNONYMS = {
    TRAIN: ("train", "training"),
    VALIDATION: ("validation", "val", "valid", "eval", "evaluation"),
    TEST: ("test", "testing"),
}
SPLITS = {word: split for split, words in _SYNONYMS.items() for word in words}
_PREFIXES = {"torch/": "torchvision", "hfds/": "hf", "hfids/": "hf", "tfds/": "tfds", "wds/": "wds"}


class Sample(NamedTuple):
    """One image as stored (encoded bytes, or an array (H, W) or (H, W, C)), its target, and a name for messages."""

    data: Any
    target: Any
    key: str


class Source:
    """A map-style source: `len(source)` and `source[i] -> Sample`.

    `class_names` is empty for unlabelled sources, whose targets are -1, and where targets are numbers to predict.
    `num_classes` counts the classes, or those numbers; `multi_label` says that targets are vectors (num_classes,) of 0
    and 1. Samples are read by several threads at once.
    """

    class_names: Sequence[str] = ()
    num_classes: int = 0
    multi_label: bool = False
    name: str = ""
    """How the source was asked for, `scheme:location`."""

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> Sample:
        raise NotImplementedError

    def key(self, index: int) -> str:
        """Name of a sample without reading it where the source can."""
        return self[index].key

    def targets(self) -> np.ndarray:
        """(N,) or (N, num_classes) targets of all samples; the base class reads every sample."""
        return np.asarray([self[i].target for i in range(len(self))])


class StreamSource:
    """A source that can only be read in order: it keeps its own order, which depends on the number of readers.

    `stream(seed, epoch, reader, readers)` yields the samples of one of `readers` disjoint shares, shuffled its own way
    when `training`. `len(source)` may be unknown: then it raises TypeError and the loader needs `num_samples`.
    """

    class_names: Sequence[str] = ()
    num_classes: int = 0
    multi_label: bool = False
    name: str = ""

    def stream(self, seed: int, epoch: int, reader: int, readers: int, training: bool) -> Iterator[Sample]:
        raise NotImplementedError

    def __len__(self) -> int:
        raise TypeError(f"{self.name or type(self).__name__} does not know its length; pass num_samples")


def split_words(split: str) -> tuple[str, ...]:
    """The synonyms of a split, itself first: "val" -> ("val", "validation", "valid", "eval", "evaluation")."""
    canonical = SPLITS.get(split.lower())
    return (split, *(word for word in _SYNONYMS[canonical] if word != split)) if canonical else (split,)


def parse_source(source: str) -> tuple[str, str, dict[str, Any]]:
    """Split `scheme:location?option=value&...` into its parts; a bare path is recognized by what lies there."""
    text, _, query = str(source).partition("?")
    options = {key: _literal(value) for key, value in parse_qsl(query, keep_blank_values=True)}
    for prefix, scheme in _PREFIXES.items():
        if text.startswith(prefix):
            streaming = {"streaming": True} if prefix == "hfids/" else {}
            return scheme, text[len(prefix) :], {**streaming, **options}
    scheme, colon, location = text.partition(":")
    if colon and len(scheme) > 1 and "/" not in scheme and not location.startswith("\\"):
        return scheme, location, options
    return _scheme_of_path(Path(text)), text, options


def _scheme_of_path(path: Path) -> str:
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return "csv"
    if suffix in (".parquet", ".tar"):
        return suffix[1:]
    if path.is_dir() and next(path.glob("*.tar"), None) is not None:
        return "tar"
    return "folder"


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return {"true": True, "false": False, "none": None, "": True}.get(text.lower(), text)


def create_dataset(
    source: str | Source | StreamSource, split: str = TRAIN, *, task: str = "classification", **options: Any
) -> Any:
    """Open a source: `create_dataset("folder:/data/pets", "validation")`, `"digits:"`,
    `"tar:/data/train.tar?class_map=map.txt"`.

    The scheme is any name of `imgzoo list --kind datasets`, plugins included. `options` join those written after `?`
    and go to the scheme; an unknown one raises `OptionError` naming the valid ones. For `task="regression"` listings
    read their targets as numbers. Returns a `Source` (or a `StreamSource`).
    """
    if not isinstance(source, str | Path):
        if options:
            raise OptionError("options go to a source given by name; this one is already open")
        return source
    from imgzoo.registry import registry

    scheme, location, written = parse_source(str(source))
    target = registry("datasets").resolve(scheme).load()
    options = {**written, **{key: value for key, value in options.items() if value is not None}}
    if task == "regression" and "target_format" in inspect.signature(target).parameters:
        options.setdefault("target_format", "value")
    if "split" in options:
        split = options.pop("split")
    check_options(target, options, f"source '{scheme}:'", skip=("location", "split"))
    opened = target(location, split=split, **options)
    opened.name = opened.name or f"{scheme}:{location}"
    return opened


def check_options(target: Any, options: dict[str, Any], what: str, skip: Sequence[str] = ()) -> None:
    """Raise `OptionError` naming the valid options when `target` does not take one of `options`."""
    parameters = inspect.signature(target).parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    valid = [name for name in parameters if name not in skip]
    unknown = [name for name in options if name not in valid]
    if unknown:
        raise OptionError(f"{what} does not take {', '.join(unknown)}; it takes {', '.join(valid) or 'no options'}")


def require_path(location: str, what: str) -> Path:
    """The existing path of a location, or a `UsageError` that says what was looked for."""
    path = Path(location).expanduser()
    if not location or not path.exists():
        raise UsageError(f"{what} '{location}' does not exist; give the path after the scheme, as in folder:/data/pets")
    return path

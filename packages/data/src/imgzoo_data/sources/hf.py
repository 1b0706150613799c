"""`hf:ID`: data sets of the Hugging Face `datasets` library, with random access or streaming."""

from __future__ import annotations

import functools
import importlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imgzoo.errors import DataError, MissingDependencyError, UsageError

from .base import TRAIN, Sample, Source, StreamSource, split_words
from .layout import SplitError, canonical_split, no_split
from .listing import ELSEWHERE, byte_counts, cell_of, image_bytes, pick_image, pick_targets, readable
from .targets import Targets, read_all


def _datasets() -> Any:
    try:
        import datasets  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError as error:
        raise MissingDependencyError("hf: needs the datasets library: pip install 'imgzoo-data[hf]'") from error
    return datasets


def hf_source(
    location: str,
    split: str = TRAIN,
    name: str | None = None,
    revision: str | None = None,
    image_key: str | None = None,
    target_key: str | None = None,
    target_format: str = "class",
    class_map: Any = None,
    num_classes: int | None = None,
    streaming: bool = False,
    shuffle: int = 4096,
    num_samples: int | None = None,
    anywhere: bool = False,
) -> Source | StreamSource:
    """Open `hf:org/name`, or `hf:/path` of a saved data set or a folder the library can read. Remote code is never run.

    `split` may be any expression of the library, `train[:10%]`. `target_key` may lead into nested fields and lists,
    `objects/label`, and may name several fields of 0 and 1, separated by commas (`target_format=multihot`). Files that
    cells name are opened below the location and the library's cache, elsewhere only with `anywhere`.
    """
    found, image, keys, names = open_rows(location, split, name, revision, streaming, image_key, target_key)
    targets = Targets(target_format, class_map, num_classes, keys)
    targets.adopt(names)
    reach = None if anywhere else reach_of(location)
    if not streaming:
        source = HfSource(found, image, targets, reach)
        source.whole = _is_one_table(Path(location).expanduser())
        return source
    if target_format == "value":
        targets.learn(cell_of(row, keys) for row in found.take(1))
    if not targets.num_classes:
        raise UsageError(
            f"hf:{location}: a stream cannot be read twice to find its classes; pass class_map or num_classes"
        )
    return HfStream(found, image, targets, shuffle, num_samples, reach)


def open_rows(
    location: str, split: str, name: str | None, revision: str | None, streaming: bool, image_key: str | None,
    target_key: str | None,
) -> tuple[Any, str, list[str], list[str]]:  # fmt: skip
    """The rows of a split, images as bytes; their image column, target fields, and the names declared for one field."""
    found = load(_datasets(), location, split, name, revision, streaming)
    columns = list(found.features or next(iter(found.take(1))))
    image, keys = pick_image(image_key, columns), pick_targets(target_key, columns)
    found = _undecoded(found, image)
    return found, image, keys, _class_names(found, keys[0]) if len(keys) == 1 else []


def reach_of(location: str) -> list[Path]:
    """The folders whose files the cells of a data set may name: its own, and the caches of the library."""
    config = importlib.import_module("datasets").config
    caches = [config.HF_DATASETS_CACHE, config.DOWNLOADED_DATASETS_PATH, config.EXTRACTED_DATASETS_PATH]
    own = Path(location).expanduser()
    folders = [*map(Path, caches), *([own if own.is_dir() else own.parent] if own.exists() else [])]
    return [folder.resolve() for folder in folders]


def _is_one_table(path: Path) -> bool:
    """Whether a data set was saved without splits: whatever is asked for, all of it is read."""
    return (path / "dataset_info.json").is_file() and not (path / "dataset_dict.json").is_file()


def load(library: Any, location: str, split: str, name: str | None, revision: str | None, streaming: bool) -> Any:
    """Load one split of a data set, under whichever synonym it has."""
    path = Path(location).expanduser()
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        with readable(path):
            saved = library.load_from_disk(str(path))
        if not hasattr(saved, "keys"):
            return saved
        word = next((word for word in split_words(split) if word in saved), None)
        word = word or next((word for word in saved if canonical_split(word) == canonical_split(split)), None)
        if word is None:
            raise no_split(f"'{location}'", split, saved)
        return saved[word]
    error: Exception | None = None
    names = (location,) if name is None else (location, name)
    for word in split_words(split):
        try:
            return library.load_dataset(*names, split=word, revision=revision, streaming=streaming)
        except ValueError as failure:  # the library's answer to an unknown split
            error = error or failure
    raise SplitError(f"hf:{location} has no split '{split}': {error}") from error


def _undecoded(found: Any, image: str) -> Any:
    """The data set with its image column as bytes, so that decoding is ours (and its limits hold)."""
    feature = (found.features or {}).get(image)
    if feature is not None and type(feature).__name__ == "Image":
        return found.cast_column(image, type(feature)(decode=False))
    return found


def _class_names(found: Any, target: str) -> list[str]:
    """The names that a `ClassLabel` declares, however deep in lists and structures it lies."""
    feature: Any = found.features or {}
    for part in [p for p in target.split("/") if not p.isdecimal()]:
        feature = _inside_lists(feature)
        feature = feature.get(part) if hasattr(feature, "get") else None
    return list(getattr(_inside_lists(feature), "names", None) or [])


def _inside_lists(feature: Any) -> Any:
    while True:
        inner = feature[0] if isinstance(feature, list) and feature else getattr(feature, "feature", None)
        if inner is None:
            return feature
        feature = inner


class HfSource(Source):
    """A memory-mapped Arrow table: random access."""

    def __init__(self, found: Any, image: str, targets: Targets, reach: Sequence[Path] | None = None):
        self.reach = reach
        self.rows, self.image, self.keys, self.reader = found, image, targets.keys, targets
        roots = list(dict.fromkeys(key if key in found.column_names else key.split("/")[0] for key in targets.keys))
        cells = [cell_of(row, targets.keys) for row in found.select_columns(roots)]
        self._targets = read_all(targets, cells, lambda row: f"row {row}, field {', '.join(targets.keys)}")
        targets.tell(self)
        self.served = f"split '{found.split}'" if getattr(found, "split", None) else "a split of the saved set"

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        target = self._targets[index]
        data = image_bytes(self.rows[int(index)][self.image], None, self.reach)
        return Sample(data, target.copy() if target.ndim else target.item(), self.key(index))

    def key(self, index: int) -> str:
        return f"row {index}"

    def place(self, index: int) -> str | None:
        known = getattr(self.rows, "_fingerprint", None)  # the same for the same split of the same set
        return None if known is None else f"{known}:{index}"

    def size(self, index: int) -> int | None:
        count = int(self._sizes[index])
        if count != ELSEWHERE:
            return count if count >= 0 else None
        cell = self.rows[int(index)][self.image]
        try:
            return os.stat(cell["path"] if isinstance(cell, dict) else cell).st_size
        except (OSError, TypeError, ValueError):  # no file, or none that is there
            return None

    @functools.cached_property
    def _sizes(self) -> np.ndarray:
        """(N,) bytes of each image, below 0 where it is a file, or no bytes."""
        tables = self.rows.select_columns([self.image]).with_format("arrow").iter(1000)
        return np.concatenate([byte_counts(table.column(0)) for table in tables])

    def targets(self) -> np.ndarray:
        return self._targets


class HfStream(StreamSource):
    """A streamed data set, shuffled through the library's buffer."""

    def __init__(
        self, found: Any, image: str, targets: Targets, shuffle: int, num_samples: int | None,
        reach: Sequence[Path] | None = None,
    ):  # fmt: skip
        if hasattr(found, "to_iterable_dataset"):  # a saved set is a table: it is read in order too
            num_samples, found = num_samples or len(found), found.to_iterable_dataset()
        self.rows, self.image, self.keys, self.reader, self.shuffle = found, image, targets.keys, targets, shuffle
        self.num_samples, self.reach = num_samples, reach
        targets.tell(self)

    def __len__(self) -> int:
        splits = getattr(self.rows.info, "splits", None) or {}
        known = self.num_samples or getattr(splits.get(str(self.rows.split)), "num_examples", None)
        return known if known else super().__len__()

    def stream(self, seed: int, epoch: int, reader: int, readers: int, training: bool) -> Iterator[Sample]:
        rows = self.rows
        if training:
            rows = rows.shuffle(seed=seed, buffer_size=self.shuffle)
            rows.set_epoch(epoch)
        for count, row in enumerate(rows):
            if count % readers == reader:
                try:
                    target = self.reader.read(cell_of(row, self.keys))
                    yield Sample(image_bytes(row[self.image], None, self.reach), target, f"row {count}")
                except DataError as error:
                    raise DataError(f"row {count}, field {', '.join(self.keys)}: {error}") from error

"""`hf:ID`: data sets of the Hugging Face `datasets` library, with random access or streaming."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from imgzoo.errors import DataError, MissingDependencyError, UsageError

from .base import TRAIN, Sample, Source, StreamSource, split_words
from .listing import IMAGE_KEYS, TARGET_KEYS, Targets, image_bytes, nested, pick_column


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
) -> Source | StreamSource:
    """Open `hf:org/name`, or `hf:/path` of a saved data set or a folder the library can read. Remote code is never run.

    `split` may be any expression of the library, `train[:10%]`. `target_key` may lead into nested fields,
    `objects/label`.
    """
    found = load(_datasets(), location, split, name, revision, streaming)
    columns = list(found.features or next(iter(found.take(1))))
    image = pick_column(image_key, IMAGE_KEYS, columns, "image")
    target = pick_column(target_key, TARGET_KEYS, columns, "target")
    if image is None or target is None:
        raise UsageError(f"name image_key and target_key; the columns are {', '.join(columns)}")
    found = _undecoded(found, image)
    targets = Targets(target_format, class_map, num_classes)
    targets.adopt(_class_names(found, target))
    if streaming:
        if target_format == "value":
            targets.learn(nested(row, target) for row in found.take(1))
        return HfStream(found, image, target, targets, shuffle, num_samples)
    return HfSource(found, image, target, targets)


def load(library: Any, location: str, split: str, name: str | None, revision: str | None, streaming: bool) -> Any:
    """Load one split of a data set, under whichever synonym it has."""
    path = Path(location).expanduser()
    if (path / "dataset_info.json").is_file() or (path / "dataset_dict.json").is_file():
        saved = library.load_from_disk(str(path))
        if not hasattr(saved, "keys"):
            return saved
        word = next((w for w in split_words(split) if w in saved), None)
        if word is None:
            raise UsageError(f"'{location}' has no split '{split}'; it has {', '.join(saved)}")
        return saved[word]
    error: Exception | None = None
    for word in split_words(split):
        try:
            return library.load_dataset(location, name, split=word, revision=revision, streaming=streaming)
        except ValueError as failure:  # the library's answer to an unknown split
            error = error or failure
    raise UsageError(f"hf:{location} has no split '{split}': {error}") from error


def _undecoded(found: Any, image: str) -> Any:
    """The data set with its image column as bytes, so that decoding is ours (and its limits hold)."""
    feature = (found.features or {}).get(image)
    if feature is not None and type(feature).__name__ == "Image":
        return found.cast_column(image, type(feature)(decode=False))
    return found


def _class_names(found: Any, target: str) -> list[str]:
    feature = (found.features or {}).get(target.split("/")[0])
    feature = getattr(feature, "feature", feature)
    return list(getattr(feature, "names", None) or [])


class HfSource(Source):
    """A memory-mapped Arrow table: random access."""

    def __init__(self, found: Any, image: str, target: str, targets: Targets):
        self.rows, self.image, self.target, self.reader = found, image, target, targets
        if not targets.num_classes:
            targets.learn(nested(row, target) for row in found.select_columns([target.split("/")[0]]))
        self.class_names, self.num_classes = targets.names, targets.num_classes
        self.multi_label = targets.multi_label

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = self.rows[int(index)]
        return Sample(image_bytes(row[self.image], None), self.reader.read(nested(row, self.target)), self.key(index))

    def key(self, index: int) -> str:
        return f"row {index}"

    def targets(self) -> np.ndarray:
        rows = self.rows.select_columns([self.target.split("/")[0]])
        return np.array([self.reader.read(nested(row, self.target)) for row in rows])


class HfStream(StreamSource):
    """A streamed data set, shuffled through the library's buffer."""

    def __init__(self, found: Any, image: str, target: str, targets: Targets, shuffle: int, num_samples: int | None):
        self.rows, self.image, self.target, self.reader, self.shuffle = found, image, target, targets, shuffle
        self.class_names, self.num_classes = targets.names, targets.num_classes
        self.multi_label, self.num_samples = targets.multi_label, num_samples

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
                    yield Sample(
                        image_bytes(row[self.image], None), self.reader.read(nested(row, self.target)), f"row {count}"
                    )
                except DataError as error:
                    raise DataError(f"row {count}: {error}") from error

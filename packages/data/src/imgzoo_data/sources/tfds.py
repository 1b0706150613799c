"""`tfds:NAME`: TensorFlow Datasets, read without TensorFlow where they are stored with random access."""

from __future__ import annotations

from typing import Any

from imgzoo.errors import MissingDependencyError, UsageError
from imgzoo.text import first_line

from .base import TRAIN, Sample, Source, split_words
from .layout import no_split
from .listing import cell_of
from .targets import Targets


class TfdsSource(Source):
    """A data set prepared in the `array_record` format (`tfds.builder(..., file_format="array_record")`): random
    access.

    Args:
        data_dir: where data sets are kept, tfds's own default otherwise.
        download: prepare the data set if it is not there.
    """

    def __init__(
        self,
        location: str,
        split: str = TRAIN,
        data_dir: str | None = None,
        image_key: str = "image",
        target_key: str = "label",
        target_format: str = "class",
        class_map: Any = None,
        num_classes: int | None = None,
        download: bool = False,
    ):
        try:
            import tensorflow_datasets as tfds  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError as error:
            raise MissingDependencyError("tfds: needs tensorflow-datasets: pip install 'imgzoo-data[tfds]'") from error
        try:
            builder = tfds.builder(location, data_dir=data_dir, file_format="array_record")
        except tfds.core.DatasetNotFoundError as error:
            raise UsageError(f"tfds:{location} is no data set: {first_line(error)}") from error
        if download:
            builder.download_and_prepare()
        word = next((w for w in split_words(split) if w.partition("[")[0] in builder.info.splits), None)
        if word is None:
            raise no_split(f"tfds:{location}", split, builder.info.splits or ["none; pass download=true to prepare it"])
        known: Any = builder.info.features
        features = dict(known.items())
        keys = [key.strip() for key in target_key.split(",")]
        missing = {image_key, *(key.split("/")[0] for key in keys)} - set(features)
        if missing:
            raise UsageError(f"tfds:{location} has no {' or '.join(sorted(missing))}; it has {', '.join(features)}")
        encoded = type(features[image_key]).__name__ == "Image"
        decoders = {image_key: tfds.decode.SkipDecoding()} if encoded else None
        open_rows: Any = builder.as_data_source
        self.rows = open_rows(word, decoders=decoders)
        self._place = f"{builder.info.full_name}:{word}"
        self.image, self.keys, self.served = image_key, keys, f"split '{word}'"
        self.reader = Targets(target_format, class_map, num_classes, keys)
        if len(keys) == 1:
            self.reader.adopt(_class_names(builder.info.features, keys[0]))
        if not self.reader.num_classes:
            self.reader.learn(_plain(cell_of(row, keys)) for row in self.rows)
        self.reader.tell(self)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = self.rows[int(index)]
        return Sample(row[self.image], self.reader.read(_plain(cell_of(row, self.keys))), self.key(index))

    def key(self, index: int) -> str:
        return f"row {index}"

    def place(self, index: int) -> str:
        return f"{self._place}:{index}"


def _class_names(features: Any, target: str) -> list[str]:
    """The names that a `ClassLabel` declares, however deep in sequences and structures it lies."""
    for part in target.split("/"):
        features = getattr(features, "feature", features)
        features = features[part]
    return list(getattr(getattr(features, "feature", features), "names", None) or [])


def _plain(cell: Any) -> Any:
    """A cell without NumPy's types: text of bytes, numbers, lists."""
    if hasattr(cell, "tolist"):
        cell = cell.tolist()
    if isinstance(cell, list):
        return [_plain(item) for item in cell]
    return cell.decode("utf-8", "backslashreplace") if isinstance(cell, bytes) else cell

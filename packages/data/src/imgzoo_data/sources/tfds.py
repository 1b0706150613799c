"""`tfds:NAME`: TensorFlow Datasets, read without TensorFlow where they are stored with random access."""

from __future__ import annotations

from typing import Any

from imgzoo.errors import MissingDependencyError, UsageError

from .base import TRAIN, Sample, Source, split_words
from .listing import Targets, nested


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
            raise UsageError(f"tfds:{location} is no data set: {str(error).splitlines()[0]}") from error
        if download:
            builder.download_and_prepare()
        word = next((w for w in split_words(split) if w.partition("[")[0] in builder.info.splits), None)
        if word is None:
            known = ", ".join(builder.info.splits) or "none; pass download=true to prepare it"
            raise UsageError(f"tfds:{location} has no split '{split}'; it has {known}")
        features = dict(builder.info.features.items())
        missing = {image_key, target_key.split("/")[0]} - set(features)
        if missing:
            raise UsageError(f"tfds:{location} has no {' or '.join(sorted(missing))}; it has {', '.join(features)}")
        encoded = type(features[image_key]).__name__ == "Image"
        decoders = {image_key: tfds.decode.SkipDecoding()} if encoded else None
        self.rows = builder.as_data_source(word, decoders=decoders)
        self.image, self.target = image_key, target_key
        self.reader = Targets(target_format, class_map, num_classes)
        label = features[target_key.split("/")[0]]
        self.reader.adopt(getattr(getattr(label, "feature", label), "names", None))
        if not self.reader.num_classes:
            self.reader.learn(nested(row, target_key) for row in self.rows)
        self.class_names, self.num_classes = self.reader.names, self.reader.num_classes
        self.multi_label = self.reader.multi_label

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = self.rows[int(index)]
        return Sample(row[self.image], self.reader.read(nested(row, self.target)), self.key(index))

    def key(self, index: int) -> str:
        return f"row {index}"

"""`digits:` 1,797 handwritten digits of 8x8 pixels, shipped with this package: a data set that needs no download.

The test part of "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, UCI Machine Learning
Repository (1998), as distributed by scikit-learn (BSD-3-Clause). Pixels were counts 0..16; they are presented as
0..255.
"""

from __future__ import annotations

import lzma
from importlib.resources import files

import numpy as np

from imgzoo.errors import UsageError
from imgzoo_data.rng import permutation

from .base import SPLITS, TRAIN, VALIDATION, Sample, Source

COUNT, SIDE = 1797, 8
TRAIN_COUNT = 1437
_SPLIT_SEED = 1998


class DigitsSource(Source):
    """The embedded digits: 1,437 for training and 360 for validation (always the same), or `all` of them."""

    class_names = tuple("0123456789")
    num_classes = 10

    def __init__(self, location: str = "", split: str = TRAIN):
        wanted = location or split
        rows = permutation(COUNT, _SPLIT_SEED, 0)
        parts = {TRAIN: rows[:TRAIN_COUNT], VALIDATION: rows[TRAIN_COUNT:], "test": rows[TRAIN_COUNT:]}
        part = SPLITS.get(wanted.lower(), wanted)
        if part != "all" and part not in parts:
            raise UsageError(f"digits has no split '{wanted}'; use train, validation or all")
        self.split, self.served = part, "the embedded digits, always the same part"
        self.rule = "the digit"
        self.rows = np.arange(COUNT) if part == "all" else np.sort(parts[part])
        packed = lzma.decompress((files("imgzoo_data") / "tables" / "digits.xz").read_bytes())
        table = np.frombuffer(packed, np.uint8)
        self._targets = table[:COUNT]
        counts = table[COUNT:].reshape(COUNT, SIDE, SIDE)
        self.images = ((counts.astype(np.uint16) * 255 + 8) // 16).astype(np.uint8)
        """(1797, 8, 8) uint8"""

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        row = int(self.rows[index])
        return Sample(self.images[row], int(self._targets[row]), f"digit-{row:04}")

    def key(self, index: int) -> str:
        return f"digit-{self.rows[index]:04}"

    def place(self, index: int) -> str:
        return self.key(index)

    def targets(self) -> np.ndarray:
        return self._targets[self.rows].astype(np.int64)

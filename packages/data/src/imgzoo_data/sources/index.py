"""A packed list of files: names in one bytes blob, numbers in arrays. No Python object a file, so forks share it."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

import numpy as np


class PackedIndex:
    """Names (N), targets (N), and the offset and size of each where files lie in an archive.

    Costs 12 bytes a file beside its name, 28 with offsets.
    """

    def __init__(
        self,
        blob: np.ndarray,
        ends: np.ndarray,
        targets: np.ndarray,
        offsets: np.ndarray | None = None,
        sizes: np.ndarray | None = None,
    ):
        self.blob, self.ends, self.targets, self.offsets, self.sizes = blob, ends, targets, offsets, sizes

    def __len__(self) -> int:
        return len(self.ends)

    def name(self, index: int) -> str:
        """The name of a file."""
        first = int(self.ends[index - 1]) if index else 0
        return self.blob[first : int(self.ends[index])].tobytes().decode("utf-8", "surrogateescape")

    def names(self) -> Iterable[str]:
        """All names in order, one at a time."""
        return (self.name(i) for i in range(len(self)))

    @property
    def nbytes(self) -> int:
        """Memory of the arrays, names included."""
        arrays = (self.blob, self.ends, self.targets, self.offsets, self.sizes)
        return sum(a.nbytes for a in arrays if a is not None)

    def take(self, rows: np.ndarray) -> PackedIndex:
        """The index of some rows, in that order."""
        builder = IndexBuilder()
        for row in rows:
            place = () if self.offsets is None or self.sizes is None else (int(self.offsets[row]), int(self.sizes[row]))
            builder.add(self.name(int(row)), int(self.targets[row]), *place)
        return builder.build()


class IndexBuilder:
    """Collects files one at a time into growing arrays, then packs them."""

    def __init__(self) -> None:
        self._blob = bytearray()
        self._ends = array("q")
        self._targets = array("i")
        self._offsets = array("q")
        self._sizes = array("q")

    def __len__(self) -> int:
        return len(self._ends)

    def add(self, name: str, target: int, offset: int | None = None, size: int | None = None) -> None:
        """Append a file; its offset and size too if it lies in an archive."""
        self._blob += name.encode("utf-8", "surrogateescape")
        self._ends.append(len(self._blob))
        self._targets.append(target)
        if offset is not None and size is not None:
            self._offsets.append(offset)
            self._sizes.append(size)

    def build(self) -> PackedIndex:
        """The packed index; the builder is not used after."""
        return PackedIndex(
            np.frombuffer(bytes(self._blob), np.uint8),
            np.array(self._ends, np.int64),
            np.array(self._targets, np.int32),
            np.array(self._offsets, np.int64) if self._offsets else None,
            np.array(self._sizes, np.int64) if self._sizes else None,
        )

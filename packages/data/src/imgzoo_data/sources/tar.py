"""`tar:PATH`: images inside one tar, a folder of tars, or tars in a tar; read in place by offset, never extracted."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imgzoo.errors import DataError, UsageError

from .base import IMAGE_EXTENSIONS, TRAIN, Sample, Source, require_path, split_words
from .classes import load_class_map, names_of, natural_key, natural_sorted
from .index import PackedIndex
from .tarindex import cache_path, load_table

_MOST_OPEN = 128


class TarFiles:
    """Reads byte ranges of several files; descriptors are opened when first needed and carry no position."""

    def __init__(self, paths: Sequence[Path]):
        self.paths = list(paths)
        self._open: dict[int, int] = {}

    def read(self, which: int, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` of file number `which`."""
        fd = self._open.get(which)
        if fd is None:
            if len(self._open) >= _MOST_OPEN:
                os.close(self._open.pop(next(iter(self._open))))
            fd = self._open[which] = os.open(self.paths[which], os.O_RDONLY)
        data = os.pread(fd, size, offset)
        if len(data) != size:
            raise DataError(f"{self.paths[which].name} ends before {offset + size}; it changed since it was indexed")
        return data

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths, "_open": {}}

    def __del__(self) -> None:
        for fd in self._open.values():
            os.close(fd)


class TarSource(Source):
    """Images in uncompressed tars. The class is the innermost folder inside the tar, else the name of the (inner) tar.

    Args:
        class_map: as for `folder:`; files of classes outside it are left out.
        extensions: file endings taken as images.
        index: where the index of offsets is kept: a path, or True for the user's cache folder, or False for nowhere.
    """

    def __init__(
        self,
        location: str,
        split: str = TRAIN,
        class_map: Any = None,
        extensions: Iterable[str] = IMAGE_EXTENSIONS,
        index: bool | str = True,
    ):
        paths = find_tars(require_path(location, "tar"), split)
        wanted = tuple(sorted(e.lower() for e in ((extensions,) if isinstance(extensions, str) else extensions)))
        cache = cache_path(paths, wanted) if index is True else Path(index) if index else None
        table = load_table(paths, wanted, cache)
        self.files = TarFiles(paths)
        numbers = load_class_map(class_map)
        if numbers is None:
            labeled = [name for name in table.label_names if name]
            numbers = {name: i for i, name in enumerate(natural_sorted(labeled))}
        target_of = np.array([numbers.get(name, -1) for name in table.label_names], np.int32)
        targets = target_of[table.labels] if len(table.labels) else np.zeros(0, np.int32)
        packed = PackedIndex(table.blob, table.ends, targets, table.offsets, table.sizes)
        rows = np.flatnonzero(targets >= 0) if numbers else np.arange(len(packed))
        rows = self._order(rows, packed, table)
        self.index, self.which = packed.take(rows), table.which[rows]
        if not len(self.index):
            raise DataError(f"no images in '{location}'; looked for {', '.join(wanted)}")
        self.class_names = names_of(numbers)
        self.num_classes = len(self.class_names)

    @staticmethod
    def _order(rows: np.ndarray, packed: PackedIndex, table: Any) -> np.ndarray:
        """Rows by tar, then by name in natural order within a label: independent of the order of members."""
        rank = np.empty(len(table.label_names), np.int64)
        rank[sorted(range(len(rank)), key=lambda n: natural_key(table.label_names[n]))] = np.arange(len(rank))
        which, place = table.which[rows], rank[table.labels[rows]] if len(rows) else rows
        grouped = rows[np.lexsort((place, which))]
        edges = np.flatnonzero(np.diff(table.which[grouped]) | np.diff(table.labels[grouped])) + 1
        groups = np.split(grouped, edges)
        return np.array(
            [row for g in groups for row in sorted(g.tolist(), key=lambda r: natural_key(packed.name(r)))], np.int64
        )

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> Sample:
        assert self.index.offsets is not None and self.index.sizes is not None
        place, size = int(self.index.offsets[index]), int(self.index.sizes[index])
        data = self.files.read(int(self.which[index]), place, size)
        return Sample(data, int(self.index.targets[index]), self.key(index))

    def key(self, index: int) -> str:
        return f"{self.files.paths[self.which[index]].name}:{self.index.name(index)}"

    def targets(self) -> np.ndarray:
        return self.index.targets


def find_tars(root: Path, split: str) -> list[Path]:
    """The tars of a split: the file itself, those in a sub-folder of that name, a tar of that name, or all in the
    folder.
    """
    if root.is_file():
        return [root]
    for word in split_words(split):
        inside = natural_tars(root / word)
        if inside:
            return inside
        if (root / f"{word}.tar").is_file():
            return [root / f"{word}.tar"]
    for word in split_words(split):
        named = [tar for tar in natural_tars(root) if tar.name.lower().startswith((f"{word}-", f"{word}_", f"{word}."))]
        if named:
            return named
    found = natural_tars(root)
    if not found:
        raise UsageError(f"no .tar below '{root}' for split '{split}'")
    return found


def natural_tars(folder: Path) -> list[Path]:
    """The `.tar` files of a folder in natural order."""
    names = [p.name for p in folder.glob("*.tar")] if folder.is_dir() else []
    return [folder / name for name in natural_sorted(names)]

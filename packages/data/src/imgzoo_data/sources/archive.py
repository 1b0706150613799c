"""Images inside archives that are read in place: what tars and zips share."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imgzoo.errors import DataError, UsageError

from .base import Source, real_place, require_path
from .classes import load_class_map, natural_key, natural_sorted
from .index import PackedIndex
from .layout import (
    Folder,
    both_serve,
    canonical_split,
    classify,
    folder_served,
    left_out,
    no_images,
    no_split,
    split_of,
    split_of_file,
    split_prefix,
)
from .tarindex import LOOSE, TarTable

_MOST_OPEN = 128
_LARGE = 1 << 26


class ArchiveFiles:
    """Reads byte ranges of several files; descriptors are opened when first needed and carry no position.

    The first files stay open until `close`; of many, each read opens the others anew.
    """

    def __init__(self, paths: Sequence[Path]):
        self.paths = list(paths)
        self._open: dict[int, int] = {}
        self._lock = threading.Lock()

    def read(self, which: int, offset: int, size: int) -> bytes:
        """`size` bytes from `offset` of file number `which`."""
        with self._lock:
            fd, kept = self._descriptor(which)
        try:
            sound = offset >= 0 and (size < _LARGE or offset + size <= os.fstat(fd).st_size)
            data = os.pread(fd, size, offset) if sound else b""
        finally:
            if not kept:
                os.close(fd)
        if len(data) != size or not sound:
            raise DataError(f"{self.paths[which].name} ends before {offset + size}; it changed since it was indexed")
        return data

    def _descriptor(self, which: int) -> tuple[int, bool]:
        fd = self._open.get(which)
        if fd is None:
            fd = os.open(self.paths[which], os.O_RDONLY)
            if len(self._open) >= _MOST_OPEN:
                return fd, False
            self._open[which] = fd
        return fd, True

    def close(self) -> None:
        """Close all descriptors; the next read opens what it needs."""
        while self._open:
            with contextlib.suppress(OSError):
                os.close(self._open.popitem()[1])

    def __getstate__(self) -> dict[str, Any]:
        return {"paths": self.paths}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["paths"])

    def __del__(self, close: Any = os.close) -> None:
        for fd in getattr(self, "_open", {}).values():  # `os` may be gone when the interpreter ends
            close(fd)


class Found(NamedTuple):
    """The archives of a split."""

    paths: list[Path]
    served: str
    whole: bool
    shards: bool
    """Whether their names are those of the split rather than of classes."""


def find_archives(location: str, split: str, ending: str) -> Found:
    """The archives of a split: the file itself, those in a sub-folder of the split, those named after it, or, where
    nothing is named after any split, all in the folder.
    """
    root = require_path(location, ending[1:])
    if root.is_file():
        return Found([root], f"'{root.name}'", True, False)
    folders = {d.name: inside for d in root.iterdir() if d.is_dir() and (inside := natural_archives(d, ending))}
    files = natural_archives(root, ending)
    if split in folders:
        return Found(folders[split], folder_served(split, folders), False, False)
    wanted = canonical_split(split)
    serving = [name for name in folders if split_of(name) == wanted]
    if len(serving) > 1:
        raise both_serve(f"'{root}'", serving, split)
    if serving:
        return Found(folders[serving[0]], f"folder '{serving[0]}'", False, False)
    named = [path for path in files if path.stem == split or split_of_file(path.stem) == wanted]
    if named:
        shown = named[0].name + (f" and {len(named) - 1} more" if len(named) > 1 else "")
        return Found(named, shown, False, True)
    others = [*(n for n in folders if split_of(n)), *(path.name for path in files if split_of_file(path.stem))]
    if others or (files and not split_of(split)):
        raise no_split(f"'{root}'", split, others)
    if not files:
        raise UsageError(f"there is no {ending} in '{root}'; folder: reads images that lie in folders")
    return Found(files, f"all {len(files)} {ending} files of '{root}'", True, False)


def natural_archives(folder: Path, ending: str) -> list[Path]:
    """The files of that ending in a folder in natural order, hidden ones left out."""
    names = [p.name for p in folder.iterdir() if p.name.lower().endswith(ending) and not p.name.startswith(".")]
    return [folder / name for name in natural_sorted(names)]


class ArchiveSource(Source):
    """A packed index of files in archives. The class is the innermost folder, else the name of the (inner) archive."""

    files: ArchiveFiles

    def lay_out(
        self, table: TarTable, found: Found, location: str, split: str, class_map: Any, class_from: str, strict: bool,
        search_split: bool, wanted: tuple[str, ...],
    ) -> np.ndarray:  # fmt: skip
        """Choose the split inside, find the classes, and pack the index; returns the chosen rows of the table."""
        what = f"'{location}'"
        paths = [_folder(label, found.shards) for label in table.label_names]
        base = split_prefix(paths, split, what) if found.whole and search_split else None
        self.whole = found.whole and base is None
        self.served = found.served
        if base:
            above = os.path.dirname(base)
            beside = {path[len(above) :].lstrip("/").split("/")[0] for path in paths if path.startswith(above)}
            self.served = f"{folder_served(base, beside)}, in {found.served}"
        others = {label: _folder(label, found.shards) for label in table.unread}
        inside = {path: _below(path, base) for path in {*paths, *others.values()}}
        images = Counter[str]()
        counts = np.bincount(table.labels, minlength=len(paths)) if len(table.labels) else [0] * len(paths)
        for path, count in zip(paths, counts):
            if inside[path] is not None:
                images[str(inside[path])] += int(count)
        unread: dict[str, Counter[str]] = defaultdict(Counter)
        for label, endings in table.unread.items():
            if inside[others[label]] is not None:
                unread[str(inside[others[label]])].update(endings)
        folders = [Folder(name, images[name], unread[name]) for name in {*images, *unread}]

        numbers = load_class_map(class_map)
        classes = classify(folders, what, numbers, class_from, strict)
        number_of = [-2 if inside[path] is None else classes.of.get(str(inside[path]), -1) for path in paths]
        if classes.names:
            outside = sum(images[str(inside[p])] for p, n in zip(paths, number_of) if n == -1)
            self.left_out = {"images of no class": outside} if outside else {}
            number_of = [-2 if number < 0 else number for number in number_of]
        target_of = np.array(number_of, np.int32)
        targets = target_of[table.labels] if len(table.labels) else np.zeros(0, np.int32)
        packed = PackedIndex(table.blob, table.ends, targets, table.offsets, table.sizes)
        rows = _order(np.flatnonzero(targets > -2), packed, table)
        self.index, self.which = packed.take(rows), table.which[rows]
        if not len(rows):
            raise no_images(f"in '{location}'", wanted, folders, numbers)
        self.left_out = {**left_out(folders), **table.left_out, **self.left_out}
        self.class_names, self.num_classes = classes.names, len(classes.names)
        self.rule, self.notes = classes.rule, classes.notes
        return rows

    def __len__(self) -> int:
        return len(self.index)

    def key(self, index: int) -> str:
        return f"{self.files.paths[self.which[index]].name}:{self.index.name(index)}"

    def place(self, index: int) -> str:
        assert self.index.offsets is not None
        return f"{real_place(self.files.paths[self.which[index]])}:{self.index.offsets[index]}"

    def size(self, index: int) -> int:
        assert self.index.sizes is not None
        return int(self.index.sizes[index])

    def targets(self) -> np.ndarray:
        return self.index.targets


def _folder(label: str, shards: bool) -> str:
    """The folder of a label; files at the root of an archive lie in one named after it, unless it is a mere shard."""
    if label.startswith(LOOSE):
        return "" if shards else label.removeprefix(LOOSE)
    return label


def _below(path: str, base: str | None) -> str | None:
    """A path relative to a folder, None outside of it."""
    if not base or path == base:
        return "" if base else path
    return path[len(base) + 1 :] if path.startswith(f"{base}/") else None


def _order(rows: np.ndarray, packed: PackedIndex, table: TarTable) -> np.ndarray:
    """Rows by archive, then by folder and name in natural order: independent of the order of members."""
    rank = np.empty(len(table.label_names), np.int64)
    rank[sorted(range(len(rank)), key=lambda n: natural_key(table.label_names[n]))] = np.arange(len(rank))
    which, place = table.which[rows], rank[table.labels[rows]] if len(rows) else rows
    grouped = rows[np.lexsort((place, which))]
    edges = np.flatnonzero(np.diff(table.which[grouped]) | np.diff(table.labels[grouped])) + 1
    groups = np.split(grouped, edges)
    return np.array(
        [row for g in groups for row in sorted(g.tolist(), key=lambda r: natural_key(packed.name(r)))], np.int64
    )

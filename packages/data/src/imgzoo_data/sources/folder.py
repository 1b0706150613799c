"""`folder:PATH`: images in a tree of folders named after their classes."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from imgzoo.errors import UsageError

from .base import IMAGE_EXTENSIONS, TRAIN, Sample, Source, real_place, require_path
from .classes import load_class_map, natural_key, natural_sorted
from .index import IndexBuilder
from .layout import Folder, choose_split, classify, folder_served, left_out, no_images, split_of


class FolderSource(Source):
    """Images below `location`, or below its sub-folder named like the split or a synonym (val, valid, validation, ...).

    Args:
        class_map: name -> number as a mapping, list, `.txt` or `.json`; by default the folders in natural order.
            Files of classes outside the map are left out.
        extensions: file endings taken as images.
        labels: False lists every image without a target (-1), as for prediction.
        search_split: look for a sub-folder of the split.
        class_from: which folder names a class where there are several levels: `last` (innermost) or `first`.
    """

    def __init__(
        self,
        location: str,
        split: str = TRAIN,
        class_map: Any = None,
        extensions: Iterable[str] | None = None,
        labels: bool = True,
        search_split: bool = True,
        class_from: str = "auto",
    ):
        root = require_path(location, "folder")
        if not root.is_dir():
            hint = "; use zip: or tar: for archives" if root.suffix.lower() in (".zip", ".tar") else ""
            raise UsageError(f"'{root}' is a file; folder: needs a folder{hint}")
        self.root, self.whole = find_split(root, split) if search_split else (root, True)
        self.served = f"all of '{root}'"
        if not self.whole:
            beside = [name for name, folder in _entries(self.root.parent) if folder]
            self.served = folder_served(str(self.root.relative_to(root)), beside)
        wanted = wanted_endings(extensions)
        numbers = load_class_map(class_map)
        labels = labels or numbers is not None

        skipped: Counter[str] = Counter()
        links: list[str] = []
        listing = sorted(
            list_folders(self.root, wanted, skipped, links), key=lambda item: natural_sorted_path(item[0].name)
        )
        folders, self._linked = [folder for folder, _ in listing], bool(links)
        classes = classify(folders if labels else (), f"'{self.root}'", numbers, class_from, extensions is None)
        builder, outside = IndexBuilder(), 0
        for folder, files in listing:
            target = classes.of.get(folder.name, -1)
            if labels and classes.names and target < 0:
                outside += len(files)
                continue
            for file in natural_sorted(files):
                builder.add(f"{folder.name}/{file}" if folder.name else file, target)
        self.index = builder.build()
        if not len(self.index):
            raise no_images(f"below '{self.root}'", wanted, folders, numbers)
        self.class_names, self.num_classes = classes.names, len(classes.names)
        self.rule, self.notes = classes.rule, classes.notes
        beside = "images of no class of the map" if numbers is not None else "images beside the class folders"
        self.left_out = {**left_out(folders), **skipped, **({beside: outside} if outside else {})}

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> Sample:
        name = self.index.name(index)
        with open(self.root / name, "rb", buffering=0) as file:
            return Sample(file.read(), int(self.index.targets[index]), name)

    def key(self, index: int) -> str:
        return self.index.name(index)

    def place(self, index: int) -> str:
        return real_place(os.path.join(self.root, self.index.name(index)))

    def region(self) -> str | None:
        return None if self._linked else f"{os.path.realpath(self.root)}/"

    def size(self, index: int) -> int | None:
        try:
            return os.stat(self.root / self.index.name(index)).st_size
        except OSError:  # a file that went is a bad sample, when it is read
            return None

    def targets(self) -> np.ndarray:
        return self.index.targets


def wanted_endings(extensions: Iterable[str] | None) -> tuple[str, ...]:
    """The file endings that are images, lower case with their dot."""
    given = IMAGE_EXTENSIONS if extensions is None else (extensions,) if isinstance(extensions, str) else extensions
    return tuple(sorted(f".{ending.lower().lstrip('.')}" for ending in given))


def natural_sorted_path(folder: str) -> list[Any]:
    """Sort key of a folder path, part by part."""
    return [(natural_key(part), part) for part in folder.split("/")]


def find_split(root: Path, split: str) -> tuple[Path, bool]:
    """The folder below `root` that serves a split, and whether that is all of `root`, which names no split.

    A single folder that holds everything is looked into. Raises `SplitError` where there are other splits only.
    """
    base, above = root, set()
    while True:
        above.add(_identity(base))
        inside = [name for name, folder in _entries(base) if folder and not name.startswith(".")]
        named = any(split_of(name) for name in inside) or split in inside
        single = not named and len(inside) == 1 and not _has_images(base)
        if not single or _identity(base / inside[0]) in above:
            break
        base = base / inside[0]
    kinds = {name: _kind(base / name) for name in inside} if named else {}
    found = choose_split(kinds, split, f"'{base}'")
    return (root, True) if found is None else (base / found, False)


def _entries(folder: Path) -> list[tuple[str, bool]]:
    """(name, is it a folder) of what lies in a folder."""
    with os.scandir(folder) as entries:
        return [(entry.name, entry.is_dir()) for entry in entries]


def _has_images(folder: Path) -> bool:
    return any(name.lower().endswith(tuple(IMAGE_EXTENSIONS)) for name, inside in _entries(folder) if not inside)


def _kind(folder: Path) -> str:
    """What `choose_split` wants to know of a folder."""
    if any(inside for _, inside in _entries(folder)):
        return "folders"
    return "files" if _has_images(folder) else ""


def list_folders(
    root: Path, wanted: tuple[str, ...], skipped: Counter[str], links: list[str]
) -> Iterator[tuple[Folder, list[str]]]:
    """(folder, its image files) of every folder below `root`; what is passed over is counted, links are listed.

    Hidden entries, links that lead back to a folder above, broken links and what is no file are passed over.
    """
    pending: list[tuple[str, frozenset[Any]]] = [("", frozenset([_identity(root)]))]
    while pending:
        folder, above = pending.pop()
        files, unread = [], Counter[str]()
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if entry.is_symlink():
                    links.append(entry.name)
                if entry.name.startswith("."):
                    skipped["hidden files"] += 1
                elif entry.is_dir():
                    own = _identity(root / folder / entry.name)
                    if own in above:
                        skipped["links to a folder above"] += 1
                        continue
                    pending.append((f"{folder}/{entry.name}" if folder else entry.name, above | {own}))
                elif not entry.is_file():
                    skipped["broken links"] += 1
                elif entry.name.lower().endswith(wanted):
                    files.append(entry.name)
                else:
                    unread[os.path.splitext(entry.name)[1].lower()] += 1
        yield Folder(folder, len(files), unread), files


def _identity(folder: Path) -> tuple[int, int]:
    found = os.stat(folder)
    return found.st_dev, found.st_ino


def list_images(root: Path) -> list[Path]:
    """All images below a folder in natural order, linked folders included."""
    listing = sorted(
        list_folders(root, wanted_endings(None), Counter(), []), key=lambda item: natural_sorted_path(item[0].name)
    )
    return [root / folder.name / file for folder, files in listing for file in natural_sorted(files)]

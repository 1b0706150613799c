"""`folder:PATH`: images in a tree of folders, the name of the innermost folder being the class."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from imgzoo.errors import DataError, UsageError

from .base import IMAGE_EXTENSIONS, SPLITS, TRAIN, Sample, Source, require_path, split_words
from .classes import load_class_map, names_of, natural_key, natural_sorted
from .index import IndexBuilder


class FolderSource(Source):
    """Images below `location`, or below its sub-folder named like the split or a synonym (val, valid, validation, ...).

    Args:
        class_map: name -> number as a mapping, list, `.txt` or `.json`; by default the folders in natural order.
            Files of classes outside the map are left out.
        extensions: file endings taken as images.
        labels: False lists every image without a target (-1), as for prediction.
        search_split: look for a sub-folder of the split.
    """

    def __init__(
        self,
        location: str,
        split: str = TRAIN,
        class_map: Any = None,
        extensions: Iterable[str] = IMAGE_EXTENSIONS,
        labels: bool = True,
        search_split: bool = True,
    ):
        root = require_path(location, "folder")
        self.root = find_split(root, split) if search_split else root
        if not self.root.is_dir():
            raise UsageError(f"'{self.root}' is a file; folder: needs a folder")
        extensions = tuple(e.lower() for e in ((extensions,) if isinstance(extensions, str) else extensions))
        numbers = load_class_map(class_map)
        labels = labels or numbers is not None

        listing = list(_list_folders(self.root, extensions))
        if labels and numbers is None:
            found = {os.path.basename(folder) for folder, _ in listing if folder}
            numbers = {name: i for i, name in enumerate(natural_sorted(found))}
        builder = IndexBuilder()
        for folder, files in sorted(listing, key=lambda item: natural_sorted_path(item[0])):
            target = (numbers or {}).get(os.path.basename(folder), -1)
            if labels and numbers and target < 0:
                continue
            for file in natural_sorted(files):
                builder.add(f"{folder}/{file}" if folder else file, target)
        self.index = builder.build()
        if not len(self.index):
            raise DataError(f"no images below '{self.root}'; looked for {', '.join(sorted(extensions))}")
        self.class_names = names_of(numbers) if labels and numbers else []
        self.num_classes = len(self.class_names)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> Sample:
        name = self.index.name(index)
        with open(self.root / name, "rb", buffering=0) as file:
            return Sample(file.read(), int(self.index.targets[index]), name)

    def key(self, index: int) -> str:
        return self.index.name(index)

    def targets(self) -> np.ndarray:
        return self.index.targets


def natural_sorted_path(folder: str) -> list[Any]:
    """Sort key of a folder path, part by part."""
    return [(natural_key(part), part) for part in folder.split("/")]


def find_split(root: Path, split: str) -> Path:
    """The sub-folder of `root` named like the split or one of its synonyms, else `root` itself.

    A root that has folders of other splits only is an error: reading all of it would mix them.
    """
    for word in split_words(split):
        if (root / word).is_dir():
            return root / word
    others = [name for name in sorted(os.listdir(root)) if name in SPLITS and (root / name).is_dir()]
    if len(others) > 1 and set(others) == {e.name for e in os.scandir(root) if e.is_dir()}:
        raise UsageError(f"'{root}' has no split '{split}'; it has {', '.join(others)}")
    return root


def _list_folders(root: Path, extensions: tuple[str, ...]) -> Iterator[tuple[str, list[str]]]:
    """(folder relative to root, its image files) of every folder that holds images; hidden entries are left out."""
    pending = [""]
    while pending:
        folder = pending.pop()
        files = []
        with os.scandir(root / folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir():
                    pending.append(f"{folder}/{entry.name}" if folder else entry.name)
                elif entry.name.lower().endswith(extensions):
                    files.append(entry.name)
        if files:
            yield folder, files

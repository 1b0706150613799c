"""`tar:PATH`: images inside one tar, a folder of tars, or tars in a tar; read in place by offset, never extracted."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .archive import ArchiveFiles, ArchiveSource, find_archives
from .base import TRAIN, Sample
from .folder import wanted_endings
from .tarindex import cache_path, load_table


class TarSource(ArchiveSource):
    """Images in uncompressed tars. The class is the innermost folder inside the tar, else the name of the (inner) tar.

    Args:
        class_map: as for `folder:`; files of classes outside it are left out.
        extensions: file endings taken as images.
        index: where the index of offsets is kept: a path, or true for the user's cache folder, or false for nowhere.
        class_from, search_split: as for `folder:`.
    """

    def __init__(
        self,
        location: str,
        split: str = TRAIN,
        class_map: Any = None,
        extensions: Iterable[str] | None = None,
        index: bool | str = True,
        class_from: str = "auto",
        search_split: bool = True,
    ):
        found = find_archives(location, split, ".tar")
        wanted = wanted_endings(extensions)
        cache = cache_path(found.paths, wanted) if index is True else Path(index) if index else None
        table = load_table(found.paths, wanted, cache)
        self.files = ArchiveFiles(found.paths)
        self.lay_out(table, found, location, split, class_map, class_from, extensions is None, search_split, wanted)

    def __getitem__(self, index: int) -> Sample:
        assert self.index.offsets is not None and self.index.sizes is not None
        place, size = int(self.index.offsets[index]), int(self.index.sizes[index])
        data = self.files.read(int(self.which[index]), place, size)
        return Sample(data, int(self.index.targets[index]), self.key(index))

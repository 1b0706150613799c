"""`zip:PATH`: images inside one zip, or a folder of zips; read in place, member by member, never extracted."""

from __future__ import annotations

import contextlib
import os
import zipfile
import zlib
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imgzoo.errors import DataError

from .archive import ArchiveFiles, ArchiveSource, find_archives
from .base import TRAIN, Sample
from .folder import wanted_endings
from .index import IndexBuilder
from .tarindex import LOOSE, TarTable, is_hidden

_HEADER, _MAGIC = 30, b"PK\x03\x04"
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_MOST_BYTES = 1 << 30


class ZipSource(ArchiveSource):
    """Images in zips, stored or deflated. The class is the innermost folder inside, else the name of the zip.

    Args:
        class_map, extensions, class_from, search_split: as for `folder:`.
    """

    def __init__(
        self,
        location: str,
        split: str = TRAIN,
        class_map: Any = None,
        extensions: Iterable[str] | None = None,
        class_from: str = "auto",
        search_split: bool = True,
    ):
        found = find_archives(location, split, ".zip")
        wanted = wanted_endings(extensions)
        table, lengths, deflated, checks = read_directories(found.paths, wanted)
        self.files = ArchiveFiles(found.paths)
        rows = self.lay_out(
            table, found, location, split, class_map, class_from, extensions is None, search_split, wanted
        )
        self._lengths, self._deflated, self._checks = lengths[rows], deflated[rows], checks[rows]

    def __getitem__(self, index: int) -> Sample:
        assert self.index.offsets is not None and self.index.sizes is not None
        which, place, packed = int(self.which[index]), int(self.index.offsets[index]), int(self.index.sizes[index])
        header = self.files.read(which, place, _HEADER)
        if header[:4] != _MAGIC:
            raise DataError(f"{self.key(index)}: the zip is damaged here, or changed since it was opened")
        start = place + _HEADER + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
        data = self.files.read(which, start, packed)
        if self._deflated[index]:
            data = self._inflate(data, int(self._lengths[index]), index)
        if zlib.crc32(data) != int(self._checks[index]):
            raise DataError(f"{self.key(index)}: the zip is damaged here, its checksum is another")
        return Sample(data, int(self.index.targets[index]), self.key(index))

    def _inflate(self, data: bytes, length: int, index: int) -> bytes:
        """The bytes of a deflated member, never more than its directory says."""
        try:
            return zlib.decompressobj(-15).decompress(data, length + 1)
        except zlib.error as error:
            raise DataError(f"{self.key(index)}: the zip is damaged here: {error}") from error


def read_directories(
    paths: Sequence[Path], extensions: tuple[str, ...]
) -> tuple[TarTable, np.ndarray, np.ndarray, np.ndarray]:
    """The table of the wanted files by their local headers; unpacked size, whether deflated, and CRC of each."""
    builder, labels = IndexBuilder(), dict[str, int]()
    which, label_of, lengths, deflated, checks = array("i"), array("i"), array("q"), array("b"), array("q")
    unread: dict[str, Counter[str]] = defaultdict(Counter)
    left_out: Counter[str] = Counter()
    for number, path in enumerate(paths):
        several, before = f"{LOOSE}{path.stem}" if len(paths) > 1 else "", len(builder)
        for member in _directory(path):
            name = _name(member)
            folder = os.path.dirname(name) or several
            if name.endswith("/"):
                if not is_hidden(name):
                    unread.setdefault(folder, Counter())
            elif is_hidden(name):
                left_out["hidden files"] += 1
            elif not name.lower().endswith(extensions):
                unread[folder][os.path.splitext(name)[1].lower()] += 1
            elif member.flag_bits & 1 or member.compress_type not in _METHODS or member.file_size > _MOST_BYTES:
                why = "is encrypted" if member.flag_bits & 1 else f"is packed by method {member.compress_type}"
                why = why if member.file_size <= _MOST_BYTES else f"has {member.file_size} bytes"
                raise DataError(f"{path}: '{name}' {why}, which is not read; pack the zip anew without that")
            else:
                builder.add(name, 0, member.header_offset, member.compress_size)
                which.append(number)
                label_of.append(labels.setdefault(folder, len(labels)))
                lengths.append(member.file_size)
                deflated.append(member.compress_type == zipfile.ZIP_DEFLATED)
                checks.append(member.CRC)
        if several and len(builder) == before:
            unread.setdefault(several, Counter())
    index, none = builder.build(), np.zeros(0, np.int64)
    offsets, sizes = (none if a is None else a for a in (index.offsets, index.sizes))
    plain = {folder: dict(counts) for folder, counts in unread.items()}
    table = TarTable(
        index.blob, index.ends, np.array(which, np.int32), offsets, sizes, np.array(label_of, np.int32), list(labels),
        plain, dict(left_out),
    )  # fmt: skip
    return table, np.array(lengths, np.int64), np.array(deflated, bool), np.array(checks, np.int64)


def _directory(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except Exception as error:  # what the library raises over a damaged directory has no common base
        raise DataError(f"{path} cannot be read as a zip: {error}") from error


def _name(member: zipfile.ZipInfo) -> str:
    """The name of a member, parted by `/`.

    macOS and others write UTF-8 without saying so, which is then read as code page 437; old Windows tools part by `\\`.
    """
    name = member.filename
    if not member.flag_bits & 0x800:
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name if "/" in name else name.replace("\\", "/")

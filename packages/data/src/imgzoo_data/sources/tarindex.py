"""Where the files of a tar lie: read from its headers, never extracted, kept in a cache with a fingerprint of the
archive.

Plain files are listed, and links to them. Other links, devices, sparse files, hidden files and names beyond reason are
left out and counted; damaged headers are errors.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import posixpath
import zipfile
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from imgzoo.errors import DataError
from imgzoo.loading.disk import replacing
from imgzoo.native import cache_dir
from imgzoo.text import escaped
from imgzoo_data.kinds import what_it_is

from .index import IndexBuilder

log = logging.getLogger("imgzoo.data")
BLOCK = 512
MAX_NAME = 1024
MAX_EXTENDED = 1 << 20
_PLAIN = (b"0", b"\0", b"7")
_LINKS = (b"1", b"2")
_SKIPPED = (b"g", b"V", b"M")  # global headers, volume labels
_CACHE_VERSION = 4
LOOSE = "\0"
"""What the label of files at the root of an archive begins with, before its name; no folder's name can."""
_EDGE = 65536
_TOLD = ("label_names", "unread", "left_out")  # fields of a table that are no arrays
_MOST_HOPS = 4


class Member(NamedTuple):
    """A plain file in an archive: its bytes are `size` from `offset` of the (outermost) file."""

    name: str
    offset: int
    size: int


def read_members(
    fd: int, start: int, end: int, refused: list[str], folders: list[str] | None = None
) -> Iterator[Member]:
    """The plain files of the uncompressed tar that lies between two offsets of an open file.

    A link to a file of the same archive is that file under another name. Names of refused members are added to
    `refused`, those of folders to `folders`. Raises `DataError` where a header is damaged or a file runs past the end.
    """
    links: dict[str, str] = {}
    yield from _plain_files(fd, start, end, refused, links, [] if folders is None else folders)
    if not links:
        return
    targets = {name: _follow(name, links) for name in links}
    wanted = set(targets.values())
    known = {
        own: member
        for member in _plain_files(fd, start, end, [], {}, [])
        if (own := posixpath.normpath(member.name)) in wanted
    }
    for name, target in targets.items():
        if target in known:
            yield known[target]._replace(name=name)
        else:
            refused.append(name[:80])


def _follow(name: str, links: dict[str, str]) -> str:
    """Where a link leads, through other links."""
    target = links[name]
    for _ in range(_MOST_HOPS):
        target = links.get(target, target)
    return target


def _plain_files(
    fd: int, start: int, end: int, refused: list[str], links: dict[str, str], folders: list[str]
) -> Iterator[Member]:
    """The plain files; where each link leads is added to `links`."""
    place, own = start, _Extended()
    if 0 < end - start < BLOCK:
        raise _damaged(os.pread(fd, end - start, start), start)
    while place + BLOCK <= end:
        header = os.pread(fd, BLOCK, place)
        if len(header) < BLOCK:
            raise DataError("the tar ends in the middle of a header")
        if not any(header):
            break
        size, kind = _check_header(header, place), header[156:157]
        if own.size >= 0:
            size = own.size
        data, place = place + BLOCK, place + BLOCK + -(-size // BLOCK) * BLOCK
        if data + size > end:
            raise DataError(f"the tar is cut short: a member of {size} bytes at {data} runs past its end")
        if kind in (b"L", b"K", b"x"):
            if size > MAX_EXTENDED:
                raise DataError(f"the tar has an extended header of {size} bytes; that is not an image archive")
            own.read(kind, os.pread(fd, size, data))
            continue
        name, link = own.name or _ustar_name(header), own.link or _text(header[157:257])
        own = _Extended()
        usable = name and not name.endswith("/") and len(name) <= MAX_NAME and "\0" not in name
        if kind in _PLAIN and usable:
            yield Member(name, data, size)
        elif kind in _LINKS and usable:
            base = posixpath.dirname(name) if kind == b"2" else ""
            links[name] = posixpath.normpath(posixpath.join(base, link))
        elif kind not in _SKIPPED:
            (folders if kind == b"5" or name.endswith("/") else refused).append(name[:MAX_NAME])


def _damaged(header: bytes, place: int) -> DataError:
    """The error of a header that is none: a file of another kind, or a damaged tar."""
    kind = what_it_is(header)
    if place or kind == "a tar archive":
        return DataError(f"the tar header at {place} is damaged")
    advice = {"gzip data": "; decompress it first", "a zip archive": "; zip: reads it"}.get(kind, "")
    return DataError(f"the file is {kind}, not a tar{advice}")


def _check_header(header: bytes, place: int) -> int:
    """The size field, after the checksum is found right."""
    try:
        stored = _number(header[148:156])
        size = _number(header[124:136])
    except ValueError as error:
        raise _damaged(header, place) from error
    if sum(header[:148]) + sum(header[156:]) + 256 != stored or size < 0:
        raise _damaged(header, place)
    return size


def _number(text: bytes) -> int:
    if text[:1] in (b"\x80", b"\xff"):
        value = int.from_bytes(text[1:], "big")
        return value if text[:1] == b"\x80" else value - (1 << 8 * (len(text) - 1))
    digits = text.split(b"\0", 1)[0].strip()
    if digits.strip(b"01234567"):
        raise ValueError("not octal")
    return int(digits or b"0", 8)


def _text(raw: bytes) -> str:
    return raw.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _ustar_name(header: bytes) -> str:
    name = _text(header[:100])
    prefix = _text(header[345:500]) if header[257:262] == b"ustar" and header[262:264] != b"  " else ""
    return f"{prefix}/{name}" if prefix else name


class _Extended:
    """What GNU long names and pax headers say of the next member."""

    def __init__(self) -> None:
        self.name, self.link, self.size = "", "", -1

    def read(self, kind: bytes, data: bytes) -> None:
        """Take over one such header."""
        if kind == b"L":
            self.name = _text(data)
        elif kind == b"K":
            self.link = _text(data)
        while kind == b"x" and data:
            length, space, rest = data.partition(b" ")
            if not space or not length.isdigit() or not len(length) + 1 < int(length) <= len(data):
                break
            key, _, value = rest[: int(length) - len(length) - 2].partition(b"=")
            if key == b"path":
                self.name = _text(value)
            elif key == b"linkpath":
                self.link = _text(value)
            elif key == b"size" and value.isdigit():
                self.size = int(value)
            data = data[int(length) :]


class TarTable(NamedTuple):
    """All wanted files of several tars, packed: names in a blob, and per file its tar, offset, size and folder."""

    blob: np.ndarray
    ends: np.ndarray
    which: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray
    label_names: list[str]
    """Paths of folders; a file at the root of a tar has the tar's own name for one, in angle brackets."""
    unread: dict[str, dict[str, int]]
    """Files of other kinds: folder -> ending -> count; empty for a folder without any."""
    left_out: dict[str, int]


def fingerprint(path: Path) -> str:
    """Changes when the file does: its size, its time of change, and a hash of its first and last 64 KiB."""
    stat = path.stat()
    with path.open("rb") as file:
        digest = hashlib.sha256(file.read(_EDGE))
        if stat.st_size > _EDGE:
            file.seek(max(_EDGE, stat.st_size - _EDGE))
            digest.update(file.read(_EDGE))
    return f"{stat.st_size}-{stat.st_mtime_ns}-{digest.hexdigest()[:32]}"


def cache_path(tars: Sequence[Path], extensions: tuple[str, ...]) -> Path:
    """Where the index of these tars is kept: under `IMGZOO_CACHE`, or the user's cache folder."""
    names = "\n".join([*(str(tar.resolve()) for tar in tars), *extensions])
    return cache_dir() / "index" / f"{hashlib.sha256(names.encode('utf-8', 'surrogateescape')).hexdigest()[:32]}.npz"


def load_table(tars: Sequence[Path], extensions: tuple[str, ...], cache: Path | None) -> TarTable:
    """The table of some tars, from the cache if it still fits them, else built and cached."""
    marks = [fingerprint(tar) for tar in tars]
    if cache is not None:
        table = _read_cache(cache, marks)
        if table is not None and _within(table, tars):
            return table
    table = build_table(tars, extensions)
    if cache is not None:
        write_cache(cache, table, marks)
    return table


def _within(table: TarTable, tars: Sequence[Path]) -> bool:
    """Whether every file lies inside its tar; an index that says otherwise is not believed."""
    count = len(table.ends)
    arrays = (table.which, table.offsets, table.sizes, table.labels)
    if any(len(a) != count for a in arrays):
        return False
    if not count:
        return True
    lengths = np.array([tar.stat().st_size for tar in tars])
    return bool(
        ((table.which >= 0) & (table.which < len(tars))).all()
        and ((table.offsets >= 0) & (table.sizes >= 0)).all()
        and (table.offsets + table.sizes <= lengths[table.which]).all()
        and ((table.labels >= 0) & (table.labels < len(table.label_names))).all()
        and table.ends[0] >= 0
        and (np.diff(table.ends) >= 0).all()
        and table.ends[-1] <= len(table.blob)
    )


def build_table(tars: Sequence[Path], extensions: tuple[str, ...]) -> TarTable:
    """Read the headers of all tars, and of tars inside them; files are labeled by their folder, else by their tar."""
    builder, refused = IndexBuilder(), []
    labels: dict[str, int] = {}
    unread: dict[str, Counter[str]] = defaultdict(Counter)
    left_out: Counter[str] = Counter()
    which, label_of = array("i"), array("i")
    for number, tar in enumerate(tars):
        fd = os.open(tar, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            several = f"{LOOSE}{tar.stem}" if len(tars) > 1 else ""
            folders, before = list[str](), len(builder)
            for member, label in _walk(fd, 0, os.fstat(fd).st_size, several, refused, "", folders):
                if is_hidden(member.name):
                    left_out["hidden files"] += 1
                    continue
                if not member.name.lower().endswith(extensions):
                    unread[label][os.path.splitext(member.name)[1].lower()] += 1
                    continue
                label_of.append(labels.setdefault(label, len(labels)))
                which.append(number)
                builder.add(member.name, 0, member.offset, member.size)
            for folder in (*folders, *([several] if several and len(builder) == before else [])):
                unread.setdefault(folder, Counter())
        except DataError as error:
            raise DataError(f"{tar}: {error}") from error
        finally:
            os.close(fd)
    if refused:
        left_out["members that are no plain files"] = len(refused)
        log.warning(
            "%d members that are not plain files were left out, the first '%s'", len(refused), escaped(refused[0][:80])
        )
    index = builder.build()
    none = np.zeros(0, np.int64)
    offsets, sizes = (none if a is None else a for a in (index.offsets, index.sizes))
    which_, labels_ = np.array(which, np.int32), np.array(label_of, np.int32)
    plain = {folder: dict(counts) for folder, counts in unread.items()}
    return TarTable(index.blob, index.ends, which_, offsets, sizes, labels_, list(labels), plain, dict(left_out))


def is_hidden(name: str) -> bool:
    """Whether a file of an archive is hidden: `.name`, macOS's `._name`, or anything below `__MACOSX`."""
    return any((part.startswith(".") and part not in (".", "..")) or part == "__MACOSX" for part in name.split("/"))


def _walk(
    fd: int, start: int, end: int, label: str, refused: list[str], outer: str, folders: list[str]
) -> Iterator[tuple[Member, str]]:
    """(member, folder) of the files of a tar and of the tars directly inside it; what it lists as folders, and those
    tars, are added to `folders`.
    """
    listed: list[str] = []
    for member in read_members(fd, start, end, refused, listed):
        folder = _normal(os.path.dirname(member.name)) if "/" in member.name else ""
        if member.name.lower().endswith(".tar") and not outer and not is_hidden(member.name):
            inner, inside = member.name[:-4], [""]
            for found, below in _walk(fd, member.offset, member.offset + member.size, "", refused, inner, inside):
                name = f"{member.name}/{found.name}"[-MAX_NAME:]
                yield found._replace(name=name), "/".join(part for part in (inner, below) if part)
            folders += ["/".join(part for part in (inner, below) if part) for below in inside]
        else:
            yield member, folder or label
    folders += [name for path in listed if (name := _normal(path)) and not is_hidden(name)]


def _normal(path: str) -> str:
    """The path of a folder as labels have it."""
    return posixpath.normpath(path).lstrip("./")


def write_cache(path: Path, table: TarTable, marks: list[str]) -> None:
    """Write the index whole or not at all; a cache that cannot be written is not an error."""
    told = {name: getattr(table, name) for name in _TOLD}
    meta = json.dumps({"version": _CACHE_VERSION, "marks": marks, **told})
    arrays = {name: getattr(table, name) for name in TarTable._fields if name not in _TOLD}
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, part.open("wb") as file:
            np.savez(file, meta=np.frombuffer(meta.encode("utf-8", "surrogateescape"), np.uint8), **arrays)


def _read_cache(path: Path, marks: list[str]) -> TarTable | None:
    try:
        with np.load(path, allow_pickle=False) as found:
            meta = json.loads(found["meta"].tobytes().decode("utf-8", "surrogateescape"))
            if meta["version"] != _CACHE_VERSION or meta["marks"] != marks:
                return None
            arrays = {name: found[name] for name in TarTable._fields if name not in _TOLD}
            names = [str(label) for label in meta["label_names"]]
            return TarTable(**arrays, label_names=names, unread=dict(meta["unread"]), left_out=dict(meta["left_out"]))
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None

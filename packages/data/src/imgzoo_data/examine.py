"""The data doctor: what is wrong, odd or repeated in a source."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from imgzoo.errors import DataError

from .decode import MAX_PIXELS, Header, decode_image, read_header
from .sources.base import IMAGE_EXTENSIONS, Source
from .transforms.pipeline import as_array

HUGE = 24_000_000
_FORMATS = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"},
    "MPO": {".jpg", ".jpeg", ".mpo"},
    "PNG": {".png", ".apng"},
    "TIFF": {".tif", ".tiff"},
    "BMP": {".bmp", ".dib"},
    "DIB": {".bmp", ".dib"},
    "PPM": {".ppm", ".pgm", ".pbm", ".pnm", ".pfm"},
    "JPEG2000": {".jp2", ".j2k", ".jpf", ".jpx", ".j2c", ".jpc"},
    "AVIF": {".avif", ".avifs"},
    "HEIF": {".heic", ".heif"},
    "SGI": {".sgi", ".rgb", ".bw"},
}
KINDS = {  # finding -> (is it an error, what it means)
    "unreadable": (True, "cannot be read from where it lies"),
    "empty": (True, "zero bytes"),
    "corrupt": (True, "not an image, or too damaged to decode"),
    "truncated": (True, "the file ends too early"),
    "too large": (True, "above the pixel limit; the loader refuses it"),
    "range": (True, "values that contradict the range of black and white"),
    "leak": (True, "also in the other split"),
    "conflict": (True, "the same image under two targets"),
    "near leak": (False, "looks like an image of the other split"),
    "wrong extension": (False, "the content is of another format than the name says"),
    "CMYK": (False, "a print image; its colors are approximated"),
    "huge": (False, f"more than {HUGE // 1_000_000} megapixels; slow to decode"),
    "duplicate": (False, "the same bytes twice"),
    "near duplicate": (False, "nearly the same picture twice"),
}


class Record(NamedTuple):
    """What one sample is."""

    index: int
    key: str
    target: Any
    problem: str
    detail: str
    sha256: str
    print: int
    """64-bit difference hash of the picture; -1 for flat or unreadable ones."""
    header: Header | None
    size: int


class Finding(NamedTuple):
    """One thing found about one sample."""

    kind: str
    key: str
    detail: str
    index: int


@dataclass
class Health:
    """All that was found in a source."""

    name: str
    count: int
    classes: dict[str, int]
    formats: dict[str, int]
    modes: dict[str, int]
    sides: dict[str, list[float]]
    """Least, 5 %, median, 95 % and greatest width, height and megapixels."""
    oriented: int
    findings: list[Finding] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """Findings that hinder training or spoil an evaluation."""
        return sum(KINDS[f.kind][0] for f in self.findings)

    def counts(self) -> dict[str, int]:
        """Findings by kind, errors first."""
        found = Counter(f.kind for f in self.findings)
        return {kind: found[kind] for kind in KINDS if found[kind]}

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain JSON-able values."""
        rows = [f._asdict() for f in self.findings]
        return {**self.__dict__, "findings": rows, "errors": self.errors, "counts": self.counts()}


def difference_hash(array: np.ndarray) -> int:
    """64 bits: is each of 8x8 places darker than its right neighbor? `array` is (H, W, C) uint8.

    -1 for a flat picture, or one too small to be told from others by this.
    """
    if min(array.shape[:2]) < 32:
        return -1
    gray = Image.fromarray(array if array.shape[2] == 3 else array[:, :, 0]).convert("L")
    small = np.asarray(gray.resize((9, 8), Image.Resampling.BOX), np.int16)
    if small.std() < 2:
        return -1
    return int.from_bytes(np.packbits(small[:, 1:] > small[:, :-1]).tobytes(), "big")


def examine(source: Source, index: int, max_pixels: int = MAX_PIXELS) -> Record:
    """Read, check and decode one sample."""
    try:
        sample = source[index]
    except (DataError, OSError) as error:
        return Record(index, source.key(index), None, "unreadable", str(error), "", -1, None, 0)
    target = sample.target.tolist() if isinstance(sample.target, np.ndarray) else sample.target
    if not isinstance(sample.data, bytes | bytearray):
        try:
            array = as_array(sample.data, 3, max_pixels, source.range)
        except DataError as error:
            return Record(index, sample.key, target, _problem(str(error)), str(error), "", -1, None, 0)
        digest = hashlib.sha256(array.tobytes()).hexdigest()
        header = Header("array", array.shape[1], array.shape[0], array.shape[2])
        return Record(index, sample.key, target, "", "", digest, difference_hash(array), header, array.nbytes)
    digest, size = hashlib.sha256(sample.data).hexdigest(), len(sample.data)
    if not size:
        return Record(index, sample.key, target, "empty", "zero bytes", digest, -1, None, 0)
    header, problem, text, mark = None, "", "", -1
    try:
        header = read_header(sample.data, max_pixels)
        channels = header.channels if header.format == "NPY" else 3
        array = decode_image(sample.data, channels, header=header, range=source.range)
        mark = difference_hash(array if channels in (1, 3) else array[:, :, :1])
    except DataError as error:
        text = str(error)
        problem = _problem(text)
    header = header and header._replace(opened=None)  # records outlive their images
    return Record(index, sample.key, target, problem, text, digest, mark, header, size)


def _problem(text: str) -> str:
    """The kind of finding that an error of decoding is."""
    if "pass range=" in text:
        return "range"
    if "above the limit" in text:
        return "too large"
    return "truncated" if "truncated" in text or "ends" in text else "corrupt"


def examine_all(
    source: Source,
    workers: int = 4,
    limit: int | None = None,
    progress: Callable[[Any, int], Any] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> list[Record]:
    """Examine every sample (or the first `limit`) with threads: decoding releases the interpreter's lock."""
    count = min(len(source), limit) if limit else len(source)

    def one(index: int) -> Record:
        return examine(source, index, max_pixels)

    with ThreadPoolExecutor(max(1, workers)) as pool:
        records = pool.map(one, range(count), chunksize=1)
        return list(progress(records, count) if progress else records)


def diagnose(
    source: Source,
    records: list[Record],
    other: list[Record] | None = None,
    near: int = 3,
    split: str = "the other split",
) -> Health:
    """Findings from records; `other` are the records of a split that must not overlap. `near` is the greatest number of
    differing bits (0 to 3) at which two pictures count as near duplicates, -1 for never."""
    health = Health(
        name=source.name,
        count=len(records),
        classes=_class_counts(source, records),
        formats=dict(Counter(r.header.format for r in records if r.header).most_common()),
        modes=dict(Counter(f"{r.header.channels} channels" for r in records if r.header).most_common()),
        sides=_sides(records),
        oriented=sum(1 for r in records if r.header and r.header.orientation != 1),
    )
    health.findings = [Finding(r.problem, r.key, r.detail, r.index) for r in records if r.problem]
    health.findings += [f for r in records for f in _odd(r)]
    health.findings += list(_duplicates(records, near))
    if other is not None:
        health.findings += list(_leaks(records, other, near, split))
    order = list(KINDS)
    health.findings.sort(key=lambda f: (order.index(f.kind), f.index))
    return health


def _class_counts(source: Source, records: list[Record]) -> dict[str, int]:
    names = list(source.class_names)
    counts: Counter[int] = Counter()
    for record in records:
        if isinstance(record.target, list):
            counts.update(int(i) for i in np.flatnonzero(record.target))
        elif isinstance(record.target, int):
            counts[record.target] += 1
    return {names[i] if 0 <= i < len(names) else str(i): counts[i] for i in sorted({*counts, *range(len(names))})}


def _sides(records: list[Record]) -> dict[str, list[float]]:
    sizes = np.array([(r.header.width, r.header.height) for r in records if r.header], float)
    if not len(sizes):
        return {}
    columns = {"width": sizes[:, 0], "height": sizes[:, 1], "megapixels": sizes.prod(axis=1) / 1e6}
    return {name: np.round(np.quantile(c, (0, 0.05, 0.5, 0.95, 1)), 2).tolist() for name, c in columns.items()}


def _odd(record: Record) -> Iterator[Finding]:
    header = record.header
    if header is None or record.problem:
        return
    suffix = PurePosixPath(record.key.lower()).suffix
    own = _FORMATS.get(header.format, {f".{header.format.lower()}"})
    if suffix in IMAGE_EXTENSIONS and suffix not in own and header.format != "array":
        yield Finding("wrong extension", record.key, f"holds {header.format}", record.index)
    if header.format == "JPEG" and header.channels == 4:
        yield Finding("CMYK", record.key, "four channels", record.index)
    if header.width * header.height > HUGE:
        yield Finding("huge", record.key, f"{header.width}x{header.height}", record.index)


def _duplicates(records: list[Record], near: int) -> Iterator[Finding]:
    first: dict[str, Record] = {}
    unique = []
    for record in records:
        if not record.sha256 or record.problem == "empty":
            continue
        known = first.setdefault(record.sha256, record)
        if known is record:
            unique.append(record)
        elif known.target != record.target:
            yield Finding("conflict", record.key, f"same bytes as {known.key}, another target", record.index)
        else:
            yield Finding("duplicate", record.key, f"same bytes as {known.key}", record.index)
    for left, right, bits in near_pairs([r.print for r in unique], [r.print for r in unique], near):
        if left < right:
            detail = f"looks like {unique[left].key} ({bits} of 64 bits differ)"
            yield Finding("near duplicate", unique[right].key, detail, unique[right].index)


def _leaks(records: list[Record], other: list[Record], near: int, split: str) -> Iterator[Finding]:
    known = {r.sha256: r for r in other if r.sha256 and r.problem != "empty"}
    rest = []
    for record in records:
        if record.sha256 in known:
            yield Finding("leak", record.key, f"is {known[record.sha256].key} of {split}", record.index)
        else:
            rest.append(record)
    seen: set[int] = set()
    for left, right, bits in near_pairs([r.print for r in rest], [r.print for r in other], near):
        if left not in seen:
            seen.add(left)
            detail = f"looks like {other[right].key} of {split} ({bits} of 64 bits differ)"
            yield Finding("near leak", rest[left].key, detail, rest[left].index)


def near_pairs(left: list[int], right: list[int], near: int) -> Iterator[tuple[int, int, int]]:
    """(place in left, place in right, differing bits) of all pairs of hashes at most `near` <= 3 bits apart.

    Two hashes that differ in three bits agree in one of their four 16-bit bands at least, so only those are compared.
    """
    if near < 0:
        return
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place, value in enumerate(right):
        for band in range(4) if value >= 0 else ():
            buckets[band, value >> 16 * band & 0xFFFF].append(place)
    for place, value in enumerate(left):
        if value < 0:
            continue
        found = {p for band in range(4) for p in buckets.get((band, value >> 16 * band & 0xFFFF), ())}
        for candidate in sorted(found):
            bits = (value ^ right[candidate]).bit_count()
            if bits <= min(near, 3):
                yield place, candidate, bits

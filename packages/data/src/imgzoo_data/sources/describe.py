"""`source.describe()`: which part served which split, classes, what was left out and why, values, the label rule."""

from __future__ import annotations

import glob
import hashlib
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from imgzoo.errors import DataError
from imgzoo.text import counted, escaped
from imgzoo_data.decode import has_frames, observe
from imgzoo_data.depth import EIGHT_BITS, TWELVE_BITS, Observed, contradiction

from .base import IMAGE_EXTENSIONS, Facts, Source
from .layout import MOST_READ, SHOWN

_DARK, _DIM, _LOOKED_FOR = 31, 16383, 20_000
COMPARED = 20_000
"""Samples up to which contents are compared; above it only where samples lie."""


@dataclass
class Description:
    """What a source is, in words and figures. `str()` gives its lines, `to_dict()` plain values."""

    source: str
    split: str
    served: str
    samples: int | None
    """None for a stream of unknown length."""
    classes: int
    fewest: int | None
    most: int | None
    """Samples of the smallest and the largest class."""
    rule: str
    left_out: dict[str, int]
    values: str
    range: tuple[float, float] | None = None
    """Values of black and white: the declared ones, or those that 16-bit images were found to use."""
    notes: list[str] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)
    named: bool = True
    """Whether classes have names; else they are numbered, or are numbers to predict."""

    def lines(self) -> list[str]:
        """A line for what there is, and one each for what was left out, notes and contradictions."""
        count = "an unknown number of images" if self.samples is None else counted(self.samples, "image")
        text = f"{self.split}: {count}"
        if self.classes:
            spread = "" if self.fewest is None else f" ({self.fewest:,} to {self.most:,} each)"
            named = f" of {counted(self.classes, 'class')}{spread}"
            text += named if self.named else f" with {counted(self.classes, 'output')}"
        rule = f"{'classes' if self.named else 'labels'} by {self.rule}" if self.rule else ""
        parts = [text, self.served, rule, self.values]
        found = ["; ".join(part for part in parts if part)]
        if self.left_out:
            found.append("  left out: " + ", ".join(f"{count:,} {what}" for what, count in self.left_out.items()))
        found += [f"  note: {note}" for note in self.notes]
        found += [f"  contradiction: {text}" for text in self.contradictions]
        return [escaped(line) for line in found]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON-able values."""
        return asdict(self)


def describe(source: Facts, most: int = 32) -> Description:
    """Describe a source; up to `most` of its images, spread over it, are looked at for the range of their values."""
    several: list[int] = []
    seen = list(_values(source, most, several)) if isinstance(source, Source) else []
    sizes = _class_sizes(source)
    try:
        samples = len(source)  # type: ignore[arg-type]
    except TypeError:
        samples = None
    notes = list(source.notes)
    if source.whole and source.split:
        notes.append("nothing there names a split, so all of it is read")
    if sizes is not None and (empty := [name for name, size in zip(source.class_names, sizes) if not size]):
        more = f" and {len(empty) - SHOWN:,} other classes" if len(empty) > SHOWN else ""
        notes.append(f"no images of {', '.join(map(repr, empty[:SHOWN]))}{more}")
    if isinstance(source, Source):
        notes += _twofold(source)
    if isinstance(source, Source) and several:
        notes.append(f"files with several frames or pages, as '{source.key(several[0])}': the first is read")
    highest = max((item.high for item in seen if item.kind == EIGHT_BITS), default=255)
    if 0 < highest <= _DARK:
        notes.append(f"8-bit values end at {highest:g}: nearly black")
    deepest = max((item.high for item in seen if item.kind == "16-bit"), default=0)
    if source.range is None and TWELVE_BITS < deepest <= _DIM:
        notes.append(f"16-bit values end at {deepest:g} of 65535: dark, unless --range {_DIM} says that this is white")
    contradictions = [text for text in (contradiction(seen, source.range), _missing(source, notes)) if text]
    return Description(
        source=source.name,
        split=source.split or "all",
        served=source.served,
        samples=samples,
        classes=len(source.class_names) or source.num_classes,
        fewest=None if sizes is None else int(sizes[sizes > 0].min(initial=len(source))),  # type: ignore[arg-type]
        most=None if sizes is None else int(sizes.max(initial=0)),
        rule=source.rule,
        left_out=dict(source.left_out),
        values=_spoken(seen, source.range),
        range=source.range or _evident(seen),
        notes=notes,
        contradictions=contradictions,
        named=bool(source.class_names),
    )


def settle(source: Facts, values: tuple[float, float] | None = None) -> Description:
    """Describe a source and let it have the range it was found to use; `values` where it declares none.

    Raises `DataError` for images that contradict the range.
    """
    source.range = source.range or values
    said = source.describe()
    if said.contradictions:
        raise DataError(f"{said.source}, {said.split}: {said.contradictions[0]}")
    source.range = said.range
    return said


def _missing(source: Facts, notes: list[str]) -> str:
    """Note the listed files that are not there; the sentence to refuse with where none is."""
    if not isinstance(source, Source) or not len(source):
        return ""
    count = min(len(source), _LOOKED_FOR)
    rows = np.linspace(0, len(source) - 1, count).round().astype(int).tolist()
    gone = [row for row in rows if source.is_missing(row)]
    if not gone:
        return ""
    first = f"'{source.place(gone[0])}'"
    if len(gone) == count:
        return f"none of the listed files is there, not even {first}; {_advice(str(source.place(gone[0])))}"
    among = "" if count == len(source) else f" of {count:,} looked for"
    notes.append(f"not there: {counted(len(gone), 'listed file')}{among}, the first {first}")
    return ""


def _advice(place: str) -> str:
    """What may help where no listed file is there, such as this one."""
    beside = {os.path.splitext(entry)[1] for entry in glob.glob(f"{glob.escape(place)}.*")}
    found = sorted(ending for ending in beside if ending.lower() in IMAGE_EXTENSIONS)
    if found:
        return f"pass ending={found[0]}, which they lack"
    if "\\" in place and os.path.exists(place.replace("\\", "/")):
        return "write / for \\ in their paths"
    return "pass root= for the folder they are relative to"


def _twofold(source: Source) -> list[str]:
    """Notes on images that stand there several times, and on those under two labels: told by where they lie, or by
    their bytes where the source knows how many those are; up to so many samples and bytes that a start does not wait.
    """
    if not 1 < len(source) <= COMPARED or _reads_for_targets(source):
        return []
    if source.place(0) is None and source.size(0) is None:
        return []
    labels = [label.tobytes() for label in source.targets()]
    groups: dict[Any, list[int]] = defaultdict(list)
    for row in range(len(source)):
        place = source.place(row)
        groups[row if place is None else place].append(row)
    several = [rows for rows in groups.values() if len(rows) > 1]
    found = [rows for rows in several if len({labels[row] for row in rows}) > 1]
    notes = []
    if again := [rows for rows in several if len({labels[row] for row in rows}) == 1]:
        notes.append(f"{counted(len(again), 'image')} listed more than once, the first '{source.key(again[0][0])}'")
    found += _alike(source, [rows[0] for rows in groups.values()], labels)
    if not found:
        return notes
    shown, other = found[0][0], next(row for row in found[0] if labels[row] != labels[found[0][0]])
    return [
        *notes,
        f"{counted(len(found), 'image')} under two labels, the first '{source.key(shown)}'{_label(source, shown)} and "
        f"'{source.key(other)}'{_label(source, other)}",
    ]


def _alike(source: Source, rows: Sequence[int], labels: Sequence[bytes]) -> list[list[int]]:
    """Groups of rows with the same bytes and not all the same label."""
    sizes: dict[int | None, list[int]] = defaultdict(list)
    for row in rows:
        sizes[source.size(row)].append(row)
    costs = {size: len(alike) * size for size, alike in sizes.items() if size and len({labels[r] for r in alike}) > 1}
    read, found = 0, defaultdict[bytes, list[int]](list)
    for size, cost in sorted(costs.items(), key=lambda item: item[1]):
        read += cost
        for row in sizes[size] if read <= MOST_READ else ():
            found[digest_of(source, row)].append(row)
    found.pop(b"", None)
    return [rows for rows in found.values() if len({labels[row] for row in rows}) > 1]


def _label(source: Source, row: int) -> str:
    """The class of a row, or its number to predict, in parentheses; nothing for several."""
    target = source.targets()[row]
    named = target.ndim == 0 and not source.numeric and bool(source.class_names)
    return f" ({source.class_names[target]})" if named else "" if target.ndim else f" ({target:g})"


def digest_of(source: Source, row: int) -> bytes:
    """SHA-256 of the bytes of a sample; empty where there are none to compare."""
    try:
        data = source[row].data
    except (DataError, OSError):  # what cannot be read is found when it is used
        return b""
    return hashlib.sha256(data).digest() if isinstance(data, bytes) and data else b""


def _values(source: Source, most: int, several: list[int]) -> Iterable[Observed]:
    """The values of images spread over the source; the rows of those with more frames than one join `several`."""
    count = len(source)
    for index in dict.fromkeys(
        np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist() if count else ()
    ):
        try:
            data = source[index].data
            if has_frames(data):
                several.append(index)
            yield observe(data)
        except (DataError, OSError):  # what cannot be read is the business of `data check`
            continue


def _class_sizes(source: Facts) -> np.ndarray | None:
    """(classes,) samples of each, where targets are known without reading the samples."""
    if not isinstance(source, Source) or not source.class_names or _reads_for_targets(source):
        return None
    targets = source.targets()
    if targets.ndim > 1:
        return targets.sum(0)
    return np.bincount(targets[targets >= 0].astype(np.int64), minlength=len(source.class_names))


def _reads_for_targets(source: Any) -> bool:
    """Whether a source must read its samples to know their targets."""
    while hasattr(source, "base"):
        source = source.base
    return type(source).targets is Source.targets


def _evident(seen: list[Observed]) -> tuple[float, float] | None:
    """The range of 16-bit images of which one uses the upper bits, so that darker ones beside it are no riddle."""
    deep = [item for item in seen if item.kind == "16-bit"]
    return (0.0, 65535.0) if deep and len(deep) == len(seen) and max(i.high for i in deep) > TWELVE_BITS else None


def _spoken(seen: list[Observed], declared: tuple[float, float] | None) -> str:
    kinds: Mapping[str, list[Observed]] = {}
    for item in seen:
        kinds.setdefault(item.kind, []).append(item)  # type: ignore[attr-defined]
    parts = [
        f"{kind} values {min(i.low for i in items):g}..{max(i.high for i in items):g}" for kind, items in kinds.items()
    ]
    text = ", ".join(parts)
    deep = declared and kinds.keys() != {EIGHT_BITS}  # images of 8 bits are taken as they are
    return f"{text}, black and white declared as {declared[0]:g} and {declared[1]:g}" if declared and deep else text

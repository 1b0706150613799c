"""`source.describe()`: which part served which split, classes, what was left out and why, values, the label rule."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from imgzoo.errors import DataError
from imgzoo.text import counted, escaped
from imgzoo_data.decode import observe
from imgzoo_data.depth import EIGHT_BITS, TWELVE_BITS, Observed, contradiction

from .base import Facts, Source

_DARK, _DIM, _SHOWN, _LOOKED_FOR = 31, 16383, 5, 20_000


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
    seen = list(_values(source, most)) if isinstance(source, Source) else []
    sizes = _class_sizes(source)
    try:
        samples = len(source)  # type: ignore[arg-type]
    except TypeError:
        samples = None
    notes = list(source.notes)
    if source.whole and source.split:
        notes.append("nothing there names a split, so all of it is read")
    if sizes is not None and (empty := [name for name, size in zip(source.class_names, sizes) if not size]):
        more = f" and {len(empty) - _SHOWN:,} other classes" if len(empty) > _SHOWN else ""
        notes.append(f"no images of {', '.join(map(repr, empty[:_SHOWN]))}{more}")
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
        return f"none of the listed files is there, not even {first}; pass root= for the folder they are relative to"
    among = "" if count == len(source) else f" of {count:,} looked for"
    notes.append(f"not there: {counted(len(gone), 'listed file')}{among}, the first {first}")
    return ""


def _values(source: Source, most: int) -> Iterable[Observed]:
    count = len(source)
    for index in dict.fromkeys(
        np.linspace(0, count - 1, min(most, count)).round().astype(int).tolist() if count else ()
    ):
        try:
            yield observe(source[index].data)
        except (DataError, OSError):  # what cannot be read is the business of `data check`
            continue


def _class_sizes(source: Facts) -> np.ndarray | None:
    """(classes,) samples of each, where targets are known without reading the samples."""
    if not isinstance(source, Source) or not source.class_names or type(source).targets is Source.targets:
        return None
    targets = source.targets()
    if targets.ndim > 1:
        return targets.sum(0)
    return np.bincount(targets[targets >= 0].astype(np.int64), minlength=len(source.class_names))


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

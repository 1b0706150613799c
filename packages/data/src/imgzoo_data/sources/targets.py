"""Targets out of the cells of a table: class numbers, vectors of 0 and 1, numbers to predict."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from imgzoo.errors import DataError, UsageError

from .classes import load_class_map, multi_hot, names_of, natural_sorted, number_of
from .layout import case_twins, clean_name, refuse_twins

FORMATS = ("class", "labels", "multihot", "value", "number")
MOST_CLASSES = 1 << 22
_SPARSE = 1000  # class numbers above this must not be far more than the classes that occur
_DIGITS = 18
_MISSING = frozenset(("nan", "null", "none", "n/a", "na", "<na>", "?", "-"))
"""How tables write that there is nothing."""


def nested(row: Any, key: str) -> Any:
    """The value at a key, or at a path into nested fields, `objects/label`; lists are walked through, item by item."""
    if isinstance(row, Mapping) and key in row:
        return row[key]
    parts = key.split("/")
    for place, part in enumerate(parts):
        if isinstance(row, list | tuple) and not part.isdecimal():
            rest = "/".join(parts[place:])
            return [nested(item, rest) for item in row]
        try:
            row = row[int(part)] if isinstance(row, list | tuple) else row[part]
        except (KeyError, TypeError, IndexError) as error:
            there = f"; there are {', '.join(map(str, row))}" if isinstance(row, Mapping) and row else ""
            raise DataError(f"a row has no field '{key}'{there}") from error
    return row


class Targets:
    """Turns raw target cells into class numbers, vectors (num_classes,) of 0 and 1, or the numbers that stand there.

    `form` is `class` (a name; digits are a name too), `number` (a class number, as it is), `labels` (a list, or names
    separated by `;`, `|` or `,`), `multihot` (one field of a vector, or several fields of 0 and 1 named in `keys`), or
    `value` (a number, or several fields of numbers, for regression).
    """

    def __init__(self, form: str, class_map: Any = None, num_classes: int | None = None, keys: Sequence[str] = ()):
        if form not in FORMATS:
            raise UsageError(f"target_format '{form}' is unknown; use {', '.join(FORMATS)}")
        if num_classes is not None and not 0 <= num_classes <= MOST_CLASSES:
            raise UsageError(f"num_classes is a number from 1 to {MOST_CLASSES}, not {num_classes}")
        self.keys = tuple(keys)
        if form == "class" and len(self.keys) > 1:
            raise UsageError(
                f"{len(self.keys)} target fields are named; add target_format=multihot for fields of 0 and 1, or "
                "target_format=value for numbers to predict"
            )
        self.form = form
        self.numbers = load_class_map(class_map)
        self.learned = self.numbers is None
        """Whether the classes are those that occur, unless the data set declares some."""
        self.declared: list[str] = []
        """Names that the data set itself gives to numbers."""
        self.names: list[str] = names_of(self.numbers) if self.numbers else []
        if form == "multihot" and len(self.keys) > 1:
            self.names = self._fields
        self.num_classes = num_classes or len(self.names)

    @property
    def _fields(self) -> list[str]:
        """What the target fields are called: the last part of their paths, or the whole where those repeat."""
        short = [key.rpartition("/")[2] for key in self.keys]
        return short if len(set(short)) == len(short) else list(self.keys)

    @property
    def multi_label(self) -> bool:
        return self.form in ("labels", "multihot")

    @property
    def numeric(self) -> bool:
        return self.form == "value"

    def tell(self, source: Any) -> None:
        """Give a source what is known of its labels."""
        source.class_names, source.num_classes = [] if self.numeric else self.names, self.num_classes
        source.multi_label, source.numeric = self.multi_label, self.numeric
        source.value_names = self._fields if self.numeric else ()
        source.rule, source.notes = self.rule, [*source.notes, *self.notes]

    @property
    def notes(self) -> list[str]:
        """What may be meant otherwise: names that differ by case, that are several joined by a mark, or numbers with
        fractions.
        """
        if self.form not in ("class", "labels"):
            return []
        guessed = self.names if self.learned and not self.declared else ()
        missing = [name for name in guessed if name.casefold() in _MISSING]
        twins = case_twins(self.names) + [f"the class {name!r} looks like a missing label" for name in missing]
        if self.form == "labels" or self.declared:
            return twins
        if any("." in name for name in self.names) and all(map(_is_number, self.names)):
            return [f"classes such as {self.names[0]!r} look like numbers; --task regression predicts them"]
        joined = {name: parts for name in self.names if len(parts := _parts(name)) > 1}
        known = Counter(part for name in self.names for part in joined.get(name, [name]))
        found = [name for name, parts in joined.items() if any(known[part] > 1 for part in parts)]
        if not found:
            return twins
        return [
            *twins,
            f"classes such as {found[0]!r} look like several labels of one image; add target_format=labels to read "
            "them so",
        ]

    @property
    def dtype(self) -> type[np.generic]:
        """How targets are kept."""
        return np.int32 if self.form in ("class", "number") else np.float32

    @property
    def rule(self) -> str:
        """Where labels come from, in words."""
        fields = ", ".join(self.keys) or "the target"
        if self.form == "class" and self.declared:
            return f"the class names that the data set declares for {fields}"
        words = {"class": "names in {}", "number": "class numbers in {}", "labels": "lists of names in {}",
                 "multihot": "0 and 1 in {}", "value": "numbers in {}"}  # fmt: skip
        return words[self.form].format(fields)

    def adopt(self, names: Sequence[str] | None) -> None:
        """Take the class names that the data set itself declares for the numbers that stand in its cells."""
        if not names or self.form == "value":
            return
        self.declared = list(names)
        if self.numbers is None:
            self.names, self.num_classes = list(map(label_name, names)), self.num_classes or len(names)
            refuse_twins(zip(names, self.names), "the data set declares the classes")

    def labels(self, raw: Any) -> list[Any]:
        """The labels of one raw cell."""
        if raw is None or (isinstance(raw, str) and not raw.strip()):
            return []
        if isinstance(raw, str) and self.form == "labels":
            return _parts(raw)
        if isinstance(raw, str) and self.form == "multihot":
            return raw.replace(",", " ").replace(";", " ").split()
        return [_bare(item) for item in raw] if isinstance(raw, list | tuple | np.ndarray) else [raw]

    def learn(self, cells: Iterable[Any]) -> None:
        """Find the classes where neither a class map nor the data set gave them: names in natural order."""
        if self.form == "value":
            self.num_classes = self.num_classes or max(1, len(self.labels(next(iter(cells), 0.0))))
            return
        if self.numbers is not None or self.declared or (self.form == "multihot" and self.num_classes):
            return
        if self.form == "multihot":
            self.num_classes = max((len(self.labels(cell)) for cell in cells), default=0)
            self.names = [str(i) for i in range(self.num_classes)]
            return
        seen = {label_name(label) for cell in cells for label in self.labels(cell)}
        if self.form == "number":
            self._learn_numbers(seen)
            return
        self.names = natural_sorted(seen)
        self.numbers = {name: i for i, name in enumerate(self.names)}
        if self.num_classes and self.num_classes < len(self.names):
            raise DataError(f"the target has {len(self.names)} names, num_classes says {self.num_classes}")
        self.num_classes = len(self.names)

    def _learn_numbers(self, seen: set[str]) -> None:
        wrong = next((label for label in seen if not label.isdecimal() or len(label) > _DIGITS), None)
        if wrong is not None:
            raise DataError(
                f"label '{wrong[:80]}' is no class number; pass class_map, or target_format=class for names"
            )
        most = 1 + max((int(label) for label in seen), default=-1)
        if not self.num_classes and are_sparse(most, len(seen)):
            raise DataError(
                f"class numbers go up to {most - 1} and only {len(seen)} occur; leave target_format=number out if they "
                "are names, or pass num_classes"
            )
        self.num_classes = self.num_classes or most
        self.names = [str(number) for number in range(self.num_classes)]

    def read(self, raw: Any) -> Any:
        """The target of a raw cell: an int, a float, or a vector."""
        if self.form == "value":
            return self._value(self.labels(raw))
        if self.form == "multihot":
            return self._vector(self.labels(raw))
        numbers = [self._number(label) for label in self.labels(raw)]
        if self.form == "labels":
            return multi_hot(numbers, self.num_classes)
        if not numbers:
            raise DataError("the label is empty; fill it in, or leave the row out")
        if len(numbers) > 1:
            raise DataError(f"a row has {len(numbers)} labels; use target_format=labels for several")
        return numbers[0]

    def _value(self, values: list[Any]) -> Any:
        numbers = _floats(values, "a target is no number: {}; use target_format=class for names")
        if len(numbers) != self.num_classes or not np.isfinite(numbers).all():
            raise DataError(f"a target must be {self.num_classes} finite numbers, got {values}")
        return numbers if self.num_classes > 1 else float(numbers[0])

    def _number(self, label: Any) -> int:
        if self.declared and isinstance(label, int | np.integer):
            if not 0 <= label < len(self.declared):
                raise DataError(f"class number {label} is none of the {len(self.declared)} that the data set declares")
            if self.numbers is None:
                return int(label)
            known = self.declared[label]
            return number_of(known if known in self.numbers else label, self.numbers)
        if self.numbers is not None:
            name = label_name(label)
            plain = self.form == "number" and name.isdecimal() and not any(key.isdecimal() for key in self.numbers)
            if plain and int(name) < self.num_classes:  # a number beside a map of names is the class's own
                return int(name)
            return number_of(name, self.numbers)
        if self.declared and label in self.declared:
            return self.declared.index(label)
        if not label_name(label).isdecimal():
            raise DataError(f"label '{label}' is not a class number, and there is no class map")
        return int(label)

    def _vector(self, values: list[Any]) -> np.ndarray:
        vector = _floats(values, "a multi-hot target holds something else than 0 and 1: {}")
        if len(vector) != self.num_classes or not np.isin(vector, (0, 1)).all():
            raise DataError(f"a multi-hot target must be {self.num_classes} values of 0 and 1, not {values[:8]}")
        return vector


def are_sparse(most: int, occurring: int) -> bool:
    """Whether class numbers below `most` are names rather than numbers: far more than the classes that occur."""
    return most > max(_SPARSE, 10 * occurring)


def _parts(text: str) -> list[str]:
    """The names in a cell, parted by the first of `;`, `|` and `,` that it holds."""
    mark = next((mark for mark in ";|," if mark in text), None)
    return [part.strip() for part in text.split(mark) if part.strip()] if mark else [text.strip()]


def _is_number(name: str) -> bool:
    try:
        return np.isfinite(float(name)).item()
    except ValueError:
        return False


def label_name(label: Any) -> str:
    """A label as the name of its class."""
    return clean_name(str(label))


def read_all(targets: Targets, cells: Sequence[Any], where: Callable[[int], str]) -> np.ndarray:
    """Learn and read the targets of all cells; an error says `where` its cell stands."""
    targets.learn(cells)
    values = []
    for place, cell in enumerate(cells):
        try:
            values.append(targets.read(cell))
        except DataError as error:
            raise DataError(f"{where(place)}: {error}") from error
    return np.array(values, targets.dtype)


def _bare(item: Any) -> Any:
    return item.item() if isinstance(item, np.generic) else item


def _floats(values: list[Any], wrong: str) -> np.ndarray:
    """Cells as float32, or a `DataError` that says what is wrong."""
    try:
        return np.array([float(value) for value in values], np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(wrong.format(error)) from error

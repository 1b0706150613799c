"""Class names and numbers: natural order, class-map files, and target formats."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imgzoo.errors import DataError, UsageError
from imgzoo.options import plain_numbers

_DIGITS = re.compile(r"(\d+)")


def natural_key(text: str) -> list[Any]:
    """Sort key under which "n2" comes before "n10", letters without case."""
    return [int(part) if part.isdecimal() else part for part in _DIGITS.split(text.lower())]


def natural_sorted(names: Iterable[str]) -> list[str]:
    """Names in natural order; names equal but for case keep one order."""
    return sorted(names, key=lambda name: (natural_key(name), name))


def load_class_map(class_map: str | Path | Mapping[str, int] | Sequence[str] | None) -> dict[str, int] | None:
    """Class name -> number, from a mapping, a list, a text file (one name a line) or a JSON file (list or mapping).

    Labels that are numbers are named as they are written, or by the numbers themselves: `{"10": 0}` or `{10: 0}`.
    """
    if class_map is None:
        return None
    given: Any = _read_class_map(Path(class_map)) if isinstance(class_map, str | Path) else class_map
    if not len(given):
        raise UsageError("the class map names no class")
    _refuse_twice(given)
    pairs = given.items() if isinstance(given, Mapping) else ((name, number) for number, name in enumerate(given))
    numbers = {_named(name): plain_numbers(number) for name, number in pairs}
    for name, number in numbers.items():
        if not isinstance(name, str) or isinstance(number, bool) or not isinstance(number, int) or number < 0:
            raise UsageError(f"class map: {name!r} -> {number!r} is not a name and a class number")
    return numbers


def _named(label: Any) -> Any:
    """A whole number as it is written."""
    label = plain_numbers(label)
    return str(label) if isinstance(label, int) and not isinstance(label, bool) else label


def _read_class_map(path: Path) -> Any:
    if path.suffix.lower() not in (".txt", ".json"):
        raise UsageError(f"class map {path.name}: only .txt (one name a line) and .json are read")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"class map {path} cannot be read: {error}") from error
    if path.suffix.lower() == ".txt":
        return [line.strip() for line in text.splitlines() if line.strip()]
    try:
        found = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"class map {path} is not JSON: {error}") from error
    if not isinstance(found, dict | list):
        raise UsageError(f"class map {path} must hold a list of names or a mapping of names to numbers")
    return found


def _refuse_twice(names: Iterable[Any]) -> None:
    """Raise `UsageError` for a name that stands twice in a class map: which number it means is not to guess."""
    twice = [name for name, count in Counter(map(str, names)).items() if count > 1]
    if twice:
        raise UsageError(f"class map: {twice[0]!r} stands there twice, and has one number only")


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of JSON, whose names must differ."""
    _refuse_twice(name for name, _ in pairs)
    return dict(pairs)


def names_of(class_map: Mapping[str, int]) -> list[str]:
    """Class names by number; several names of one number are joined, a gap is its number."""
    names: dict[int, str] = {}
    for name, number in class_map.items():
        names[number] = f"{names[number]}, {name}" if number in names else name
    return [names.get(number, str(number)) for number in range(max(names, default=-1) + 1)]


def number_of(label: Any, class_map: Mapping[str, int]) -> int:
    """The number of a label, or a `DataError` that names it."""
    number = class_map.get(str(label))
    if number is None:
        raise DataError(f"label '{label}' is not in the class map of {len(class_map)} classes")
    return number


def multi_hot(labels: Iterable[int], num_classes: int) -> np.ndarray:
    """(num_classes,) float32 with ones at the labels."""
    vector = np.zeros(num_classes, np.float32)
    for label in labels:
        if not 0 <= int(label) < num_classes:
            raise DataError(f"label {label} is outside 0..{num_classes - 1}")
        vector[int(label)] = 1
    return vector

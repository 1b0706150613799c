"""What a field of a spec may be: one table for the answers of hooks and the rows of catalog files. No torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from imgzoo.guard import attempt
from imgzoo.specs import CommandSpec, ComponentSpec, HealthCheck, ModelSpec, WeightSpec
from imgzoo.text import NAME

MOST = 1 << 24
"""Sides of an image, channels and classes above this are mistakes."""
MOST_TEXT, MOST_DIGITS, MOST_DEPTH = 10_000, 10**300, 20
"""How long a text, how large a whole number and how deep a table of options may be."""


class Rule(NamedTuple):
    """A test of a value, and what it must be in words."""

    holds: Callable[[Any], bool]
    words: str


def _is_shown(value: Any) -> bool:
    """Whether a value of any type can be printed."""
    shown, _ = attempt(lambda: f"{value}{value!r}")
    return shown is not None and len(shown) <= 3 * MOST_TEXT


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= MOST_TEXT and (type(value) is str or _is_shown(value))


def _is_tag(value: Any) -> bool:
    return _is_text(value) and NAME.fullmatch(value) is not None


def _is_option(value: Any) -> bool:
    """Whether what stands in a table of options can be printed, as JSON too."""
    return _are_options((value,), 0)


def _are_options(values: Iterable[Any], depth: int) -> bool:
    """As `_is_option`, for all of some values; one loop over what is plain, since lists of names wait for it."""
    for value in values:
        kind = type(value)
        if kind is int:
            if not -MOST_DIGITS < value < MOST_DIGITS:
                return False
        elif kind is str:
            if len(value) > MOST_TEXT:
                return False
        elif kind is bool or kind is float or value is None:
            continue
        elif kind is dict or isinstance(value, Mapping):
            table: Mapping[Any, Any] = value
            if depth == MOST_DEPTH or not all(map(_is_text, table)) or not _are_options(table.values(), depth + 1):
                return False
        elif isinstance(value, list | tuple | set | frozenset):
            inner: Any = value
            if depth == MOST_DEPTH or not _are_options(inner, depth + 1):
                return False
        elif not _is_shown(value):
            return False
    return True


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value <= MOST


def _is_size(value: Any) -> bool:
    return isinstance(value, tuple | list) and len(value) == 3 and all(_is_count(side) and side for side in value)


def _are_channels(value: Any) -> bool:
    listed = isinstance(value, tuple | list) and len(value) > 0
    return listed and all(isinstance(each, int | float) and abs(each) <= MOST for each in value)


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping) and _is_option(value)


def _are_aliases(value: Any) -> bool:
    return isinstance(value, Mapping) and all(_is_tag(old) and _is_text(new) for old, new in value.items())


def _are_words(value: Any) -> bool:
    return isinstance(value, frozenset | set) and all(_is_text(each) for each in value)


def _are_weights(value: Any) -> bool:
    if getattr(value, "checks_its_rows", False):
        return True
    if not isinstance(value, tuple | list) or any(complaint(row) for row in value):
        return False
    return len({row.tag for row in value}) == len(value)


TEXT = Rule(_is_text, f"text, to {MOST_TEXT} characters")
TABLE = Rule(_is_table, "a table of options by name that can be printed")
WORDS = Rule(_are_words, "a set of words")
SIZE = Rule(_is_size, "(channels, height, width)")
COUNT = Rule(_is_count, f"a whole number up to {MOST}")
NUMBER = Rule(_is_number, "a number above 0")
CHANNELS = Rule(_are_channels, "a number a channel")


def _or_none(rule: Rule) -> Rule:
    return Rule(lambda value: value is None or rule.holds(value), f"{rule.words}, or None")


RULES: dict[type, Mapping[str, Rule]] = {
    ModelSpec: {
        "kwargs": TABLE,
        "weights": Rule(_are_weights, "a list of sound WeightSpecs, each tag once"),
        "family": TEXT,
        "paper": TEXT,
        "capabilities": WORDS,
        "aliases": Rule(_are_aliases, "a table from old names to new ones"),
        "spelling": TABLE,
        "field": WORDS,
    },
    WeightSpec: {
        "tag": Rule(_is_tag, "letters, digits, '_' and '-'"),
        **dict.fromkeys(("arch", "url", "hf_hub_id", "hf_hub_filename", "sha256", "license"), TEXT),
        **dict.fromkeys(("interpolation", "crop_mode", "format", "paper", "origin_url"), TEXT),
        "num_classes": COUNT,
        "label_offset": COUNT,
        "input_size": SIZE,
        "test_input_size": _or_none(SIZE),
        "min_input_size": _or_none(SIZE),
        "fixed_input_size": Rule(lambda value: isinstance(value, bool), "true or false"),
        "crop_pct": NUMBER,
        "test_crop_pct": _or_none(NUMBER),
        "mean": CHANNELS,
        "std": CHANNELS,
        "kwargs": TABLE,
    },
    ComponentSpec: {"kwargs": TABLE, "help": TEXT, "paper": TEXT, "traits": WORDS},
    CommandSpec: {"help": TEXT},
    HealthCheck: {"help": TEXT},
}


def complaint(spec: Any, sound: Any = None) -> str:
    """What is wrong with the first field of a spec that is not as it must be; empty when all are.

    Objects that a `sound` spec has in the same fields are not looked at again: a family's rows share most.
    """
    rules = RULES.get(type(spec))
    if rules is None:
        return f"it is a {type(spec).__name__}, and no spec"
    fields = [(field, getattr(spec, field)) for field in rules]
    if type(sound) is type(spec):
        fields = [(field, value) for field, value in fields if value is not getattr(sound, field)]
    return wrong_field(type(spec), fields)


def wrong_field(kind: type, fields: Iterable[tuple[str, Any]]) -> str:
    """What is wrong with the first of some fields of a kind of spec that is not as it must be; empty when all are."""
    rules = RULES[kind]
    for field, value in fields:
        if not rules[field].holds(value):
            return f"{field} must be {rules[field].words}, and is {_told(value)}"
    return ""


def _told(value: Any) -> str:
    """A value in a few words; numbers of any length and texts of any content are safe to print."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        wrong: Iterable[str] = (said for each in value if isinstance(each, WeightSpec) and (said := complaint(each)))
        inside = next(iter(wrong), "")
        return f"a {type(value).__name__} of {len(value)}" + (f" ({inside})" if inside else "")
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e15:
        return repr(value)
    return "None" if value is None else f"a {type(value).__name__}"

"""What a `config.json` from outside may say: every field of its type, every number within bounds, or one sentence."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, cast

from imgzoo.errors import OptionError, WeightsError
from imgzoo.plain import is_list, is_table

MOST_SIDE, MOST_CHANNELS, MOST_CLASSES, MOST_NUMBER, MOST_DEPTH, MOST_ITEMS = 16384, 4096, 1_000_000, 65536, 1000, 1000
MOST_PATCHES = 65536
OWN = ("task", "model_args", "range", "sequence")
"""Fields of the section `imgzoo`."""
DEPTHS = ("depth", "layer", "block", "repeat", "stage")
"""What the name of an option has in it that says how many modules there are."""


def _whole(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _number(value: Any, low: float = -math.inf, high: float = math.inf) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high and abs(value) < 1e30


def _numbers(value: Any) -> bool:
    items = value if is_list(value) else [value]
    return 0 < len(items) <= MOST_CHANNELS and all(_number(item) for item in items)


def _size(value: Any) -> bool:
    shaped = is_list(value) and len(value) == 3 and _whole(value[0], 1, MOST_CHANNELS)
    return shaped and all(_whole(side, 1, MOST_SIDE) for side in value[1:])


def _sides(value: Any) -> bool:
    sides = value if is_list(value) and len(value) == 2 else [value]
    return all(_whole(side, 1, MOST_SIDE) for side in sides)


def _pair(value: Any) -> bool:
    return is_list(value) and len(value) == 2 and _numbers(value)


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) < 10_000


Check = tuple[Callable[[Any], bool], str]
SIZE: Check = (_size, f"channels (to {MOST_CHANNELS}), height and width (to {MOST_SIDE})")
TEXT: Check = (_text, "text")
SHARE: Check = (lambda value: _number(value, 1e-3, 10), "a number above 0")
CHECKS: dict[str, Check] = {
    **dict.fromkeys(("input_size", "test_input_size", "min_input_size"), SIZE),
    **dict.fromkeys(("interpolation", "crop_mode", "license", "url", "hf_hub_id", "origin_url"), TEXT),
    **dict.fromkeys(("crop_pct", "test_crop_pct"), SHARE),
    **dict.fromkeys(("mean", "std"), (_numbers, "numbers")),
    "fixed_input_size": (lambda value: isinstance(value, bool), "true or false"),
    "num_classes": (lambda value: _whole(value, 0, MOST_CLASSES), f"a whole number to {MOST_CLASSES}"),
    "label_offset": (lambda value: _whole(value, 0, MOST_ITEMS), f"a whole number to {MOST_ITEMS}"),
}
"""Field of the preprocessing -> whether a value may stand there, and what may."""


STATED = (
    "test_input_size", "interpolation", "crop_pct", "test_crop_pct", "crop_mode", "mean", "std", "range"
)  # fmt: skip
"""What a user may say of the images that a model takes; the rest its weights and options decide."""


def stated(given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Preprocessing as a user states it, lists as tuples; raises `OptionError` for a word or value that cannot be."""
    found: dict[str, Any] = {}
    for key, value in (given or {}).items():
        holds, words = CHECKS.get(key, (_pair, "the values of black and white"))
        if key not in STATED:
            raise OptionError(f"pretrained_cfg cannot say '{key}'; it can say {', '.join(STATED)}")
        plain: Any = list(cast(Any, value)) if isinstance(value, tuple) else value
        if not holds(plain):
            raise OptionError(f"pretrained_cfg: '{key}' must be {words}, not {value!r}")
        found[key] = tuple(plain) if is_list(plain) else plain
    return found


def check_stored(config: Mapping[str, Any], location: str) -> None:
    """Raise `WeightsError` naming the first field of a configuration that is of another type, or beyond its bounds."""
    preprocessing, own, theirs = (_table(config, key, location) for key in ("pretrained_cfg", "imgzoo", "model_args"))
    options = _table(own, "model_args", location)
    unknown = sorted(own.keys() - set(OWN))
    if unknown:
        raise _wrong(location, f"imgzoo.{unknown[0]}", "left out: no such field is known")
    stored = preprocessing or config
    for key, (holds, words) in CHECKS.items():
        if stored.get(key) is not None and not holds(stored[key]):
            raise _wrong(location, key, words)
    values = own.get("range")
    if values is not None and not _pair(values):
        raise _wrong(location, "range", "the values of black and white")
    arguments = {**theirs, **options}
    for key in ("num_classes", "global_pool"):
        arguments.setdefault(key, config.get(key))
    size = arguments.get("img_size")
    if size is not None and not _sides(size):
        raise _wrong(location, "img_size", f"one side or height and width, to {MOST_SIDE}")
    for key, value in arguments.items():
        _check_option(key, value, location)


def _table(config: Mapping[str, Any], key: str, location: str) -> Mapping[str, Any]:
    """A table of a configuration, empty where it has none."""
    found: Any = config.get(key) or {}
    if not is_table(found):
        raise _wrong(location, key, "a table")
    return found


def _check_option(key: str, value: Any, location: str, depth: int = 0) -> None:
    """Raise for an option of a constructor whose numbers or lists are beyond any network."""
    if is_list(value) or is_table(value):
        if depth > 8 or len(value) > MOST_ITEMS:
            raise _wrong(location, key, f"lists of at most {MOST_ITEMS} items")
        for item in value.values() if is_table(value) else value:
            _check_option(key, item, location, depth + 1)
        return
    if value is None or isinstance(value, bool) or _text(value):
        return
    most = MOST_DEPTH if any(word in key for word in DEPTHS) else MOST_NUMBER
    most = {"num_classes": MOST_CLASSES, "in_chans": MOST_CHANNELS}.get(key, most)
    if not _number(value, -most, most):
        raise _wrong(location, key, f"a number to {most}")


def _wrong(location: str, key: str, words: str) -> WeightsError:
    return WeightsError(f"{location}: '{key}' of config.json must be {words}")

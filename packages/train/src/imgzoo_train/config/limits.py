"""What the value of a setting may be: its type and its bounds."""

from __future__ import annotations

import math
import os
import types
import typing
from typing import Any, Literal, cast

from imgzoo.errors import UsageError
from imgzoo.loading.stored import MOST_PATCHES, MOST_SIDE

from .flags import called

POSITIVE = frozenset(
    {
        "model.num_classes",
        "model.in_chans",
        "data.batch_size",
        "data.val_batch_size",
        "data.repeats",
        "data.max_pixels",
        "optim.accumulate",
        "run.epochs",
        "run.eval_every",
        "run.keep_last",
    }
)
"""Settings that cannot be zero; none can be negative."""


class Bounds(typing.NamedTuple):
    """What a number may be, in words and as a test."""

    words: str
    low: float = 0.0
    high: float = math.inf
    low_too: bool = True
    high_too: bool = True

    def hold(self, value: float) -> bool:
        above = value >= self.low if self.low_too else value > self.low
        return above and (value <= self.high if self.high_too else value < self.high)


_FRACTION = Bounds("at least 0 and below 1", high=1.0, high_too=False)
_SHARE = Bounds("from 0 to 1", high=1.0)
_FACTOR = Bounds("above 0 and at most 1", high=1.0, low_too=False)
_ABOVE = Bounds("above 0", low_too=False)
SIZES = frozenset(["model.img_size", "data.input_size"])
"""Settings that are one size, or height and width."""
BOUNDS = {
    **dict.fromkeys(
        ("run.ema", "loss.smoothing", "optim.momentum", "model.drop_rate", "model.drop_path_rate"), _FRACTION
    ),
    **dict.fromkeys(("data.mix_prob", "distill.weight"), _SHARE),
    "loss.threshold": Bounds("above 0 and below 1", high=1.0, low_too=False, high_too=False),
    **dict.fromkeys(("optim.layer_decay", "data.crop_pct", "run.rollback_lr"), _FACTOR),
    **dict.fromkeys(
        ("model.img_size", "data.input_size", "data.sizes"), Bounds(f"from 1 to {MOST_SIDE}", 1, MOST_SIDE)
    ),
    "data.sequence": Bounds(f"from 1 to {MOST_PATCHES} patches", 1, MOST_PATCHES),
    "run.threads": Bounds("from 0 to 1024", high=1024),
    **dict.fromkeys(("distill.temperature", "optim.clip", "data.std"), _ABOVE),
}
"""Settings that are narrower than their type."""

_KINDS: dict[Any, str] = {list: "a list", dict: "a table", str: "text", bool: "true or false", int: "a whole number"}


def check_threads(count: int) -> None:
    """Raise `UsageError` for more threads than this machine can have use for, with which torch may not start."""
    cores = os.cpu_count() or 1
    if count > 8 * cores:
        raise UsageError(
            f"--threads {count} is more than eight for each of the {cores} processors here; 0 lets torch choose"
        )


def checked_value(value: Any, kind: Any, label: str, where: str) -> Any:
    """`value` as the type `kind`, within the bounds of the setting `label`, as `optim.lr`.

    Raises `UsageError` naming `where` the value stands.
    """
    checked = _typed(value, kind, label, where)
    _check_bounds(checked, label, where)
    return checked


def _check_bounds(value: Any, label: str, where: str) -> None:
    low = 1 if label in POSITIVE else 0
    bounds = BOUNDS.get(label, Bounds(f"at least {low}", low))
    items = cast("list[Any]", value if isinstance(value, list) else [value])
    for item in items:
        if isinstance(item, (int, float)) and not bounds.hold(item):
            raise UsageError(f"{called(label, where)} must be {bounds.words}, not {item}")
    if label in SIZES and len(items) > 2:
        raise UsageError(f"{called(label, where)} is one size or height and width, not {len(items)} numbers")


def _typed(value: Any, kind: Any, label: str, where: str) -> Any:
    """`value` as `kind`; raises `UsageError` when it is of another type."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is types.UnionType:
        if value is None:
            return None
        return _typed(value, next(item for item in arguments if item is not types.NoneType), label, where)
    if origin is Literal:
        if value not in arguments:
            choices = ", ".join(repr(choice) for choice in arguments)
            raise UsageError(f"{called(label, where)} must be one of {choices}, not {value!r}")
        return value
    if origin is list and label in SIZES and isinstance(value, int) and not isinstance(value, bool):
        value = [value]
    if origin is list and isinstance(value, (list, tuple)):
        return [_typed(item, arguments[0], label, where) for item in cast("list[Any]", value)]
    return _plain(value, origin or kind, label, where)


def _plain(value: Any, kind: Any, label: str, where: str) -> Any:
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise UsageError(f"{called(label, where)} must be {_KINDS.get(kind, 'a number')}, not {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise UsageError(f"{called(label, where)} must be a finite number, not {value}")
    if isinstance(value, int) and abs(value) >= 2**63:
        raise UsageError(f"{called(label, where)} is too large: {value}")
    return cast("Any", value)

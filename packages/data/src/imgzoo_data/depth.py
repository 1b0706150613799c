"""Values of black and white: how pixels of more than 8 bits become 8 bits, and what contradicts that.

Without a declared range 8-bit integers are 0..255, 16-bit ones 0..65535, floats 0..1. What that range contradicts is
refused rather than turned black or white: a float above 1, and 16-bit values none of which reaches 4096 (12 bits or
fewer in a wider file). A declared range settles it; images of 8 bits are taken as they are. Pixels that are no finite
number have no color: such an image is bad, as a truncated one is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from imgzoo.errors import DataError, OptionError

TWELVE_BITS = 4095
EIGHT_BITS = "8-bit"
_USUAL = (1.0, 255.0, 1023.0, 4095.0, 16383.0, 65535.0)


class Observed(NamedTuple):
    """Kind of number, and the least and greatest value of an image."""

    kind: str
    low: float
    high: float


def parse_range(value: Any) -> tuple[float, float]:
    """`4095`, `"0,255"` or a pair as (black, white); raises `OptionError`."""
    parts = str(value).split(",") if isinstance(value, str) else [value] if isinstance(value, int | float) else value
    try:
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError):
        numbers = []
    low, high = (0.0, *numbers) if len(numbers) == 1 else numbers if len(numbers) == 2 else (0.0, 0.0)
    if not (np.isfinite([low, high]).all() and low < high):
        raise OptionError(f"range is the value of white, or those of black and white, as 4095 or 0,255; not {value!r}")
    return low, high


def to_8_bits(array: np.ndarray, declared: tuple[float, float] | None = None) -> np.ndarray:
    """Pixels of any number type as uint8; raises `DataError` for values that contradict the (declared) range."""
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint8:
        return array
    found = observed(array)
    problem = contradiction([found], declared)
    if problem:
        raise DataError(problem)
    black, white = declared or _assumed(found)
    if (black, white) == (0, 65535) and array.dtype.kind != "f":
        return (array >> 8).astype(np.uint8)
    if (black, white) == (0, 255) and array.dtype.kind != "f":
        return array.astype(np.uint8)
    return ((array.astype(np.float64) - black) * (255 / (white - black)) + 0.5).astype(np.uint8)


def observed(array: np.ndarray) -> Observed:
    """The values of an array; raises `DataError` for pixels of other types, and for those that are no finite number."""
    if array.dtype.kind not in "buif":
        raise DataError(f"pixels of type {array.dtype} are not supported; use integers or floats")
    if array.dtype.kind == "f" and (wrong := array.size - int(np.isfinite(array).sum())):
        raise DataError(f"{wrong:,} of {array.size:,} values of the image are no finite number; fill them in")
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    return Observed(_kind(array), low, high)


def _kind(array: np.ndarray) -> str:
    if array.dtype == np.bool_ or array.dtype == np.uint8:
        return EIGHT_BITS
    if array.dtype.kind == "f":
        return "float"
    return "16-bit" if array.dtype.kind == "u" and array.dtype.itemsize == 2 else "integer"


def _assumed(found: Observed) -> tuple[float, float]:
    """The range that is taken without a declared one."""
    if found.kind == "float":
        return 0.0, 1.0
    deep = found.kind == "16-bit" or (found.kind == "integer" and found.high > 255)
    return (0.0, 65535.0) if deep else (0.0, 255.0)


def contradiction(seen: Sequence[Observed], declared: tuple[float, float] | None) -> str:
    """What is wrong with the range of these images, in a sentence; empty where nothing is."""
    for kind in dict.fromkeys(item.kind for item in seen if item.kind != EIGHT_BITS):
        own = [item for item in seen if item.kind == kind]
        found = Observed(kind, min(item.low for item in own), max(item.high for item in own))
        black, white = declared or _assumed(found)
        span = f"{found.kind} pixels of {found.low:g} to {found.high:g}"
        likely = next((value for value in _USUAL if value >= found.high), found.high)
        if found.low < black or found.high > white:
            lowest = "" if found.low >= 0 else f"{_written(found.low)},"
            said = "declared" if declared else "usual"
            return (
                f"{span} lie outside the {said} range {black:g} to {white:g}; "
                f"pass {_option(f'{lowest}{_written(likely)}')}"
            )
        if not declared and white == 65535 and 0 < found.high <= TWELVE_BITS:
            return (
                f"{span} would be nearly black in the range 0 to 65535; pass {_option(f'{likely:g}')}, or 65535 if "
                "they are that dark"
            )
    return ""


def _written(bound: float) -> str:
    """A bound so that it is read back as itself: short where that is exact."""
    return short if float(short := f"{bound:g}") == bound else repr(bound)


def _option(values: str) -> str:
    """The option that declares a range: of a source, of Python, and of commands."""
    return f"range={values} (--range {values})"

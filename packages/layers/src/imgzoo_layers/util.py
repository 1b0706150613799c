"""Small arithmetic that many layers need."""

from collections.abc import Callable, Iterable
from typing import Any

from torch import nn

Layer = Callable[..., nn.Module]
"""Makes a layer: a class, a function, or a `functools.partial` of one."""


def make_divisible(value: float, divisor: int = 8, minimum: int | None = None, round_limit: float = 0.9) -> int:
    """Round to a multiple of `divisor`, up once more where rounding down would lose over 1 - `round_limit` of it."""
    rounded = max(minimum or divisor, int(value + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < round_limit * value else rounded


def pair(value: Any) -> tuple[Any, Any]:
    """A number as (n, n); a pair stays as it is."""
    if isinstance(value, Iterable) and not isinstance(value, str):
        first, second = value
        return first, second
    return value, value


def per_stage(option: Any, count: int) -> list[Any]:
    """One value for each stage: of a list, or the same for all."""
    if not isinstance(option, (list, tuple)):
        return [option] * count
    if len(option) != count:
        raise ValueError(f"{count} stages need {count} values each, got {list(option)}")
    return list(option)


def dilate(strides: Iterable[int], output_stride: int, start: int = 1) -> list[tuple[int, int, int]]:
    """Turn strides past `output_stride` into dilation: (stride, dilation before, dilation after) of each stage."""
    steps, reached, dilation = [], start, 1
    for stride in strides:
        before = dilation
        if reached >= output_stride:
            dilation, stride = dilation * stride, 1
        reached *= stride
        steps.append((stride, before, dilation))
    return steps

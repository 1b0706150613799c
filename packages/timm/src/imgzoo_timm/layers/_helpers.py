"""Tuples, settings and small arithmetic. No torch at import."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

import torch

from imgzoo_layers.util import make_divisible as _divisible


def to_ntuple(n: int) -> Callable[[Any], tuple[Any, ...]]:
    """A function that turns a value into n of it, and leaves what can be iterated over as a tuple."""

    def parse(x: Any) -> tuple[Any, ...]:
        if isinstance(x, Iterable) and not isinstance(x, str):
            return tuple(x)
        return tuple(repeat(x, n))

    return parse


to_1tuple, to_2tuple, to_3tuple, to_4tuple = (to_ntuple(n) for n in (1, 2, 3, 4))


def make_divisible(v: float, divisor: int = 8, min_value: int | None = None, round_limit: float = 0.9) -> int:
    return _divisible(v, divisor, min_value, round_limit)


def extend_tuple(x: Any, n: int) -> tuple[Any, ...]:
    """A value or a sequence as n values: the last is repeated, what is too many is left out."""
    x = tuple(x) if isinstance(x, (tuple, list)) else (x,)
    return (*x, *repeat(x[-1], n - len(x)))[:n] if n > len(x) else x[:n]


def get_device_dtype(module: Any, device: Any = None, dtype: Any = None) -> dict[str, Any]:
    """Device and type as given, or those of a module's first parameter."""
    first = next(module.parameters())
    return {"device": first.device if device is None else device, "dtype": dtype or first.dtype}


def is_exporting() -> bool:
    """Whether a graph is made for `torch.export` or ONNX."""
    return torch.compiler.is_exporting()

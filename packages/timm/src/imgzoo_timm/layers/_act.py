"""Activations, as modules that take `inplace` and as functions, and both by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo_layers import act as native

from ._base import adapter

GELU, GELUTanh, QuickGELU, HardMish = native.GELU, native.GELUTanh, native.QuickGELU, native.HardMish
Sigmoid, Tanh = native.Sigmoid, native.Tanh


@adapter
class PReLU(native.PReLU):
    def __init__(self, num_parameters: int = 1, init: float = 0.25, inplace: bool = False):
        super().__init__(inplace, num_parameters, init)


class Swish(nn.SiLU):
    def __init__(self, inplace: bool = False):
        super().__init__(inplace)


class Mish(nn.Mish):
    def __init__(self, inplace: bool = False):
        super().__init__(inplace)


class HardSwish(nn.Hardswish):
    def __init__(self, inplace: bool = False):
        super().__init__(inplace)


class HardSigmoid(nn.Hardsigmoid):
    def __init__(self, inplace: bool = False):
        super().__init__(inplace)


def swish(x: Tensor, inplace: bool = False) -> Tensor:
    return F.silu(x, inplace)


def mish(x: Tensor, inplace: bool = False) -> Tensor:
    return F.mish(x, inplace)


def sigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    return x.sigmoid_() if inplace else x.sigmoid()


def tanh(x: Tensor, inplace: bool = False) -> Tensor:
    return x.tanh_() if inplace else x.tanh()


def hard_swish(x: Tensor, inplace: bool = False) -> Tensor:
    return F.hardswish(x, inplace)


def hard_sigmoid(x: Tensor, inplace: bool = False) -> Tensor:
    return F.hardsigmoid(x, inplace)


def hard_mish(x: Tensor, inplace: bool = False) -> Tensor:
    y = (x + 2).clamp(0, 2) * 0.5
    return x.mul_(y) if inplace else x * y


def gelu(x: Tensor, inplace: bool = False) -> Tensor:
    return F.gelu(x)


def gelu_tanh(x: Tensor, inplace: bool = False) -> Tensor:
    return F.gelu(x, approximate="tanh")


def quick_gelu(x: Tensor, inplace: bool = False) -> Tensor:
    return x * torch.sigmoid(1.702 * x)


FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "silu": F.silu, "swish": swish, "mish": F.mish, "relu": F.relu, "relu6": F.relu6, "leaky_relu": F.leaky_relu,
    "elu": F.elu, "celu": F.celu, "selu": F.selu, "gelu": gelu, "gelu_tanh": gelu_tanh, "quick_gelu": quick_gelu,
    "sigmoid": sigmoid, "tanh": tanh, "hard_sigmoid": F.hardsigmoid, "hard_swish": F.hardswish,
    "hard_mish": hard_mish,
}  # fmt: skip


def get_act_fn(name: Any = "relu") -> Callable[..., Tensor] | None:
    """The function of a name; functions and None pass through."""
    if not name:
        return None
    return FUNCTIONS[name] if isinstance(name, str) else name


def get_act_layer(name: Any = "relu") -> Any:
    """The module class of a name; classes and None pass through."""
    if not name:
        return None
    if not isinstance(name, str):
        return name
    return native.get_act(name)


def create_act_layer(name: Any, inplace: bool | None = None, **kwargs: Any) -> nn.Module | None:
    layer = get_act_layer(name)
    if layer is None:
        return None
    if inplace is None:
        return layer(**kwargs)
    try:
        return layer(inplace=inplace, **kwargs)
    except TypeError:
        return layer(**kwargs)

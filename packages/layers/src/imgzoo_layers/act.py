"""Activations by name. Each entry of `ACT` makes a module; `create_act` knows whether it can work in place."""

from collections.abc import Callable

import torch
from torch import Tensor, nn


class QuickGELU(nn.Module):
    """x * sigmoid(1.702 x), the approximation CLIP was trained with (arXiv:1606.08415, section 2)."""

    def __init__(self, inplace: bool = False):
        super().__init__()

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


class GELUTanh(nn.GELU):
    """GELU by its tanh approximation (arXiv:1606.08415)."""

    def __init__(self, inplace: bool = False):
        super().__init__(approximate="tanh")


class GELU(nn.GELU):
    """Exact GELU; takes `inplace` as the others do and ignores it."""

    def __init__(self, inplace: bool = False):
        super().__init__()


class HardMish(nn.Module):
    """x * clamp(x + 2, 0, 2) / 2, a piecewise Mish."""

    def __init__(self, inplace: bool = False):
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        gate = (x + 2).clamp(0, 2) * 0.5
        return x.mul_(gate) if self.inplace else x * gate


class Sigmoid(nn.Module):
    """Logistic gate that can work in place."""

    def __init__(self, inplace: bool = False):
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        return x.sigmoid_() if self.inplace else x.sigmoid()


class Tanh(nn.Module):
    """tanh that can work in place."""

    def __init__(self, inplace: bool = False):
        super().__init__()
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        return x.tanh_() if self.inplace else x.tanh()


class PReLU(nn.PReLU):
    """max(0, x) + a min(0, x), `a` learned (arXiv:1502.01852); takes `inplace` and ignores it."""

    def __init__(self, inplace: bool = False, num_parameters: int = 1, init: float = 0.25):
        super().__init__(num_parameters, init)


ACT: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "relu6": nn.ReLU6,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "celu": nn.CELU,
    "selu": nn.SELU,
    "prelu": PReLU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "mish": nn.Mish,
    "gelu": GELU,
    "gelu_tanh": GELUTanh,
    "quick_gelu": QuickGELU,
    "sigmoid": Sigmoid,
    "tanh": Tanh,
    "hard_sigmoid": nn.Hardsigmoid,
    "hard_swish": nn.Hardswish,
    "hard_mish": HardMish,
    "identity": nn.Identity,
}
ACT["hardsigmoid"], ACT["hardswish"], ACT["hardmish"] = ACT["hard_sigmoid"], ACT["hard_swish"], ACT["hard_mish"]

Act = str | type[nn.Module] | None
"""How an activation is asked for: its name, a module class, or None for none."""


def get_act(act: Act) -> type[nn.Module]:
    """The class for a name; a class passes through, None and "" give `nn.Identity`."""
    if not act:
        return nn.Identity
    if not isinstance(act, str):
        return act
    if act not in ACT:
        raise ValueError(f"unknown activation '{act}'; use one of {', '.join(ACT)}")
    return ACT[act]


def create_act(act: Act, inplace: bool = False) -> nn.Module:
    """A new activation module, in place where it can."""
    cls = get_act(act)
    if cls is nn.Identity:
        return nn.Identity()
    try:
        return cls(inplace=inplace)
    except TypeError:
        return cls()


def act_fn(act: Act) -> Callable[[Tensor], Tensor]:
    """The function of an activation, of tensors of any shape; one that learns is a `ValueError`."""
    module = create_act(act)
    if next(module.parameters(), None) is not None:
        raise ValueError(f"{act} has weights of its own; use create_act")
    return module.forward

"""The two-layer networks between attention layers: (..., C) -> (..., C_out), or maps with `conv`."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from .act import Act, create_act
from .norm import LayerNorm, Norm


class Mlp(nn.Module):
    """Linear, activation, linear (arXiv:1706.03762, section 3.3); `norm` normalizes the hidden values.

    With `conv` the layers are pointwise convolutions over maps (B, C, H, W).
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        dim_out: int | None = None,
        act: Act = "gelu",
        norm: Norm | None = None,
        bias: bool = True,
        drop: float = 0.0,
        conv: bool = False,
    ):
        super().__init__()
        self.fc1 = pointwise(dim, hidden, bias, conv)
        self.act = create_act(act)
        self.drop1 = nn.Dropout(drop)
        self.norm = norm(hidden) if norm else nn.Identity()
        self.fc2 = pointwise(hidden, dim_out or dim, bias, conv)
        self.drop2 = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop2(self.fc2(self.norm(self.drop1(self.act(self.fc1(x))))))


def pointwise(dim: int, dim_out: int, bias: bool, conv: bool) -> nn.Module:
    """A linear layer over the last dimension, or the same over the channels of a map."""
    return nn.Conv2d(dim, dim_out, 1, bias=bias) if conv else nn.Linear(dim, dim_out, bias=bias)


class GlobalResponseNorm(nn.Module):
    """Let channels compete by their energy over the map (GRN, arXiv:2301.00808, eq. 1 to 3); starts as identity."""

    def __init__(self, dim: int, eps: float = 1e-6, channels_last: bool = True):
        super().__init__()
        self.eps = eps
        self.channels_last = channels_last
        self.weight = nn.Parameter(torch.zeros(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tensor) -> Tensor:
        space, channel = ((1, 2), -1) if self.channels_last else ((2, 3), 1)
        weight, bias = self.weight, self.bias
        if not self.channels_last:
            weight, bias = weight[:, None, None], bias[:, None, None]
        energy = x.norm(p=2, dim=space, keepdim=True)
        share = energy / (energy.mean(dim=channel, keepdim=True) + self.eps)
        return torch.addcmul(bias, x, 1 + weight * share)  # x + weight * x * share + bias in one pass over the map


class GlobalResponseNormMlp(nn.Module):
    """Mlp with global response norm on the hidden values (arXiv:2301.00808)."""

    def __init__(self, dim: int, hidden: int, act: Act = "gelu", drop: float = 0.0, conv: bool = False):
        super().__init__()
        self.fc1 = pointwise(dim, hidden, True, conv)
        self.act = create_act(act)
        self.drop1 = nn.Dropout(drop)
        self.grn = GlobalResponseNorm(hidden, channels_last=not conv)
        self.fc2 = pointwise(hidden, dim, True, conv)
        self.drop2 = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop2(self.fc2(self.grn(self.drop1(self.act(self.fc1(x))))))


class GluMlp(nn.Module):
    """One linear layer makes gate and value, half of `hidden` each: act(gate) * value, linear (arXiv:2002.05202)."""

    def __init__(
        self,
        dim: int,
        hidden: int,
        dim_out: int | None = None,
        act: Act = "silu",
        norm: Norm | None = None,
        bias: bool = True,
        drop: float = 0.0,
        gate_last: bool = False,
    ):
        super().__init__()
        if hidden % 2:
            raise ValueError(f"a gated mlp halves its hidden width, so it must be even, got {hidden}")
        self.gate_last = gate_last
        self.fc1 = nn.Linear(dim, hidden, bias=bias)
        self.act = create_act(act)
        self.drop1 = nn.Dropout(drop)
        self.norm = norm(hidden // 2) if norm else nn.Identity()
        self.fc2 = nn.Linear(hidden // 2, dim_out or dim, bias=bias)
        self.drop2 = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        first, second = self.fc1(x).chunk(2, dim=-1)
        x = first * self.act(second) if self.gate_last else self.act(first) * second
        return self.drop2(self.fc2(self.norm(self.drop1(x))))


class SwiGlu(nn.Module):
    """act(gate(x)) * value(x), linear, with gate and value as two layers (arXiv:2002.05202)."""

    def __init__(
        self,
        dim: int,
        hidden: int,
        dim_out: int | None = None,
        act: Act = "silu",
        norm: Norm | None = None,
        bias: bool = True,
        drop: float = 0.0,
    ):
        super().__init__()
        self.fc1_g = nn.Linear(dim, hidden, bias=bias)
        self.fc1_x = nn.Linear(dim, hidden, bias=bias)
        self.act = create_act(act)
        self.drop1 = nn.Dropout(drop)
        self.norm = norm(hidden) if norm else nn.Identity()
        self.fc2 = nn.Linear(hidden, dim_out or dim, bias=bias)
        self.drop2 = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.fc1_g(x)) * self.fc1_x(x)
        return self.drop2(self.fc2(self.norm(self.drop1(x))))


class GeGlu(nn.Module):
    """Norm, act(gate(x)) * value(x), linear (ViTamin, arXiv:2404.02132); keys `norm`, `w0`, `w1`, `w2`."""

    def __init__(
        self,
        dim: int,
        hidden: int,
        dim_out: int | None = None,
        act: Act = "gelu",
        norm: Norm | None = None,
        bias: bool = True,
        drop: float = 0.0,
    ):
        super().__init__()
        self.norm = (norm or LayerNorm)(dim)
        self.w0 = nn.Linear(dim, hidden, bias=bias)
        self.act = create_act(act)
        self.w1 = nn.Linear(dim, hidden, bias=bias)
        self.drop1 = nn.Dropout(drop)
        self.w2 = nn.Linear(hidden, dim_out or dim, bias=bias)
        self.drop2 = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        return self.drop2(self.w2(self.drop1(self.act(self.w0(x)) * self.w1(x))))


MLP: dict[str, type[nn.Module]] = {"mlp": Mlp, "glu": GluMlp, "swiglu": SwiGlu, "geglu": GeGlu}


def mlp_maker(kind: str, dim: int, hidden: int, multiple: int = 0, **options: object) -> Callable[[], nn.Module]:
    """What makes the mlps of a network, all of a kind. `multiple` rounds the hidden width of gated ones up; the two
    layers of "glu" stand apart where they are rounded or normed.

    Raises:
        ValueError: the kind is not known, or rounding is asked for a kind without a gate.
    """
    if kind not in MLP:
        raise ValueError(f"mlp is one of {', '.join(MLP)}, not {kind!r}")
    if multiple < 0 or (multiple and kind not in ("glu", "swiglu")):
        raise ValueError("mlp_multiple is at least 0, and rounds the hidden channels of a gated mlp, 'glu' or 'swiglu'")
    if multiple:
        hidden = -(hidden // -multiple) * multiple
    if kind == "glu" and (multiple or options.get("norm")):
        kind = "swiglu"
    return partial(MLP[kind], dim, 2 * hidden if kind == "glu" else hidden, **options)

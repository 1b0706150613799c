"""Channel gates: a small network looks at the whole map and scales its channels."""

import math
from collections.abc import Callable
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from .act import Act, create_act
from .bat import BatNonLocal
from .conv import Pointwise2d
from .non_local import NonLocal
from .norm import LayerNorm2d
from .place_gate import (
    Cbam,
    CoordinateAttention,
    EfficientLocalAttention,
    GatherExcite,
    SimpleCoordinateAttention,
    StripAttention,
)
from .util import make_divisible

Gate = Callable[..., nn.Module]
"""Makes a gate for a number of channels."""


class SqueezeExcite(nn.Module):
    """Mean over the map, two pointwise layers, sigmoid, scale (arXiv:1709.01507); keys `fc1`, `fc2`, `bn` (`norm`)."""

    def __init__(
        self,
        dim: int,
        rd_ratio: float = 1.0 / 16,
        rd_channels: int | None = None,
        rd_divisor: int = 8,
        act: Act = "relu",
        gate: Act = "sigmoid",
        bias: bool = True,
        norm: Callable[[int], nn.Module] | None = None,
    ):
        super().__init__()
        hidden = rd_channels or make_divisible(dim * rd_ratio, rd_divisor, round_limit=0.0)
        self.fc1 = Pointwise2d(dim, hidden, bias)
        self.bn = norm(hidden) if norm else nn.Identity()
        self.act = create_act(act, inplace=True)
        self.fc2 = Pointwise2d(hidden, dim, bias)
        self.gate = create_act(gate)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc2(self.act(self.bn(self.fc1(x.mean((2, 3), keepdim=True))))))


class EffectiveSqueezeExcite(nn.Module):
    """Squeeze-excite with one layer and no reduction (arXiv:1911.06667)."""

    def __init__(self, dim: int, gate: Act = "hard_sigmoid"):
        super().__init__()
        self.fc = Pointwise2d(dim, dim)
        self.gate = create_act(gate)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.fc(x.mean((2, 3), keepdim=True)))


class EfficientChannelAttention(nn.Module):
    """A short 1-d convolution across neighboring channels instead of full layers (ECA, arXiv:1910.03151)."""

    def __init__(self, dim: int, gamma: float = 2, beta: float = 1, kernel: int | None = None):
        super().__init__()
        if kernel is None:
            near = int(abs(math.log2(dim) + beta) / gamma)
            kernel = max(near if near % 2 else near + 1, 3)
        self.conv = nn.Conv1d(1, 1, kernel, padding=(kernel - 1) // 2, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x.mean((2, 3)).unsqueeze(1)).sigmoid()
        return x * y.transpose(1, 2).unsqueeze(-1)


class CircularEfficientChannelAttention(EfficientChannelAttention):
    """ECA with the channels joined into a ring."""

    def forward(self, x: Tensor) -> Tensor:
        pad = self.conv.kernel_size[0] // 2
        y = F.pad(x.mean((2, 3)).unsqueeze(1), (pad, pad), mode="circular")
        y = F.conv1d(y, self.conv.weight).sigmoid()
        return x * y.transpose(1, 2).unsqueeze(-1)


class ContextGate(nn.Module):
    """What the global context gates share: attention over positions gathers one vector (GCNet, arXiv:1904.11492)."""

    def __init__(self, dim: int, attend: bool):
        super().__init__()
        self.conv_attn = nn.Conv2d(dim, 1, 1) if attend else None

    def context(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, 1, 1): a mean weighted by attention, or plain."""
        if self.conv_attn is None:
            return x.mean((2, 3), keepdim=True)
        weights = self.conv_attn(x).flatten(2).softmax(-1)  # (B, 1, HW)
        return (x.flatten(2) @ weights.transpose(1, 2)).unsqueeze(-1)

    def reset_parameters(self) -> None:
        if self.conv_attn is not None:
            nn.init.kaiming_normal_(self.conv_attn.weight, mode="fan_in", nonlinearity="relu")


class GlobalContext(ContextGate):
    """A small mlp makes scales of the context vector; keys `conv_attn`, `mlp_scale`."""

    def __init__(
        self,
        dim: int,
        rd_ratio: float = 1.0 / 8,
        rd_divisor: int = 1,
        act: Act = "relu",
        gate: Act = "sigmoid",
        attend: bool = True,
    ):
        super().__init__(dim, attend)
        self.mlp_scale = ContextMlp(dim, make_divisible(dim * rd_ratio, rd_divisor, round_limit=0.0), act)
        self.gate = create_act(gate)
        self.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.mlp_scale(self.context(x)))


class GlobalContextAdd(ContextGate):
    """A small mlp makes what is added to every position, at first nothing; keys `conv_attn`, `mlp_add`."""

    def __init__(
        self, dim: int, rd_ratio: float = 1.0 / 8, rd_divisor: int = 1, act: Act = "relu", attend: bool = True
    ):
        super().__init__(dim, attend)
        self.mlp_add = ContextMlp(dim, make_divisible(dim * rd_ratio, rd_divisor, round_limit=0.0), act)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.zeros_(self.mlp_add.fc2.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mlp_add(self.context(x))


class ContextMlp(nn.Module):
    """Two pointwise convolutions with a norm between: (B, C, 1, 1) -> (B, C, 1, 1)."""

    def __init__(self, dim: int, hidden: int, act: Act):
        super().__init__()
        self.fc1 = Pointwise2d(dim, hidden)
        self.norm = LayerNorm2d(hidden)
        self.act = create_act(act)
        self.fc2 = Pointwise2d(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.norm(self.fc1(x))))


GATE: dict[str, Gate] = {
    "se": SqueezeExcite,
    "ese": EffectiveSqueezeExcite,
    "eca": EfficientChannelAttention,
    "ceca": CircularEfficientChannelAttention,
    "gc": GlobalContext,
    "gca": GlobalContextAdd,
    "ge": GatherExcite,
    "cbam": Cbam,
    "lcbam": partial(Cbam, light=True),
    "coord": CoordinateAttention,
    "scoord": SimpleCoordinateAttention,
    "ela": EfficientLocalAttention,
    "strip": StripAttention,
    "nl": NonLocal,
    "bat": BatNonLocal,
}


def create_gate(gate: str | Gate | None, dim: int, **options: object) -> nn.Module:
    """A gate by name or maker for `dim` channels; None gives `nn.Identity`."""
    if not gate:
        return nn.Identity()
    if isinstance(gate, str):
        if gate not in GATE:
            raise ValueError(f"unknown attention '{gate}'; use one of {', '.join(GATE)}")
        gate = GATE[gate]
    return gate(dim, **options)

"""Channel gates."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from imgzoo_layers import gate as native
from imgzoo_layers.util import make_divisible

from ._act import create_act_layer
from ._base import adapter, made, placed


@adapter
@placed
class SqueezeExcite(native.SqueezeExcite):
    def __init__(self, channels: int, rd_ratio: float = 1 / 16, rd_channels: int | None = None, rd_divisor: int = 8,
                 add_maxpool: bool = False, bias: bool = True, act_layer: Any = nn.ReLU, norm_layer: Any = None,
                 gate_layer: Any = "sigmoid"):  # fmt: skip
        hidden = rd_channels or make_divisible(channels * rd_ratio, rd_divisor, round_limit=0.0)
        super().__init__(channels, rd_channels=hidden, act="identity", gate="identity", bias=bias,
                         norm=lambda width: made(norm_layer, width))  # fmt: skip
        self.add_maxpool = add_maxpool
        self.act = create_act_layer(act_layer, inplace=True) or nn.Identity()
        self.gate = create_act_layer(gate_layer) or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if not getattr(self, "add_maxpool", False):
            return super().forward(x)
        y = 0.5 * x.mean((2, 3), keepdim=True) + 0.5 * x.amax((2, 3), keepdim=True)
        return x * self.gate(self.fc2(self.act(self.bn(self.fc1(y)))))


SEModule = SqueezeExcite


@adapter
class EffectiveSqueezeExcite(native.EffectiveSqueezeExcite):
    def __init__(self, channels: int, add_maxpool: bool = False, gate_layer: Any = "hard_sigmoid", device: Any = None,
                 dtype: Any = None, **_: Any):  # fmt: skip
        super().__init__(channels)
        self.add_maxpool = add_maxpool
        self.gate = create_act_layer(gate_layer) or nn.Identity()
        self.to(device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        if not getattr(self, "add_maxpool", False):
            return super().forward(x)
        y = 0.5 * x.mean((2, 3), keepdim=True) + 0.5 * x.amax((2, 3), keepdim=True)
        return x * self.gate(self.fc(y))


EffectiveSEModule = EffectiveSqueezeExcite


def _plain(use_mlp: bool = False, gate_layer: Any = "sigmoid") -> None:
    if use_mlp or gate_layer != "sigmoid":
        raise ValueError("imgzoo's ECA has a sigmoid gate and no mlp: see imgzoo_layers.gate")


@adapter
@placed
class EcaModule(native.EfficientChannelAttention):
    def __init__(self, channels: int | None = None, kernel_size: int = 3, gamma: float = 2, beta: float = 1,
                 act_layer: Any = None, gate_layer: Any = "sigmoid", rd_ratio: float = 1 / 8,
                 rd_channels: int | None = None, rd_divisor: int = 8, use_mlp: bool = False):  # fmt: skip
        _plain(use_mlp, gate_layer)
        super().__init__(channels or 1, gamma, beta, None if channels else kernel_size)


EfficientChannelAttn = EcaModule


@adapter
@placed
class CecaModule(native.CircularEfficientChannelAttention):
    def __init__(self, channels: int | None = None, kernel_size: int = 3, gamma: float = 2, beta: float = 1,
                 act_layer: Any = None, gate_layer: Any = "sigmoid"):  # fmt: skip
        _plain(gate_layer=gate_layer)
        super().__init__(channels or 1, gamma, beta, None if channels else kernel_size)


CircularEfficientChannelAttn = CecaModule
GATES: dict[str, Any] = {"se": SqueezeExcite, "ese": EffectiveSqueezeExcite, "eca": EcaModule, "ceca": CecaModule}


def get_attn(attn_type: Any) -> Any:
    """The gate of a name (True is squeeze-excite); makers pass through."""
    if not attn_type or not isinstance(attn_type, (str, bool)):
        return attn_type or None
    name = attn_type.lower() if isinstance(attn_type, str) else "se"
    return GATES[name] if name in GATES else native.GATE[name]


def create_attn(attn_type: Any, channels: int, **kwargs: Any) -> nn.Module | None:
    layer = get_attn(attn_type)
    return None if layer is None else layer(channels, **kwargs)

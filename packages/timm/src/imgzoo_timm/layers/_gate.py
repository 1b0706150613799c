"""Channel gates."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor, nn

from imgzoo_layers import bat, non_local, place_gate
from imgzoo_layers import gate as native
from imgzoo_layers.util import make_divisible

from ._act import create_act_layer, get_act_layer
from ._base import adapter, made, placed, renamed
from ._helpers import to_2tuple


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

    by_mean = renamed(native.SqueezeExcite.forward, "by_mean")

    def forward(self, x: Tensor) -> Tensor:
        if not getattr(self, "add_maxpool", False):
            return self.by_mean(x)
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

    by_mean = renamed(native.EffectiveSqueezeExcite.forward, "by_mean")

    def forward(self, x: Tensor) -> Tensor:
        if not getattr(self, "add_maxpool", False):
            return self.by_mean(x)
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


@placed
class GlobalContext(native.ContextGate):
    """A context vector, of all places by attention or their mean, scales the map, or is added to it, or both."""

    def __init__(self, channels: int, use_attn: bool = True, fuse_add: bool = False, fuse_scale: bool = True,
                 init_last_zero: bool = False, rd_ratio: float = 1 / 8, rd_channels: int | None = None,
                 rd_divisor: int = 1, act_layer: Any = nn.ReLU, gate_layer: Any = "sigmoid"):  # fmt: skip
        super().__init__(channels, use_attn)
        hidden = rd_channels or make_divisible(channels * rd_ratio, rd_divisor, round_limit=0.0)
        self.mlp_add = native.ContextMlp(channels, hidden, get_act_layer(act_layer)) if fuse_add else None
        self.mlp_scale = native.ContextMlp(channels, hidden, get_act_layer(act_layer)) if fuse_scale else None
        self.gate = create_act_layer(gate_layer) or nn.Identity()
        self.reset_parameters()
        if self.mlp_add is not None:
            nn.init.zeros_(self.mlp_add.fc2.weight)

    def forward(self, x: Tensor) -> Tensor:
        context = self.context(x)
        if self.mlp_scale is not None:
            x = x * self.gate(self.mlp_scale(context))
        return x if self.mlp_add is None else x + self.mlp_add(context)


@placed
class GatherExcite(place_gate.GatherExcite):
    def __init__(self, channels: int, feat_size: Any = None, extra_params: bool = False, extent: int = 0,
                 use_mlp: bool = True, rd_ratio: float = 1 / 16, rd_channels: int | None = None, rd_divisor: int = 1,
                 add_maxpool: bool = False, act_layer: Any = nn.ReLU, norm_layer: Any = nn.BatchNorm2d,
                 gate_layer: Any = "sigmoid"):  # fmt: skip
        if norm_layer is not nn.BatchNorm2d or (extra_params and not extent and feat_size is None):
            raise ValueError("gathered by batch norms, and with parameters for the whole map by its feat_size: see "
                             "imgzoo_layers.GatherExcite")  # fmt: skip
        size = to_2tuple(feat_size or 1) if extra_params else None
        super().__init__(channels, extent, size, use_mlp, rd_ratio, rd_channels, rd_divisor, add_maxpool,
                         get_act_layer(act_layer), get_act_layer(gate_layer))  # fmt: skip


@placed
class NonLocalAttn(non_local.NonLocal):
    def __init__(self, in_channels: int, use_scale: bool = True, rd_ratio: float = 1 / 8,
                 rd_channels: int | None = None, rd_divisor: int = 8, **_: Any):  # fmt: skip
        super().__init__(in_channels, use_scale, rd_ratio, rd_channels, rd_divisor)


@placed
class BatNonLocalAttn(bat.BatNonLocal):
    def __init__(self, in_channels: int, block_size: int = 7, groups: int = 2, rd_ratio: float = 0.25,
                 rd_channels: int | None = None, rd_divisor: int = 8, drop_rate: float = 0.2, act_layer: Any = nn.ReLU,
                 norm_layer: Any = nn.BatchNorm2d, **_: Any):  # fmt: skip
        if act_layer is not nn.ReLU or norm_layer is not nn.BatchNorm2d or rd_channels:
            raise ValueError("batch norms and ReLU, and a width by rd_ratio: see imgzoo_layers.BatNonLocal")
        super().__init__(in_channels, rd_ratio, rd_divisor, block_size, groups, drop_rate)


@placed
class CbamModule(place_gate.Cbam):
    light = False

    def __init__(self, channels: int, rd_ratio: float = 1.0 / 16, rd_channels: int | None = None, rd_divisor: int = 1,
                 spatial_kernel_size: int = 7, act_layer: Any = nn.ReLU, gate_layer: Any = "sigmoid",
                 mlp_bias: bool = False):  # fmt: skip
        super().__init__(channels, rd_ratio, rd_channels, rd_divisor, spatial_kernel_size, get_act_layer(act_layer),
                         get_act_layer(gate_layer), mlp_bias, type(self).light)  # fmt: skip


class LightCbamModule(CbamModule):
    light = True


GATES: dict[str, Any] = {
    "se": SqueezeExcite, "ese": EffectiveSqueezeExcite, "eca": EcaModule, "ceca": CecaModule, "gc": GlobalContext,
    "gca": partial(GlobalContext, fuse_add=True, fuse_scale=False), "ge": GatherExcite, "nl": NonLocalAttn,
    "bat": BatNonLocalAttn, "cbam": CbamModule, "lcbam": LightCbamModule,
}  # fmt: skip


def get_attn(attn_type: Any) -> Any:
    """The gate of a name (True is squeeze-excite); makers pass through."""
    if not attn_type or not isinstance(attn_type, (str, bool)):
        return attn_type or None
    name = attn_type.lower() if isinstance(attn_type, str) else "se"
    return GATES[name] if name in GATES else native.GATE[name]


def create_attn(attn_type: Any, channels: int, **kwargs: Any) -> nn.Module | None:
    layer = get_attn(attn_type)
    return None if layer is None else layer(channels, **kwargs)

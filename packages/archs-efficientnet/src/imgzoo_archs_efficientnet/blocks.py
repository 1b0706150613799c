"""The mobile blocks: depthwise-separable, inverted residual, edge residual and their descendants."""

from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from imgzoo_layers.act import Act, create_act
from imgzoo_layers.attention import LayerScale2d
from imgzoo_layers.conv import CondConv2d, ConvNormAct, Pointwise2d, create_conv
from imgzoo_layers.drop import drop_path_of
from imgzoo_layers.gate import Gate, create_gate
from imgzoo_layers.init import init_conv_per_group_
from imgzoo_layers.map_attention import MultiQueryAttention2d
from imgzoo_layers.norm import groups_of
from imgzoo_layers.norm_act import NormAct
from imgzoo_layers.pool import Sides, create_aa
from imgzoo_layers.util import make_divisible


class Common(NamedTuple):
    """What all blocks of a network share."""

    norm: NormAct
    act: Act
    padding: str
    aa: str | None
    gate: Gate | None
    gate_act: Act
    gate_from_expanded: bool
    layer_scale: float | None


class SqueezeExcite(nn.Module):
    """Squeeze-excite with the keys of the mobile networks (arXiv:1709.01507)."""

    def __init__(
        self, dim: int, rd_ratio: float, act: Act = "relu", gate: Act = "sigmoid", round_limit: float | None = None
    ):
        super().__init__()
        hidden = round(dim * rd_ratio) if round_limit is None else make_divisible(dim * rd_ratio, 8, None, round_limit)
        self.conv_reduce = Pointwise2d(dim, hidden)
        self.act1 = create_act(act, inplace=True)
        self.conv_expand = Pointwise2d(hidden, dim)
        self.gate = create_act(gate)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.conv_expand(self.act1(self.conv_reduce(x.mean((2, 3), keepdim=True)))))


TOLD = {"gc": ("rd_ratio", "act"), "gca": ("rd_ratio", "act"), "bat": ("rd_ratio",)}
"""What gates by name, squeeze-excite aside, can be told; the others take the channels alone."""


def make_gate(common: Common, dim: int, ratio: float, act: Act, expansion: float = 1.0) -> nn.Module:
    """A squeeze-excite gate; its ratio refers to the block's input unless the network says expanded width."""
    if not ratio or common.gate is None:
        return nn.Identity()
    ratio = ratio if common.gate_from_expanded else ratio / expansion
    return common.gate(dim, rd_ratio=ratio, act=common.gate_act or act)


def get_gate(gate: str | Gate | None) -> Gate | None:
    """The maker of a gate from `(dim, rd_ratio, act)`; one by name is told no more than it takes."""
    if not isinstance(gate, str):
        return gate

    def make(dim: int, **options: object) -> nn.Module:
        return create_gate(gate, dim, **{key: options[key] for key in TOLD.get(gate, ())})

    return make


class ConvBnAct(nn.Module):
    """One convolution with norm and activation, on a residual where `skip` says so."""

    def __init__(self, common: Common, dim: int, dim_out: int, kernel: int, stride: int, dilation: int, act: str,
                 drop_path: float, skip: bool, group_size: int):  # fmt: skip
        super().__init__()
        blurred = stride > 1 and bool(common.aa)
        self.skip = skip and stride == 1 and dim == dim_out
        self.conv = create_conv(dim, dim_out, kernel, 1 if blurred else stride, common.padding, dilation,
                                groups_of(dim, 1, group_size))  # fmt: skip
        self.bn1 = common.norm(dim_out, act=act)
        self.aa = create_aa(common.aa if blurred else None, dim_out, stride)
        self.drop_path = drop_path_of(drop_path if self.skip else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.aa(self.bn1(self.conv(x)))
        return self.drop_path(y) + x if self.skip else y


class DepthwiseSeparable(nn.Module):
    """Depthwise convolution, gate, pointwise convolution (arXiv:1704.04861).

    `s2d` first trades space for channels by a 2x2 convolution, as EfficientNet-X does (arXiv:2102.05610).
    """

    def __init__(self, common: Common, dim: int, dim_out: int, kernel: int, stride: int, dilation: int, act: str,
                 drop_path: float, skip: bool, group_size: int, gate: float, gate_base: float, s2d: bool,
                 act_out: bool):  # fmt: skip
        super().__init__()
        blurred = stride > 1 and bool(common.aa)
        self.skip = skip and stride == 1 and dim == dim_out and not s2d
        padding = common.padding
        self.conv_s2d: nn.Module | None = None
        self.bn_s2d: nn.Module | None = None
        if s2d:
            self.conv_s2d = create_conv(dim, 4 * dim, 2, 2, "same")
            self.bn_s2d = common.norm(4 * dim, act=act)
            kernel, dim, padding = (kernel + 1) // 2, 4 * dim, "same"
        self.conv_dw = create_conv(dim, dim, kernel, 1 if blurred else stride, padding, dilation,
                                   groups_of(dim, 1, group_size))  # fmt: skip
        self.bn1 = common.norm(dim, act=act)
        self.aa = create_aa(common.aa if blurred else None, dim, stride)
        self.se = make_gate(common, dim, gate, act, gate_base)
        self.conv_pw = create_conv(dim, dim_out, 1, 1, common.padding)
        self.bn2 = common.norm(dim_out, act=act, apply_act=act_out)
        self.drop_path = drop_path_of(drop_path if self.skip else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self.conv_s2d is not None and self.bn_s2d is not None:
            y = self.bn_s2d(self.conv_s2d(y))
        y = self.se(self.aa(self.bn1(self.conv_dw(y))))
        y = self.bn2(self.conv_pw(y))
        return self.drop_path(y) + x if self.skip else y


class InvertedResidual(nn.Module):
    """Expand pointwise, mix depthwise, gate, project pointwise (MBConv, arXiv:1801.04381)."""

    def __init__(self, common: Common, dim: int, dim_out: int, kernel: Sides | list[int], stride: int, dilation: int,
                 act: str, drop_path: float, skip: bool, group_size: int, expansion: float, gate: float,
                 kernel_in: Sides | list[int], kernel_out: Sides | list[int]):  # fmt: skip
        super().__init__()
        hidden, padding = make_divisible(dim * expansion), common.padding
        blurred = stride > 1 and bool(common.aa)
        self.skip = skip and stride == 1 and dim == dim_out
        self.conv_pw = create_conv(dim, hidden, kernel_in, 1, padding)
        self.bn1 = common.norm(hidden, act=act)
        self.conv_dw = create_conv(hidden, hidden, kernel, 1 if blurred else stride, padding, dilation,
                                   groups_of(hidden, 1, group_size))  # fmt: skip
        self.bn2 = common.norm(hidden, act=act)
        self.aa = create_aa(common.aa if blurred else None, hidden, stride)
        self.se = make_gate(common, hidden, gate, act, expansion)
        self.conv_pwl = create_conv(hidden, dim_out, kernel_out, 1, padding)
        self.bn3 = common.norm(dim_out, act=act, apply_act=False)
        self.drop_path = drop_path_of(drop_path if self.skip else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.aa(self.bn2(self.conv_dw(self.bn1(self.conv_pw(x)))))
        y = self.bn3(self.conv_pwl(self.se(y)))
        return self.drop_path(y) + x if self.skip else y


class CondConvResidual(nn.Module):
    """An inverted residual whose kernels are mixed from experts for each sample (arXiv:1904.04971)."""

    def __init__(self, common: Common, dim: int, dim_out: int, kernel: int, stride: int, dilation: int, act: str,
                 drop_path: float, skip: bool, expansion: float, gate: float, experts: int):  # fmt: skip
        super().__init__()
        hidden, padding = make_divisible(dim * expansion), common.padding
        self.skip = skip and stride == 1 and dim == dim_out
        self.conv_pw = CondConv2d(dim, hidden, 1, 1, padding, experts=experts)
        self.bn1 = common.norm(hidden, act=act)
        self.conv_dw = CondConv2d(hidden, hidden, kernel, stride, padding, dilation, hidden, experts)
        self.bn2 = common.norm(hidden, act=act)
        self.se = make_gate(common, hidden, gate, act, expansion)
        self.conv_pwl = CondConv2d(hidden, dim_out, 1, 1, padding, experts=experts)
        self.bn3 = common.norm(dim_out, act=act, apply_act=False)
        self.drop_path = drop_path_of(drop_path if self.skip else 0.0)
        self.routing_fn = nn.Linear(dim, experts)

    def forward(self, x: Tensor) -> Tensor:
        routing = self.routing_fn(x.mean((2, 3))).sigmoid()
        y = self.bn1(self.conv_pw(x, routing))
        y = self.se(self.bn2(self.conv_dw(y, routing)))
        y = self.bn3(self.conv_pwl(y, routing))
        return self.drop_path(y) + x if self.skip else y


class EdgeResidual(nn.Module):
    """Expand by a full convolution, gate, project pointwise (fused MBConv, arXiv:2003.02838)."""

    def __init__(self, common: Common, dim: int, dim_out: int, kernel: int, stride: int, dilation: int, act: str,
                 drop_path: float, skip: bool, group_size: int, expansion: float, gate: float, base: int):  # fmt: skip
        super().__init__()
        hidden = make_divisible((base or dim) * expansion)
        blurred = stride > 1 and bool(common.aa)
        self.skip = skip and stride == 1 and dim == dim_out
        self.conv_exp = create_conv(dim, hidden, kernel, 1 if blurred else stride, common.padding, dilation,
                                    groups_of(hidden, 1, group_size))  # fmt: skip
        self.bn1 = common.norm(hidden, act=act)
        self.aa = create_aa(common.aa if blurred else None, hidden, stride)
        self.se = make_gate(common, hidden, gate, act, expansion)
        self.conv_pwl = create_conv(hidden, dim_out, 1, 1, common.padding)
        self.bn2 = common.norm(dim_out, act=act, apply_act=False)
        self.drop_path = drop_path_of(drop_path if self.skip else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.se(self.aa(self.bn1(self.conv_exp(x))))
        y = self.bn2(self.conv_pwl(y))
        return self.drop_path(y) + x if self.skip else y


class UniversalInvertedResidual(nn.Module):
    """An inverted residual with optional depthwise convolutions before, inside and after (arXiv:2404.10518)."""

    def __init__(self, common: Common, dim: int, dim_out: int, kernel: int, stride: int, dilation: int, act: str,
                 drop_path: float, skip: bool, group_size: int, expansion: float, gate: float, kernel_in: int,
                 kernel_out: int):  # fmt: skip
        super().__init__()
        hidden = make_divisible(dim * expansion)
        self.skip = skip and stride == 1 and dim == dim_out
        shared: dict[str, Any] = dict(padding=common.padding, norm=common.norm, act=act)

        def depthwise(width: int, size: int, step: int, spread: int, apply_act: bool) -> nn.Module:
            if not size:
                return nn.Identity()
            return ConvNormAct(width, width, size, step, dilation=spread, groups=groups_of(width, 1, group_size),
                               apply_act=apply_act, aa=common.aa, **shared)  # fmt: skip

        self.dw_start = depthwise(dim, kernel_in, 1 if kernel else stride, dilation, False)
        self.pw_exp = ConvNormAct(dim, hidden, 1, **shared)
        self.dw_mid = depthwise(hidden, kernel, stride, dilation, True)
        self.se = make_gate(common, hidden, gate, act, expansion)
        self.pw_proj = ConvNormAct(hidden, dim_out, 1, apply_act=False, **shared)
        self.dw_end = depthwise(dim_out, kernel_out, 1 if kernel or kernel_in else stride, dilation, False)
        scale = common.layer_scale
        self.layer_scale = LayerScale2d(dim_out, scale) if scale is not None else nn.Identity()
        self.drop_path = drop_path_of(drop_path if self.skip else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dw_mid(self.pw_exp(self.dw_start(x)))
        y = self.layer_scale(self.dw_end(self.pw_proj(self.se(y))))
        return self.drop_path(y) + x if self.skip else y


class MobileAttention(nn.Module):
    """Multi-query attention on a residual: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, common: Common, dim: int, kernel: int, heads: int, head_dim: int, kv_stride: int, dilation: int,
                 drop_path: float, skip: bool):  # fmt: skip
        super().__init__()
        self.skip = skip
        self.norm = common.norm(dim, apply_act=False)
        self.attn = MultiQueryAttention2d(dim, heads=heads, key_dim=head_dim, value_dim=head_dim,
                                          kv_stride=kv_stride, kernel=kernel, dilation=dilation,
                                          padding=common.padding,
                                          norm=partial(common.norm, apply_act=False))  # fmt: skip
        scale = common.layer_scale
        self.layer_scale = LayerScale2d(dim, scale) if scale is not None else nn.Identity()
        self.drop_path = drop_path_of(drop_path if self.skip else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer_scale(self.attn(self.norm(x)))
        return self.drop_path(y) + x if self.skip else y


def init_mobile_(model: nn.Module) -> None:
    """Initial values of the TensorFlow reference: convolutions normal by fan-out, attention and linear uniform."""
    for module in model.modules():
        if isinstance(module, CondConv2d):
            fan_out = module.shape[0] * module.shape[2] * module.shape[3] // module.groups
            nn.init.normal_(module.weight, std=(2.0 / fan_out) ** 0.5)
        elif isinstance(module, nn.Conv2d):
            init_conv_per_group_(module)
    for module in model.modules():
        if isinstance(module, MultiQueryAttention2d):
            for conv in module.modules():
                if isinstance(conv, nn.Conv2d):
                    nn.init.xavier_uniform_(conv.weight)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            fan_in = module.in_features if name.endswith("routing_fn") else 0
            bound = (fan_in + module.out_features) ** -0.5
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)

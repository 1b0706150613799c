"""Convolutions, alone and with norm and activation, paddings and local pools."""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo_layers import conv as native
from imgzoo_layers import padding as pads
from imgzoo_layers import pool, space_to_depth, std_conv

from ._base import adapter, placed
from ._helpers import to_2tuple
from ._norm_names import get_norm_act_layer


def get_padding(kernel_size: int, stride: int = 1, dilation: int = 1, **_: Any) -> int:
    """Symmetric padding that keeps the size at stride 1."""
    return ((stride - 1) + dilation * (kernel_size - 1)) // 2


def get_same_padding(x: int, kernel_size: int, stride: int, dilation: int) -> int:
    return pads.same_pad(x, kernel_size, stride, dilation)


def pad_same(x: Tensor, kernel_size: Any, stride: Any, dilation: Any = (1, 1), value: float = 0) -> Tensor:
    return pads.pad_same(x, tuple(kernel_size), tuple(stride), tuple(dilation), value)  # type: ignore[arg-type]


class Linear(nn.Linear):
    """torch's; autocast gives it its precision."""


class Conv2dSame(native.Conv2dSame):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = 0,
                 dilation: Any = 1, groups: int = 1, bias: bool = True, device: Any = None,
                 dtype: Any = None):  # fmt: skip
        nn.Conv2d.__init__(self, in_channels, out_channels, kernel_size, stride, 0, dilation, groups, bias,
                           device=device, dtype=dtype)  # fmt: skip


def create_conv2d(in_channels: int, out_channels: int, kernel_size: Any, **kwargs: Any) -> nn.Module:
    """A convolution by its padding (`""` symmetric, `"same"`, `"valid"` or a number); kernels in a list are mixed."""
    depthwise = kwargs.pop("depthwise", False)
    padding, stride, dilation = kwargs.pop("padding", ""), kwargs.pop("stride", 1), kwargs.pop("dilation", 1)
    groups, bias = kwargs.pop("groups", 1), kwargs.pop("bias", False)
    if kwargs.pop("num_experts", 0):
        raise ValueError("convolutions of experts take routing weights: see imgzoo_layers.conv.CondConv2d")
    groups = in_channels if depthwise else groups
    if isinstance(padding, str):
        padding = padding.lower()
    if isinstance(kernel_size, list):
        return native.create_conv(in_channels, out_channels, kernel_size, stride, padding, dilation, groups)
    if padding == "same" and to_2tuple(stride) == (1, 1) and dilation * (to_2tuple(kernel_size)[0] - 1) % 2 == 0:
        padding = ""
    if padding == "same":
        return Conv2dSame(in_channels, out_channels, kernel_size, stride, 0, dilation, groups, bias, **kwargs)
    if padding == "valid":
        padding = 0
    elif isinstance(padding, str) or padding is None:
        high, wide = to_2tuple(kernel_size)
        padding = (get_padding(high, 1, to_2tuple(dilation)[0]), get_padding(wide, 1, to_2tuple(dilation)[1]))
    return nn.Conv2d(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias, **kwargs)


def create_pool2d(pool_type: str, kernel_size: Any, stride: Any = None, **kwargs: Any) -> nn.Module:
    """A local pool, "max" or "avg", by its padding."""
    stride = kernel_size if stride is None else stride
    padding = kwargs.pop("padding", "")
    same = isinstance(padding, str) and padding.lower() == "same" and to_2tuple(stride) != (1, 1)
    if pool_type not in ("max", "avg"):
        raise ValueError(f"pool_type is 'max' or 'avg', not {pool_type!r}")
    if same and pool_type == "max":
        return MaxPool2dSame(kernel_size, stride, **kwargs)
    if same:
        return AvgPool2dSame(kernel_size, stride, **kwargs)
    if isinstance(padding, str):
        padding = 0 if padding.lower() == "valid" else get_padding(to_2tuple(kernel_size)[0], to_2tuple(stride)[0])
    made = nn.MaxPool2d if pool_type == "max" else nn.AvgPool2d
    return made(kernel_size, stride=stride, padding=padding, **kwargs)


def max_pool2d_same(x: Tensor, kernel_size: Any, stride: Any, padding: Any = (0, 0), dilation: Any = (1, 1),
                    ceil_mode: bool = False) -> Tensor:  # fmt: skip
    """The largest value of windows, padded below and right as TensorFlow does: (B, C, H, W)."""
    x = pad_same(x, kernel_size, stride, dilation, value=-float("inf"))
    return F.max_pool2d(x, kernel_size, stride, 0, dilation, ceil_mode)


def avg_pool2d_same(x: Tensor, kernel_size: Any, stride: Any, padding: Any = (0, 0), ceil_mode: bool = False,
                    count_include_pad: bool = True) -> Tensor:  # fmt: skip
    """The same of means, over the zeros of the padding too."""
    return F.avg_pool2d(pad_same(x, kernel_size, stride), kernel_size, stride, 0, ceil_mode, count_include_pad)


class AvgPool2dSame(pool.AvgPool2dSame):
    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
                 count_include_pad: bool = True):  # fmt: skip
        kernel_size = to_2tuple(kernel_size)
        stride = kernel_size if stride is None else to_2tuple(stride)
        nn.AvgPool2d.__init__(self, kernel_size, stride, 0, ceil_mode, count_include_pad)


class MaxPool2dSame(pool.MaxPool2dSame):
    def __init__(self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
                 ceil_mode: bool = False):  # fmt: skip
        kernel_size = to_2tuple(kernel_size)
        stride = kernel_size if stride is None else to_2tuple(stride)
        nn.MaxPool2d.__init__(self, kernel_size, stride, 0, to_2tuple(dilation), ceil_mode=ceil_mode)


class BlurPool2d(pool.BlurPool2d):
    """For `channels` of maps, which may be left open in the field and are needed here."""

    def __init__(self, channels: int | None = None, filt_size: int = 3, stride: int = 2, pad_mode: str = "reflect",
                 device: Any = None, dtype: Any = None):  # fmt: skip
        if channels is None:
            raise ValueError("BlurPool2d needs channels here: the filter is kept for each of them")
        super().__init__(channels, filt_size, stride, pad_mode)
        self.to(device=device, dtype=dtype)

    @property
    def channels(self) -> int:
        return self.dim

    @property
    def filt_size(self) -> int:
        return self.filter_size


@adapter
@placed
class StdConv2d(std_conv.StdConv2d):
    def __init__(self, in_channel: int, out_channels: int, kernel_size: int, stride: int = 1,
                 padding: Any = None, dilation: int = 1, groups: int = 1, bias: bool = False,
                 eps: float = 1e-6):  # fmt: skip
        super().__init__(in_channel, out_channels, kernel_size, stride, "" if padding is None else padding, dilation,
                         groups, bias, eps)  # fmt: skip


@adapter
@placed
class ScaledStdConv2d(std_conv.ScaledStdConv2d):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: Any = None,
                 dilation: Any = 1, groups: int = 1, bias: bool = True, gamma: float = 1.0, eps: float = 1e-6,
                 gain_init: float = 1.0):  # fmt: skip
        super().__init__(in_channels, out_channels, one(kernel_size), one(stride), "" if padding is None else padding,
                         one(dilation), groups, bias, eps, gamma)  # fmt: skip
        nn.init.constant_(self.gain, gain_init)


class ScaledStdConv2dSame(ScaledStdConv2d):
    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1, padding: str = "SAME",
                 dilation: Any = 1, groups: int = 1, bias: bool = True, gamma: float = 1.0, eps: float = 1e-6,
                 gain_init: float = 1.0, device: Any = None, dtype: Any = None):  # fmt: skip
        super().__init__(in_channels, out_channels, kernel_size, stride, str(padding).lower(), dilation, groups, bias,
                         gamma, eps, gain_init, device=device, dtype=dtype)  # fmt: skip


def one(value: Any) -> int:
    """A side of a square."""
    high, wide = to_2tuple(value)
    if high != wide:
        raise ValueError(f"kernels with standardized weights are squares here, not {value}")
    return high


class StdConv2dSame(StdConv2d):
    def __init__(self, in_channel: int, out_channels: int, kernel_size: int, stride: int = 1, padding: Any = "SAME",
                 dilation: int = 1, groups: int = 1, bias: bool = False, eps: float = 1e-6, device: Any = None,
                 dtype: Any = None):  # fmt: skip
        super().__init__(in_channel, out_channels, kernel_size, stride, str(padding).lower(), dilation, groups, bias,
                         eps, device=device, dtype=dtype)  # fmt: skip


@placed
class ConvNormAct(nn.Module):
    """Convolution, norm, activation, anti-aliased pool: (B, C, H, W), keys `conv` and `bn`."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 1, stride: int = 1, padding: Any = "",
                 dilation: int = 1, groups: int = 1, bias: bool = False, apply_norm: bool = True,
                 apply_act: bool = True, norm_layer: Any = nn.BatchNorm2d, act_layer: Any = nn.ReLU,
                 aa_layer: Any = None, drop_layer: Any = None, conv_kwargs: Any = None, norm_kwargs: Any = None,
                 act_kwargs: Any = None):  # fmt: skip
        super().__init__()
        blurred = aa_layer is not None and stride > 1
        self.conv = create_conv2d(in_channels, out_channels, kernel_size, stride=1 if blurred else stride,
                                  padding=padding, dilation=dilation, groups=groups, bias=bias,
                                  **(conv_kwargs or {}))  # fmt: skip
        if apply_norm:
            options = dict(norm_kwargs or {}, **({"act_kwargs": act_kwargs} if act_kwargs else {}))
            if drop_layer is not None:
                options["drop_layer"] = drop_layer
            self.bn = get_norm_act_layer(norm_layer, act_layer)(out_channels, apply_act=apply_act, **options)
        else:  # the activation belongs to the norm, and goes with it
            self.bn = nn.Sequential()
            if drop_layer is not None:
                self.bn.add_module("drop", drop_layer())
        if blurred:
            kind = aa_layer if not isinstance(aa_layer, str) else None
            self.aa = kind(out_channels, stride=stride) if kind else pool.create_aa(aa_layer, out_channels, stride)
        else:
            self.aa = nn.Identity()

    @property
    def in_channels(self) -> int:
        return self.conv.in_channels  # type: ignore[return-value]

    @property
    def out_channels(self) -> int:
        return self.conv.out_channels  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        return self.aa(self.bn(self.conv(x)))


ConvBnAct = ConvNormActAa = ConvNormAct


@placed
class SeparableConvNormAct(nn.Module):
    """Depthwise, then pointwise convolution, norm, activation; keys `conv_dw`, `conv_pw`, `bn`."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, dilation: int = 1,
                 padding: Any = "", bias: bool = False, channel_multiplier: float = 1.0, pw_kernel_size: int = 1,
                 norm_layer: Any = nn.BatchNorm2d, act_layer: Any = nn.ReLU, apply_act: bool = True,
                 drop_layer: Any = None):  # fmt: skip
        super().__init__()
        inner = int(in_channels * channel_multiplier)
        self.conv_dw = create_conv2d(in_channels, inner, kernel_size, stride=stride, dilation=dilation,
                                     padding=padding, groups=in_channels)  # fmt: skip
        self.conv_pw = create_conv2d(inner, out_channels, pw_kernel_size, padding=padding, bias=bias)
        options = {"drop_layer": drop_layer} if drop_layer is not None else {}
        self.bn = get_norm_act_layer(norm_layer, act_layer)(out_channels, apply_act=apply_act, **options)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv_pw(self.conv_dw(x)))


@placed
class SeparableConv2d(nn.Module):
    """Depthwise, then pointwise convolution; keys `conv_dw`, `conv_pw`."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int = 3, stride: int = 1, dilation: int = 1,
                 padding: Any = "", bias: bool = False, channel_multiplier: float = 1.0,
                 pw_kernel_size: int = 1):  # fmt: skip
        super().__init__()
        inner = int(in_channels * channel_multiplier)
        self.conv_dw = create_conv2d(in_channels, inner, kernel_size, stride=stride, dilation=dilation,
                                     padding=padding, groups=in_channels)  # fmt: skip
        self.conv_pw = create_conv2d(inner, out_channels, pw_kernel_size, padding=padding, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_pw(self.conv_dw(x))


class MixedConv2d(native.MixedConv2d):
    """Groups of channels with kernels of their own."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any = 3, stride: int = 1, padding: str = "",
                 dilation: int = 1, depthwise: bool = False, **kwargs: Any):  # fmt: skip
        kernels = list(kernel_size) if isinstance(kernel_size, (list, tuple)) else [kernel_size]
        where = {key: kwargs.pop(key) for key in ("device", "dtype") if key in kwargs}
        if kwargs:
            raise ValueError(f"mixed kernels take no {', '.join(kwargs)} here: see imgzoo_layers.conv.MixedConv2d")
        super().__init__(in_channels, out_channels, kernels, stride, padding, dilation, depthwise)
        self.to(**where)


@placed
class CondConv2d(native.CondConv2d):
    """A convolution mixed for each sample from experts, by the weights handed in."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Any = 3, stride: Any = 1, padding: Any = "",
                 dilation: Any = 1, groups: int = 1, bias: bool = False, num_experts: int = 4):  # fmt: skip
        if bias or not isinstance(padding, str):
            raise ValueError("a mixed convolution has no bias here, and a padding by name: see imgzoo_layers.conv")
        super().__init__(in_channels, out_channels, one(kernel_size), one(stride), padding, one(dilation), groups,
                         num_experts)  # fmt: skip
        for kernels in self.weight.detach():
            nn.init.kaiming_uniform_(kernels.view(self.shape), a=5**0.5)


def get_condconv_initializer(initializer: Any, num_experts: int, expert_shape: Any) -> Any:
    """A function that fills the flat kernels (experts, numbers) of `CondConv2d`, each as a kernel of its own."""

    def initialize(weight: Tensor) -> None:
        if tuple(weight.shape) != (num_experts, math.prod(expert_shape)):
            raise ValueError(f"kernels of {num_experts} experts are flat, not {tuple(weight.shape)}")
        for kernel in weight:
            initializer(kernel.view(*expert_shape))

    return initialize


class SpaceToDepth(space_to_depth.SpaceToDepth):
    def __init__(self, block_size: int = 4):
        super().__init__(block_size)


class DepthToSpace(space_to_depth.DepthToSpace):
    def __init__(self, block_size: int):
        super().__init__(block_size)


def create_aa(aa_layer: Any, channels: int | None = None, stride: int = 2, enable: bool = True,
              noop: Any = nn.Identity, device: Any = None, dtype: Any = None) -> nn.Module | None:  # fmt: skip
    """Anti-aliased subsampling by name or class; `noop` where there is none."""
    if not aa_layer or not enable:
        return None if noop is None else noop()
    if isinstance(aa_layer, str):
        return pool.create_aa(aa_layer.lower().replace("_", ""), channels or 0, stride).to(device=device, dtype=dtype)
    try:
        return aa_layer(channels=channels, stride=stride)
    except TypeError:
        return aa_layer(stride)

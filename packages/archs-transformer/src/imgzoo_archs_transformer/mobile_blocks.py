"""Convolutional blocks of EfficientViT (arXiv:2205.14756) and what descends from it: LowFormer, CPUBone."""

from collections import OrderedDict
from typing import Any, NamedTuple

from torch import Tensor, nn

from imgzoo_layers.act import create_act
from imgzoo_layers.conv import create_conv
from imgzoo_layers.drop import drop_path_of


class Style(NamedTuple):
    """What the layers of a network share."""

    act: str = "hard_swish"
    eps: float = 1e-5
    groups: int = 1
    """Of convolutions that widen."""
    small: bool = False
    """2x2 kernels in place of 3x3 within blocks."""
    fused: bool = True
    """Blocks convolve fully (fused MBConv), not depthwise (MBConv)."""


def conv_act(style: Style, dim: int, dim_out: int, kernel: int = 1, stride: int = 1, groups: int = 1,
             norm: bool = True, act: bool = True, bias: bool = False) -> nn.Sequential:  # fmt: skip
    """Convolution, norm and activation with the keys `conv` and `norm`; an even kernel reads one row and column more
    at the top left."""
    conv: nn.Module = create_conv(dim, dim_out, kernel, stride, "" if kernel % 2 else 0, groups=groups, bias=bias)
    if kernel % 2 == 0 and stride == 1:
        conv = nn.Sequential(nn.ZeroPad2d((1, 0, 1, 0)), conv)
    layers: OrderedDict[str, nn.Module] = OrderedDict(conv=conv)
    if norm:
        layers["norm"] = nn.BatchNorm2d(dim_out, eps=style.eps)
    if act:
        layers["act"] = create_act(style.act, inplace=True)
    return nn.Sequential(layers)


class Residual(nn.Module):
    """x + main(x), or main(x) alone: (B, C, H, W) -> (B, C', H', W')."""

    def __init__(self, main: nn.Module, shortcut: bool = True, drop_path: float = 0.0):
        super().__init__()
        self.main = main
        self.shortcut = shortcut
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.main(x)) if self.shortcut else self.main(x)


def separable(style: Style, dim: int, dim_out: int) -> nn.Sequential:
    """3x3 depthwise, 1x1."""
    depth = conv_act(style, dim, dim, 3, groups=dim)
    return nn.Sequential(OrderedDict(depth_conv=depth, point_conv=conv_act(style, dim, dim_out, act=False)))


def two_convs(style: Style, dim: int, dim_out: int) -> nn.Sequential:
    """3x3, 3x3."""
    first = conv_act(style, dim, dim, 3)
    return nn.Sequential(OrderedDict(conv1=first, conv2=conv_act(style, dim, dim_out, 3, act=False)))


def inverted(style: Style, dim: int, dim_out: int, expand: float, stride: int = 1, norms: str = "all",
             groups: int = 1, groups_out: int = 1, bias: bool = True) -> nn.Sequential:  # fmt: skip
    """1x1 wide, 3x3 depthwise, 1x1 (MBConv); `norms` after "all", the last two ("depth") or the "last" layer, a `bias`
    before the others."""
    hidden, first, second = round(dim * expand), norms == "all", norms != "last"
    kernel = 2 if style.small and stride == 1 else 3
    return nn.Sequential(OrderedDict(
        inverted_conv=conv_act(style, dim, hidden, groups=groups, norm=first, bias=bias and not first),
        depth_conv=conv_act(style, hidden, hidden, kernel, stride, hidden, norm=second,
                            bias=bias and not second),
        point_conv=conv_act(style, hidden, dim_out, groups=groups_out, act=False),
    ))  # fmt: skip


def fused(style: Style, dim: int, dim_out: int, expand: float, stride: int = 1, bias: bool = False) -> nn.Sequential:
    """3x3 wide, 1x1 (fused MBConv)."""
    hidden, kernel = round(dim * expand), 2 if style.small and stride == 1 else 3
    spatial: Any = conv_act(style, dim, hidden, kernel, stride, style.groups, bias=bias)
    return nn.Sequential(OrderedDict(spatial_conv=spatial, point_conv=conv_act(style, hidden, dim_out, act=False)))


def mobile(style: Style, dim: int, dim_out: int, expand: float, stride: int = 1, groups_out: int = 1) -> nn.Sequential:
    """Fused or not, as the style says, with a norm after the last layer and without biases."""
    if style.fused:
        return fused(style, dim, dim_out, expand, stride)
    return inverted(style, dim, dim_out, expand, stride, "last", style.groups, groups_out, bias=False)

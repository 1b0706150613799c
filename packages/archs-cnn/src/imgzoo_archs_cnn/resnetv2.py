"""ResNet with norm and activation before each convolution (arXiv:1603.05027), and BiT, its form of standardized kernels
and group norm (arXiv:1912.11370)."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.conv import create_conv
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.head import ConvClassifierHead
from imgzoo_layers.init import init_fan_out_
from imgzoo_layers.norm_act import NormAct, get_norm_act
from imgzoo_layers.pool import MaxPool2dSame, mean_pool
from imgzoo_layers.std_conv import StdConv2d
from imgzoo_layers.util import Layer, dilate, make_divisible


class PreBasicBlock(nn.Module):
    """Two 3x3 convolutions, each behind norm and activation: (B, C, H, W) -> (B, dim, H/stride, W/stride)."""

    def __init__(self, dim_in: int, dim: int, hidden: int, stride: int, before: int, dilation: int,
                 downsample: nn.Module | None, conv: Layer, norm: NormAct, drop_path: float):  # fmt: skip
        super().__init__()
        self.downsample = downsample
        self.norm1 = norm(dim_in)
        self.conv1 = conv(dim_in, hidden, 3, stride, dilation=before)
        self.norm2 = norm(hidden)
        self.conv2 = conv(hidden, dim, 3, dilation=dilation)
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        if self.downsample is not None:
            x = self.downsample(y)
        return x + self.drop_path(self.conv2(self.norm2(self.conv1(y))))


class PreBottleneck(nn.Module):
    """1x1, 3x3, 1x1, each behind norm and activation: (B, C, H, W) -> (B, dim, H/stride, W/stride)."""

    def __init__(self, dim_in: int, dim: int, hidden: int, stride: int, before: int, dilation: int,
                 downsample: nn.Module | None, conv: Layer, norm: NormAct, drop_path: float):  # fmt: skip
        super().__init__()
        self.downsample = downsample
        self.norm1 = norm(dim_in)
        self.conv1 = conv(dim_in, hidden, 1)
        self.norm2 = norm(hidden)
        self.conv2 = conv(hidden, hidden, 3, stride, dilation=before)
        self.norm3 = norm(hidden)
        self.conv3 = conv(hidden, dim, 1)
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        if self.downsample is not None:
            x = self.downsample(y)
        return x + self.drop_path(self.conv3(self.norm3(self.conv2(self.norm2(self.conv1(y))))))


class Bottleneck(nn.Module):
    """The same with norm and activation behind: the stems of hybrid transformers (arXiv:2010.11929)."""

    def __init__(self, dim_in: int, dim: int, hidden: int, stride: int, before: int, dilation: int,
                 downsample: nn.Module | None, conv: Layer, norm: NormAct, drop_path: float):  # fmt: skip
        super().__init__()
        self.downsample = downsample
        self.conv1 = conv(dim_in, hidden, 1)
        self.norm1 = norm(hidden)
        self.conv2 = conv(hidden, hidden, 3, stride, dilation=before)
        self.norm2 = norm(hidden)
        self.conv3 = conv(hidden, dim, 1)
        self.norm3 = norm(dim, apply_act=False)
        self.drop_path = drop_path_of(drop_path)
        self.act3 = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop_path(self.norm3(self.conv3(self.norm2(self.conv2(self.norm1(self.conv1(x)))))))
        if self.downsample is not None:
            x = self.downsample(x)
        return self.act3(x + y)


class Border(nn.ConstantPad2d):
    """Zeros around the map, for a maximum that sees them: (B, C, H, W) -> (B, C, H + 2, W + 2).

    An exported graph joins them on: onnxruntime merges padding into a maximum behind it, which then ignores the border.
    """

    def __init__(self):
        super().__init__(1, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        exporting = False if torch.jit.is_scripting() else torch.compiler.is_exporting()
        if not exporting:
            return F.pad(x, self.padding, value=self.value)
        for dim in (2, 3):
            zeros = torch.zeros_like(x.narrow(dim, 0, 1))
            x = torch.cat([zeros, x, zeros], dim)
        return x


class ResNetV2(ImageModel):
    """Args:
    stem_chs: channels of the stem
    basic: blocks of two 3x3 convolutions
    bottle_ratio: channels inside a block as a share of those outside
    width: factor of the channels, those of the stem too
    stem: one 7x7 convolution ("", or "fixed" and "same" by the border of the pool), "deep" or "tiered" for three 3x3
    weight_std: standardized weights
    """

    parts = Parts(norm=("norm",))
    layer_groups = {
        "stem": r"^stem",
        "blocks": [(r"^stages\.(\d+)\.blocks\.(\d+)", None), (r"^norm", (99999,))],
        "coarse": r"^stages\.(\d+)",
    }

    def __init__(self, layers: Sequence[int] = (3, 4, 6, 3), channels: Sequence[int] = (256, 512, 1024, 2048),
                 stem_chs: int = 64, basic: bool = False,
                 bottle_ratio: float = 0.25, width: int = 1,
                 stem: Literal["", "fixed", "same", "deep", "tiered"] = "", avg_down: bool = False, preact: bool = True,
                 weight_std: bool = False, norm: str = "batchnorm", act: str = "relu", num_classes: int = 1000,
                 in_chans: int = 3, global_pool: str = "avg", output_stride: int = 32, drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        make_norm = get_norm_act(norm, act)
        conv = partial(StdConv2d, eps=1e-8) if weight_std else create_conv
        if stem == "same":
            conv = partial(conv, padding="same")
        dim = stem_chs * width
        self.stem = make_stem(stem, in_chans, dim, preact, conv, make_norm)
        levels, stages, reached = [Feature(dim, 2, "stem.conv3" if stem in TIERS else "stem.conv")], [], 4
        if (basic, preact) not in BLOCK:
            raise ValueError("basic blocks are normalized first: use preact=True, or basic=False")
        block = BLOCK[basic, preact]
        steps = dilate((1, 2, 2, 2)[: len(layers)], output_stride, start=4)
        for i, (drops, (stride, before, dilation)) in enumerate(zip(drop_path_rates(drop_path_rate, layers), steps)):
            out = channels[i] * width
            hidden = make_divisible(out * bottle_ratio)
            units = []
            for j, drop in enumerate(drops):
                step, spread = (1, dilation) if j else (stride, before)
                down: nn.Module | None = None
                if j == 0 and (not basic or dim != out or step != 1):
                    down = make_downsample(dim, out, step, dilation, avg_down, conv, None if preact else make_norm)
                units.append(block(dim, out, hidden, step, spread, dilation, down, conv, make_norm, drop))
                dim = out
            stages.append(nn.Sequential(OrderedDict(blocks=nn.Sequential(*units))))
            reached *= stride
            levels.append(Feature(dim, reached, f"stages.{i}"))
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.norm = make_norm(dim) if preact else nn.Identity()
        self.num_features = dim
        self.head: Any = ConvClassifierHead(dim, num_classes, global_pool, drop_rate)
        self.head_hidden_size = dim * self.head.global_pool.width
        init_fan_out_(self)
        if num_classes:
            nn.init.normal_(self.head.fc.weight, std=0.01)
            nn.init.zeros_(self.head.fc.bias)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.norm(self._through_stages(self.stem(x)))


BLOCK = {(True, True): PreBasicBlock, (False, True): PreBottleneck, (False, False): Bottleneck}
TIERS = {"deep": (32, 32), "tiered": (24, 32)}


def make_stem(kind: str, in_chans: int, dim: int, preact: bool, conv: Layer, norm: NormAct) -> nn.Sequential:
    """(B, 3, H, W) -> (B, dim, H/4, W/4): one 7x7 or three 3x3 ("deep", "tiered"), then the maximum of 3x3.

    The maximum ignores the border; with "fixed" it sees zeros there, with "same" it pads as TensorFlow does.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if kind in TIERS:
        first, second = TIERS[kind]
        layers["conv1"], layers["norm1"] = conv(in_chans, first, 3, 2), norm(first)
        layers["conv2"], layers["norm2"] = conv(first, second, 3), norm(second)
        layers["conv3"] = conv(second, dim, 3)
    else:
        layers["conv"] = conv(in_chans, dim, 7, 2)
    if not preact:
        layers["norm"] = norm(dim)
    if kind == "fixed":
        layers["pad"] = Border()
    pools = {"same": MaxPool2dSame(3, 2), "fixed": nn.MaxPool2d(3, 2)}
    layers["pool"] = pools.get(kind, nn.MaxPool2d(3, 2, 1))
    return nn.Sequential(layers)


def make_downsample(dim: int, dim_out: int, stride: int, dilation: int, avg: bool, conv: Layer,
                    norm: NormAct | None) -> nn.Sequential:  # fmt: skip
    """The shortcut where width or size changes: a strided 1x1, or average pooling and a 1x1; a norm if not None."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if avg and max(stride, dilation) > 1:
        layers["pool"] = mean_pool(stride, dilation)
    layers["conv"] = conv(dim, dim_out, 1, 1 if avg else stride)
    if norm is not None:
        layers["norm"] = norm(dim_out, apply_act=False)
    return nn.Sequential(layers)

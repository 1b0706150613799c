"""CSPNeXt, the backbone of RTMDet: cross-stage partial networks with large depthwise kernels (arXiv:2212.07784)."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel
from imgzoo_layers.conv import ConvNormAct
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Acts, Norms
from imgzoo_layers.gate import EffectiveSqueezeExcite
from imgzoo_layers.head import ClassifierHead
from imgzoo_layers.util import dilate

conv_act = partial(ConvNormAct, act="silu")


class DepthwiseSeparableConv(nn.Module):
    """5x5 depthwise, 1x1: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, dilation: int):
        super().__init__()
        self.depthwise_conv = conv_act(dim, dim, 5, dilation=dilation, groups=dim)
        self.pointwise_conv = conv_act(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise_conv(self.depthwise_conv(x))


class Block(nn.Module):
    """3x3, then 5x5 separable, on a residual if `shortcut`: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, dilation: int, shortcut: bool, drop_path: float):
        super().__init__()
        self.shortcut = shortcut
        self.conv1 = conv_act(dim, dim, 3, dilation=dilation)
        self.conv2 = DepthwiseSeparableConv(dim, dilation)
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop_path(self.conv2(self.conv1(x)))
        return y + x if self.shortcut else y


class Layer(nn.Module):
    """Half of the channels go through blocks, half past them; joined, gated, mixed: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, dilation: int, shortcut: bool, expand: float, gated: bool, drops: list[float]):
        super().__init__()
        half = int(dim * expand)
        self.short_conv = conv_act(dim, half)
        self.main_conv = conv_act(dim, half)
        self.blocks = nn.Sequential(*[Block(half, dilation, shortcut, drop) for drop in drops])
        self.attention = EffectiveSqueezeExcite(2 * half) if gated else nn.Identity()
        self.final_conv = conv_act(2 * half, dim)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([self.blocks(self.main_conv(x)), self.short_conv(x)], dim=1)
        return self.final_conv(self.attention(y))


class PyramidPooling(nn.Module):
    """Maxima over 5x5, 9x9 and 13x13 beside the map itself (arXiv:1406.4729): (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv1 = conv_act(dim, dim // 2)
        self.poolings = nn.ModuleList(nn.MaxPool2d(kernel, 1, kernel // 2) for kernel in (5, 9, 13))
        self.conv2 = conv_act(4 * (dim // 2), dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x)
        return self.conv2(torch.cat([x] + [pool(x) for pool in self.poolings], dim=1))


class CspNext(ImageModel):
    """Args:
    channels: channels of each stage, of which the first has twice those of the stem
    expand_ratio: channels that go through the blocks of a stage, as a share of its own
    channel_attention: gates behind the blocks of a stage
    deepen_factor: factor of the depths
    widen_factor: factor of the channels
    """

    exchanged = (Acts("silu"), Norms("batchnorm"))
    norms_act = True
    layer_groups = {
        "stem": r"^stem",
        "blocks": [
            (r"^stages\.(\d+)\.\d+\.blocks\.(\d+)", None),
            (r"^stages\.(\d+)\.\d+\.(?:attention|final_conv)", (99999,)),
            (r"^stages\.(\d+)", (0,)),
        ],
        "coarse": r"^stages\.(\d+)",
    }

    def __init__(self, depths: Sequence[int] = (3, 6, 6, 3), channels: Sequence[int] = (128, 256, 512, 1024),
                 expand_ratio: float = 0.5, channel_attention: bool = True, deepen_factor: float = 1.0,
                 widen_factor: float = 1.0, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg",
                 output_stride: int = 32, drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        dim, *dims = (int(dim * widen_factor) for dim in (channels[0] // 2, *channels))
        depths = [max(round(depth * deepen_factor), 1) for depth in depths]
        half = dim // 2
        self.stem = nn.Sequential(conv_act(in_chans, half, 3, 2), conv_act(half, half, 3), conv_act(half, dim, 3))
        stages, levels, reached = [], [Feature(dim, 2, "stem")], 2
        steps = dilate((2, 2, 2, 2), output_stride, start=2)
        rates = [*drop_path_rates(drop_path_rate, depths[:-1]), [0.0] * depths[-1]]  # the last blocks have no shortcut
        for i, (drops, (stride, before, dilation)) in enumerate(zip(rates, steps)):
            last, out = i == len(dims) - 1, dims[i]
            layers = [conv_act(dim, out, 3, stride, dilation=before), *([PyramidPooling(out)] if last else [])]
            layer = Layer(out, dilation, not last, expand_ratio, channel_attention, drops)
            stages.append(nn.Sequential(*layers, layer))
            dim, reached = out, reached * stride
            levels.append(Feature(dim, reached, f"stages.{i}"))
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim
        self.head = ClassifierHead(dim, num_classes, global_pool, drop_rate)
        self.head_hidden_size = dim * self.head.global_pool.width

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.stages(self.stem(x))

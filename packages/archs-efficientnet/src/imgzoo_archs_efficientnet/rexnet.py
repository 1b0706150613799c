"""ReXNet: inverted residuals whose width grows by the same step at every block (arXiv:2007.00992)."""

import math

import torch.fx
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.conv import ConvNormAct
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Acts
from imgzoo_layers.gate import SqueezeExcite
from imgzoo_layers.head import ClassifierHead
from imgzoo_layers.util import dilate, make_divisible

from .blocks import init_mobile_

STAGES = ((1, 1), (2, 2), (2, 2), (3, 2), (3, 1), (5, 2))
"""Blocks of each stage and the stride of its first."""
PLAIN = 2
"""Stages before the first with squeeze-excite."""


class LinearBottleneck(nn.Module):
    """Expand, filter, gate, project, the shortcut on the first C of D channels: (B, C, H, W) -> (B, D, H/s, W/s)."""

    def __init__(
        self,
        dim: int,
        dim_out: int,
        expansion: int,
        stride: int,
        dilation: int,
        shortcut: bool,
        se_ratio: float,
        divisor: int,
        drop_path: float,
    ):
        super().__init__()
        self.dim = dim if shortcut and dim <= dim_out else 0
        hidden = make_divisible(dim * expansion, divisor)
        self.conv_exp = ConvNormAct(dim, hidden, act="silu") if expansion != 1 else nn.Identity()
        self.conv_dw = ConvNormAct(hidden, hidden, 3, stride, dilation=dilation, groups=hidden, apply_act=False)
        squeezed = make_divisible(int(hidden * se_ratio), divisor)
        self.se = SqueezeExcite(hidden, rd_channels=squeezed, norm=nn.BatchNorm2d) if se_ratio else nn.Identity()
        self.act_dw = nn.ReLU6()
        self.conv_pwl = ConvNormAct(hidden, dim_out, apply_act=False)
        self.drop_path = drop_path_of(drop_path if self.dim else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_pwl(self.act_dw(self.se(self.conv_dw(self.conv_exp(x)))))
        if self.dim == 0:
            return y
        return added_to_first(self.drop_path(y), x)


def added_to_first(y: Tensor, x: Tensor) -> Tensor:
    """Add x to as many of y's channels as it has, in place."""
    y[:, : x.shape[1]] += x
    return y


torch.fx.wrap("added_to_first")  # tracers know no assignment to a part


class RexNet(ImageModel):
    """Args:
    first_width: channels of the first block
    growth: how much wider the last block would be with one block more
    depth: factor of the blocks of each stage
    """

    parts = Parts(stages=("features",))
    exchanged = (Acts("relu6", options=("dw_act",)), Acts("silu"))
    layer_groups = {"stem": r"^stem", "blocks": r"^features\.(\d+)"}

    def __init__(self, width: float = 1.0, depth: float = 1.0, first_width: int = 16, growth: int = 180,
                 se_ratio: float = 1 / 12, divisor: int = 1, num_classes: int = 1000, in_chans: int = 3,
                 global_pool: str = "avg", output_stride: int = 32, drop_rate: float = 0.2,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        depths = [math.ceil(blocks * depth) for blocks, _ in STAGES]
        count = sum(depths)
        drops = drop_path_rates(drop_path_rate, count)[0]
        dim = make_divisible(round(32 * max(width, 1.0)), divisor)
        self.stem = ConvNormAct(in_chans, dim, 3, 2, act="silu")
        blocks: list[nn.Module] = []
        levels, reduction = [], 2
        steps = dilate((stride for _, stride in STAGES), output_stride, start=2)
        for stage, ((_, first_stride), (step, before, after)) in enumerate(zip(STAGES, steps, strict=True)):
            for i in range(depths[stage]):
                at, stride, dilation = len(blocks), 1 if i else step, after if i else before
                shortcut = i > 0 or first_stride == 1  # none where the paper strides, dilated or not
                if not shortcut:
                    levels.append(Feature(dim, reduction, f"features.{at - 1}"))
                    reduction *= stride
                base = first_width / min(width, 1.0) + growth / count * at
                dim_out = make_divisible(round(base * width), divisor)
                expansion, ratio = 6 if stage else 1, se_ratio if stage >= PLAIN else 0.0
                blocks.append(
                    LinearBottleneck(dim, dim_out, expansion, stride, dilation, shortcut, ratio, divisor, drops[at])
                )
                dim = dim_out
        levels.append(Feature(dim, reduction, f"features.{count - 1}"))
        self.feature_info = FeatureInfo(levels)
        self.num_features = make_divisible(1280 * width, divisor)
        blocks.append(ConvNormAct(dim, self.num_features, act="silu"))
        self.features = nn.Sequential(*blocks)
        self.head = ClassifierHead(self.num_features, num_classes, global_pool, drop_rate)
        self.head_hidden_size = self.num_features * self.head.global_pool.width
        init_mobile_(self)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.features(self.stem(x))

"""What GhostNet and RepGhost share: bottlenecks of two ghost modules, the plan of a network, its head."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.conv import create_conv
from imgzoo_layers.hidden_head import ConvHead
from imgzoo_layers.util import Layer, make_divisible

from .blocks import SqueezeExcite

Row = tuple[int, int, int, bool, int]
"""A block: kernel, hidden and output width, gated, stride."""


def conv_norm_act(dim: int, dim_out: int, kernel: int, groups: int, act: bool) -> nn.Sequential:
    """Convolution, batch norm, and ReLU if asked for."""
    conv = create_conv(dim, dim_out, kernel, groups=groups)
    return nn.Sequential(conv, nn.BatchNorm2d(dim_out), nn.ReLU(inplace=True) if act else nn.Identity())


def make_gate(dim: int, gated: bool) -> nn.Module:
    return SqueezeExcite(dim, make_divisible(dim / 4, 4) / dim, gate="hard_sigmoid") if gated else nn.Identity()


def make_shortcut(dim: int, dim_out: int, kernel: int, stride: int) -> nn.Module:
    """Depthwise, then pointwise, where width or size changes."""
    if dim == dim_out and stride == 1:
        return nn.Identity()
    return nn.Sequential(create_conv(dim, dim, kernel, stride, groups=dim), nn.BatchNorm2d(dim),
                         create_conv(dim, dim_out, 1), nn.BatchNorm2d(dim_out))  # fmt: skip


class Bottleneck(nn.Module):
    """Expand by a ghost module, perhaps stride depthwise, gate, project by another: (B, C, H, W) -> (B, D, H', W')."""

    def __init__(self, dim: int, hidden: int, ghost1: nn.Module, ghost2: nn.Module, dim_out: int, kernel: int,
                 stride: int, gated: bool):  # fmt: skip
        super().__init__()
        self.ghost1 = ghost1
        self.conv_dw: nn.Module = nn.Identity()
        self.bn_dw: nn.Module = nn.Identity()
        if stride > 1:
            self.conv_dw = create_conv(hidden, hidden, kernel, stride, groups=hidden)
            self.bn_dw = nn.BatchNorm2d(hidden)
        self.se = make_gate(hidden, gated)
        self.ghost2 = ghost2
        self.shortcut = make_shortcut(dim, dim_out, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.se(self.bn_dw(self.conv_dw(self.ghost1(x))))
        return self.ghost2(y) + self.shortcut(x)


class GhostTrunk(ConvHead, ImageModel):
    """Strided stem, stages of blocks, one 1x1 and a head that widens the pooled vector.

    Args:
        width: factor of all channels
    """

    parts = Parts(stem=("conv_stem", "bn1", "act1"), stages=("blocks",), pool="global_pool", head="classifier")
    layer_groups = {
        "stem": r"^conv_stem|bn1",
        "blocks": [(r"^blocks\.(\d+)\.(\d+)", None), (r"conv_head", (99999,))],
        "coarse": [(r"^blocks\.(\d+)", None), (r"conv_head", (99999,))],
    }

    def __init__(self, stages: Sequence[Sequence[Row]], make_block: Layer, last: int, /,
                 width: float = 1.0, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg",
                 drop_rate: float = 0.2):  # fmt: skip
        super().__init__(num_classes, in_chans)
        dim, reached = make_divisible(16 * width, 4), 2
        self.conv_stem = nn.Conv2d(in_chans, dim, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(dim)
        self.act1 = nn.ReLU(inplace=True)
        levels, built = [Feature(dim, reached, "conv_stem")], []
        for i, rows in enumerate(stages):
            blocks = []
            for kernel, hidden, out, gated, stride in rows:
                hidden, out = make_divisible(hidden * width, 4), make_divisible(out * width, 4)
                blocks.append(make_block(dim, hidden, out, kernel, stride, gated, i))
                dim = out
            if rows[0][-1] == 2:
                reached *= 2
                levels.append(Feature(dim, reached, f"blocks.{i}"))
            built.append(nn.Sequential(*blocks))
        conv, norm, act = conv_norm_act(dim, dim := make_divisible(last * width, 4), 1, 1, True)
        built.append(nn.Sequential(nn.Sequential(OrderedDict(conv=conv, bn1=norm, act=act))))
        self.blocks = nn.Sequential(*built)
        self.feature_info = FeatureInfo(levels)
        self._add_head(dim, 1280, num_classes, global_pool, drop_rate)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.blocks(self.act1(self.bn1(self.conv_stem(x))))

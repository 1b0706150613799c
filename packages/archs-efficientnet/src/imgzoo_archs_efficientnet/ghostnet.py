"""GhostNet: half of the features from the others by cheap operations (arXiv:1911.11907).

V2 adds attention along rows and columns (arXiv:2211.12905), V3 parallel branches that merge (arXiv:2404.11202).
"""

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo_layers.conv import create_conv
from imgzoo_layers.reparam import Kernel, fold_norm, identity_kernel, merged

from .ghost_trunk import Bottleneck, GhostTrunk, Row, conv_norm_act, make_gate, make_shortcut

STAGES: list[list[Row]] = [
    [(3, 16, 16, False, 1)],
    [(3, 48, 24, False, 2)],
    [(3, 72, 24, False, 1)],
    [(5, 72, 40, True, 2)],
    [(5, 120, 40, True, 1)],
    [(3, 240, 80, False, 2)],
    [(3, 200, 80, False, 1), *[(3, 184, 80, False, 1)] * 2, (3, 480, 112, True, 1), (3, 672, 112, True, 1)],
    [(5, 672, 160, True, 2)],
    [(5, 960, 160, False, 1), (5, 960, 160, True, 1)] * 2,
]
"""Table 1 of the first paper."""
BRANCHES = 3


class Ghost(nn.Module):
    """Features and their ghosts, perhaps times attention at half the size: (B, C, H, W) -> (B, dim_out, H, W)."""

    def __init__(self, dim: int, dim_out: int, act: bool, attend: bool):
        super().__init__()
        self.add_layers(dim, dim_out // 2, act)
        self.short_conv: nn.Module | None = None
        if attend:
            norms = [nn.BatchNorm2d(dim_out) for _ in range(3)]
            rows = nn.Conv2d(dim_out, dim_out, (1, 5), 1, (0, 2), groups=dim_out, bias=False)
            columns = nn.Conv2d(dim_out, dim_out, (5, 1), 1, (2, 0), groups=dim_out, bias=False)
            self.short_conv = nn.Sequential(create_conv(dim, dim_out, 1), norms[0], rows, norms[1], columns, norms[2])

    def add_layers(self, dim: int, half: int, act: bool) -> None:
        self.primary_conv = conv_norm_act(dim, half, 1, 1, act)
        self.cheap_operation = conv_norm_act(half, half, 3, half, act)

    def primary(self, x: Tensor) -> Tensor:
        return self.primary_conv(x)

    def cheap(self, x: Tensor) -> Tensor:
        return self.cheap_operation(x)

    def forward(self, x: Tensor) -> Tensor:
        y = self.primary(x)
        y = torch.cat([y, self.cheap(y)], dim=1)
        if self.short_conv is None:
            return y
        gate = self.short_conv(F.avg_pool2d(x, 2, 2)).sigmoid()
        return y * F.interpolate(gate, size=y.shape[-2:], mode="nearest")


class RepConv(nn.Sequential):
    """Convolution and norm: a branch that can be merged with others."""

    def __init__(self, dim: int, dim_out: int, kernel: int = 1, stride: int = 1, groups: int = 1):
        conv = create_conv(dim, dim_out, kernel, stride, groups=groups)
        super().__init__(OrderedDict(conv=conv, bn1=nn.BatchNorm2d(dim_out)))

    def kernel(self) -> Kernel:
        return fold_norm(self.conv.weight, self.bn1)  # type: ignore[arg-type]


class GhostV3(Ghost):
    """Every convolution is the sum of several; the cheap one also of a 1x1 and a norm."""

    def add_layers(self, dim: int, half: int, act: bool) -> None:
        self.primary_rpr_conv: Any = nn.ModuleList(RepConv(dim, half) for _ in range(BRANCHES))
        self.cheap_rpr_skip: Any = nn.BatchNorm2d(half)
        self.cheap_rpr_conv: Any = nn.ModuleList(RepConv(half, half, 3, groups=half) for _ in range(BRANCHES))
        self.cheap_rpr_scale: Any = RepConv(half, half, groups=half)
        self.act: nn.Module = nn.ReLU(inplace=True) if act else nn.Identity()
        self.primary_conv: Any = None
        self.cheap_operation: Any = None

    def primary(self, x: Tensor) -> Tensor:
        if self.primary_conv is not None:
            return self.act(self.primary_conv(x))
        y = self.primary_rpr_conv[0](x)
        for i, conv in enumerate(self.primary_rpr_conv):
            if i > 0:
                y = y + conv(x)
        return self.act(y)

    def cheap(self, x: Tensor) -> Tensor:
        if self.cheap_operation is not None:
            return self.act(self.cheap_operation(x))
        y = self.cheap_rpr_scale(x) + self.cheap_rpr_skip(x)
        for conv in self.cheap_rpr_conv:
            y = y + conv(x)
        return self.act(y)

    def reparameterize(self) -> None:
        """Replace the branches by two convolutions, for inference."""
        if self.primary_conv is not None:
            return
        primary, cheap = self.primary_rpr_conv, self.cheap_rpr_conv
        conv = cheap[0].conv
        eye = identity_kernel(conv.out_channels, conv.groups, 3, conv.weight)
        kernels = [branch.kernel() for branch in (*cheap, self.cheap_rpr_scale)]
        self.primary_conv = merged(primary[0].conv, [branch.kernel() for branch in primary])
        self.cheap_operation = merged(conv, [*kernels, fold_norm(eye, self.cheap_rpr_skip)])
        self.primary_rpr_conv = self.cheap_rpr_skip = self.cheap_rpr_conv = self.cheap_rpr_scale = None


class BottleneckV3(nn.Module):
    """As `Bottleneck`, its strided convolution a sum, too."""

    def __init__(self, dim: int, hidden: int, ghost1: nn.Module, ghost2: nn.Module, dim_out: int, kernel: int,
                 stride: int, gated: bool):  # fmt: skip
        super().__init__()
        self.ghost1 = ghost1
        self.strided = stride > 1
        self.conv_dw: Any = None
        self.dw_rpr_conv: Any = None
        self.dw_rpr_scale: Any = None
        if self.strided:
            branches = (RepConv(hidden, hidden, kernel, stride, hidden) for _ in range(BRANCHES))
            self.dw_rpr_conv = nn.ModuleList(branches)
            self.dw_rpr_scale = RepConv(hidden, hidden, 1, stride, hidden)
        self.se = make_gate(hidden, gated)
        self.ghost2 = ghost2
        self.shortcut = make_shortcut(dim, dim_out, kernel, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = self.ghost1(x)
        if self.conv_dw is not None:
            y = self.conv_dw(y)
        elif self.dw_rpr_conv is not None and self.dw_rpr_scale is not None:
            z = self.dw_rpr_scale(y)
            for conv in self.dw_rpr_conv:
                z = z + conv(y)
            y = z
        return self.ghost2(self.se(y)) + self.shortcut(x)

    def reparameterize(self) -> None:
        """Replace the branches by one convolution, for inference."""
        if self.dw_rpr_conv is None:
            return
        branches = [*self.dw_rpr_conv, self.dw_rpr_scale]
        self.conv_dw = merged(branches[0].conv, [branch.kernel() for branch in branches])
        self.dw_rpr_conv = self.dw_rpr_scale = None


class GhostNet(GhostTrunk):
    """Args:
    version: 1, 2 or 3
    """

    def __init__(self, version: int = 1, **options: Any):
        make_ghost, make_bottleneck = (GhostV3, BottleneckV3) if version == 3 else (Ghost, Bottleneck)

        def make_block(dim: int, hidden: int, dim_out: int, kernel: int, stride: int, gated: bool,
                       stage: int) -> nn.Module:  # fmt: skip
            ghosts = make_ghost(dim, hidden, True, version > 1 and stage > 1), make_ghost(hidden, dim_out, False, False)
            return make_bottleneck(dim, hidden, *ghosts, dim_out, kernel, stride, gated)

        super().__init__(STAGES, make_block, 960, **options)

"""PNASNet-5: one cell found by progressive search, with stride or without (arXiv:1712.00559, figure 1)."""

from collections import OrderedDict

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, Parts

from .cell_blocks import EPS, ActConvNorm, CellModel, Path, Separable, max_pool, stem


class FactorizedReduction(nn.Module):
    """Halve a map by two paths that see shifted pixels: (B, C, H, W) -> (B, dim_out, H/2, W/2)."""

    def __init__(self, dim: int, dim_out: int):
        super().__init__()
        self.act = nn.ReLU()
        self.path_1 = Path(dim, dim_out // 2, 0)
        self.path_2 = Path(dim, dim_out // 2, 1)
        self.final_path_bn = nn.BatchNorm2d(dim_out, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(x)
        return self.final_path_bn(torch.cat([self.path_1(x), self.path_2(x)], 1))


ALIGN = {"conv": ActConvNorm, "paths": FactorizedReduction}


class Cell(nn.Module):
    """Two maps (B, ?, H, W) -> (B, 5 dim_out, H/stride, W/stride).

    The older one comes through a 1x1 ("conv"), halved ("paths"), or as it is ("none").
    """

    def __init__(self, dim_before: int, dim: int, dim_out: int, stride: int, align: str):
        super().__init__()
        self.conv_prev_1x1 = ALIGN[align](dim_before, dim_out) if align in ALIGN else None
        self.conv_1x1 = ActConvNorm(dim, dim_out)
        left = dim_out if align in ALIGN else dim_before
        self.comb_iter_0_left = Separable(left, dim_out, 5, stride)
        self.comb_iter_0_right = max_pool(stride)
        if left != dim_out:
            layers = {"max_pool": max_pool(stride), "conv": nn.Conv2d(left, dim_out, 1, bias=False)}
            layers["bn"] = nn.BatchNorm2d(dim_out, eps=EPS)
            self.comb_iter_0_right = nn.Sequential(OrderedDict(layers))
        self.comb_iter_1_left = Separable(dim_out, dim_out, 7, stride)
        self.comb_iter_2_left = Separable(dim_out, dim_out, 5, stride)
        self.comb_iter_2_right = Separable(dim_out, dim_out, 3, stride)
        self.comb_iter_3_left = Separable(dim_out, dim_out, 3)
        self.comb_iter_4_left = Separable(left, dim_out, 3, stride)
        self.comb_iter_4_right = ActConvNorm(dim_out, dim_out, stride) if stride > 1 else nn.Identity()
        self.pool = max_pool(stride)

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        left, right = before, self.conv_1x1(last)
        if self.conv_prev_1x1 is not None:
            left = self.conv_prev_1x1(before)
        most = self.pool(right)
        third = self.comb_iter_2_left(right) + self.comb_iter_2_right(right)
        return torch.cat([
            self.comb_iter_0_left(left) + self.comb_iter_0_right(left),
            self.comb_iter_1_left(right) + most,
            third,
            self.comb_iter_3_left(third) + most,
            self.comb_iter_4_left(left) + self.comb_iter_4_right(right),
        ], 1)  # fmt: skip


CELLS = {  # name: width, stride, how the older input is aligned
    "cell_stem_0": (54, 2, "none"),
    "cell_stem_1": (108, 2, "paths"),
    "cell_0": (216, 1, "paths"),
    "cell_1": (216, 1, "conv"),
    "cell_2": (216, 1, "conv"),
    "cell_3": (216, 1, "conv"),
    "cell_4": (432, 2, "conv"),
    "cell_5": (432, 1, "paths"),
    "cell_6": (432, 1, "conv"),
    "cell_7": (432, 1, "conv"),
    "cell_8": (864, 2, "conv"),
    "cell_9": (864, 1, "paths"),
    "cell_10": (864, 1, "conv"),
    "cell_11": (864, 1, "conv"),
}


class PNASNet5Large(CellModel):
    parts = Parts(stem=("conv_0",), stages=tuple(CELLS), pool="global_pool", head="last_linear")
    layer_groups = {"stem": r"^conv_0|^cell_stem_[01]", "blocks": r"^cell_(\d+)"}

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0):
        super().__init__(num_classes, in_chans)
        before = dim = 96
        self.conv_0 = stem(in_chans, dim)
        for name, (width, stride, align) in CELLS.items():
            setattr(self, name, Cell(before, dim, width, stride, align))
            before, dim = dim, 5 * width
        self.act = nn.ReLU(inplace=True)
        self.feature_info = FeatureInfo([
            Feature(96, 2, "conv_0"),
            Feature(270, 4, "cell_stem_1.conv_1x1.act"),
            Feature(1080, 8, "cell_4.conv_1x1.act"),
            Feature(2160, 16, "cell_8.conv_1x1.act"),
            Feature(dim, 32, "act"),
        ])  # fmt: skip
        self._add_head(dim, num_classes, global_pool, drop_rate)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, 331, 331) -> (B, 4320, 11, 11)
        a = self.conv_0(x)
        b = self.cell_stem_0(a, a)
        a = self.cell_stem_1(a, b)
        b = self.cell_0(b, a)
        a = self.cell_1(a, b)
        b = self.cell_2(b, a)
        a = self.cell_3(a, b)
        b = self.cell_4(b, a)
        a = self.cell_5(a, b)
        b = self.cell_6(b, a)
        a = self.cell_7(a, b)
        b = self.cell_8(b, a)
        a = self.cell_9(a, b)
        b = self.cell_10(b, a)
        return self.act(self.cell_11(a, b))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self._pooled(x)
        return x if pre_logits else self.last_linear(x)

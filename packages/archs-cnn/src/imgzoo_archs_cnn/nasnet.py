"""NASNet-A: normal and reduction cells found by search (arXiv:1707.07012, figure 4 and appendix A)."""

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, Parts
from imgzoo_layers.pool import AvgPool2dSame

from .cell_blocks import EPS, ActConvNorm, CellModel, Path, Separable, max_pool, stem


def mean_pool(stride: int = 1) -> nn.Module:
    """3x3 mean that leaves the border out."""
    if stride > 1:
        return AvgPool2dSame(3, stride, count_include_pad=False)
    return nn.AvgPool2d(3, 1, 1, count_include_pad=False)


class Cell(nn.Module):
    """Bring both inputs to `dim_out` channels and one size. The older one comes through a 1x1 ("conv"), through two
    shifted paths that halve it ("paths"), or as it is ("none")."""

    def __init__(self, dim_before: int, dim: int, dim_out: int, align: str):
        super().__init__()
        paths = align == "paths"
        self.conv_prev_1x1 = ActConvNorm(dim_before, dim_out) if align == "conv" else None
        self.conv_1x1 = ActConvNorm(dim, dim_out)
        self.path_1 = Path(dim_before, dim_out // 2, 0) if paths else None
        self.path_2 = Path(dim_before, dim_out // 2, 1) if paths else None
        self.final_path_bn = nn.BatchNorm2d(dim_out, eps=EPS) if paths else None
        self.dim_left = dim_before if align == "none" else dim_out

    def aligned(self, before: Tensor, last: Tensor) -> tuple[Tensor, Tensor]:
        right = self.conv_1x1(last)
        if self.conv_prev_1x1 is not None:
            return self.conv_prev_1x1(before), right
        if self.path_1 is not None and self.path_2 is not None and self.final_path_bn is not None:
            before = before.relu()
            return self.final_path_bn(torch.cat([self.path_1(before), self.path_2(before)], 1)), right
        return before, right


class NormalCell(Cell):
    """Two maps (B, ?, H, W) -> (B, 6 dim_out, H, W)."""

    def __init__(self, dim_before: int, dim: int, dim_out: int, align: str):
        super().__init__(dim_before, dim, dim_out, align)
        self.comb_iter_0_left = Separable(dim_out, dim_out, 5)
        self.comb_iter_0_right = Separable(dim_out, dim_out, 3)
        self.comb_iter_1_left = Separable(dim_out, dim_out, 5)
        self.comb_iter_1_right = Separable(dim_out, dim_out, 3)
        self.mean = mean_pool()
        self.comb_iter_4_left = Separable(dim_out, dim_out, 3)

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        left, right = self.aligned(before, last)
        around = self.mean(left)
        return torch.cat([
            left,
            self.comb_iter_0_left(right) + self.comb_iter_0_right(left),
            self.comb_iter_1_left(left) + self.comb_iter_1_right(left),
            self.mean(right) + left,
            around + around,
            self.comb_iter_4_left(right) + right,
        ], 1)  # fmt: skip


class ReductionCell(Cell):
    """Two maps (B, ?, H, W) -> (B, 4 dim_out, H/2, W/2)."""

    def __init__(self, dim_before: int, dim: int, dim_out: int, align: str):
        super().__init__(dim_before, dim, dim_out, align)
        self.comb_iter_0_left = Separable(dim_out, dim_out, 5, 2)
        self.comb_iter_0_right = Separable(self.dim_left, dim_out, 7, 2)
        self.comb_iter_1_right = Separable(self.dim_left, dim_out, 7, 2)
        self.comb_iter_2_right = Separable(self.dim_left, dim_out, 5, 2)
        self.mean = mean_pool()
        self.mean_half = mean_pool(2)
        self.max_half = max_pool(2)
        self.comb_iter_4_left = Separable(dim_out, dim_out, 3)

    def forward(self, before: Tensor, last: Tensor) -> Tensor:
        left, right = self.aligned(before, last)
        most = self.max_half(right)
        first = self.comb_iter_0_left(right) + self.comb_iter_0_right(left)
        second = most + self.comb_iter_1_right(left)
        return torch.cat([
            second,
            self.mean_half(right) + self.comb_iter_2_right(left),
            self.mean(first) + second,
            self.comb_iter_4_left(first) + most,
        ], 1)  # fmt: skip


def cells(width: int) -> dict[str, tuple[type[Cell], int, str]]:
    """Name -> cell, its width, and how it aligns the older input, for `width` of the first normal cells."""
    rows: dict[str, tuple[type[Cell], int, str]] = {
        "cell_stem_0": (ReductionCell, width // 4, "none"),
        "cell_stem_1": (ReductionCell, width // 2, "paths"),
    }
    for group in range(3):
        if group:
            rows[f"reduction_cell_{group - 1}"] = (ReductionCell, width << group, "conv")
        for i in range(6):
            rows[f"cell_{6 * group + i}"] = (NormalCell, width << group, "conv" if i else "paths")
    return rows


class NASNetALarge(CellModel):
    parts = Parts(stem=("conv0",), stages=tuple(cells(0)), pool="global_pool", head="last_linear")
    keeps = ("reduction_cell_0", "reduction_cell_1")
    layer_groups = {
        "stem": r"^conv0|^cell_stem_[01]",
        "blocks": [(r"^cell_(\d+)", None), (r"^reduction_cell_0", (6,)), (r"^reduction_cell_1", (12,))],
    }

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0):
        super().__init__(num_classes, in_chans)
        before = dim = 96
        self.conv0 = stem(in_chans, dim)
        for name, (cell, width, align) in cells(168).items():
            setattr(self, name, cell(before, dim, width, align))
            before, dim = dim, width * (6 if cell is NormalCell else 4)
        self.act = nn.ReLU(inplace=True)
        self.feature_info = FeatureInfo([
            Feature(96, 2, "conv0"),
            Feature(168, 4, "cell_stem_1.conv_1x1.act"),
            Feature(1008, 8, "reduction_cell_0.conv_1x1.act"),
            Feature(2016, 16, "reduction_cell_1.conv_1x1.act"),
            Feature(dim, 32, "act"),
        ])  # fmt: skip
        self._add_head(dim, num_classes, global_pool, drop_rate)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, 331, 331) -> (B, 4032, 11, 11)
        a = self.conv0(x)
        b = self.cell_stem_0(a, a)
        a = self.cell_stem_1(a, b)
        b = self.cell_0(b, a)
        a = self.cell_1(a, b)
        b = self.cell_2(b, a)
        a = self.cell_3(a, b)
        b = self.cell_4(b, a)
        a = self.cell_5(a, b)
        c = self.reduction_cell_0(b, a)
        a = self.cell_6(b, c)
        b = self.cell_7(c, a)
        a = self.cell_8(a, b)
        b = self.cell_9(b, a)
        a = self.cell_10(a, b)
        b = self.cell_11(b, a)
        c = self.reduction_cell_1(a, b)
        b = self.cell_12(a, c)
        a = self.cell_13(c, b)
        b = self.cell_14(b, a)
        a = self.cell_15(a, b)
        b = self.cell_16(b, a)
        return self.act(self.cell_17(a, b))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self._pooled(x)
        return x if pre_logits else self.last_linear(x)

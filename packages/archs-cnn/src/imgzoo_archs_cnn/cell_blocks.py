"""What searched networks of cells share: their operations, and the chain in which a cell sees the last two outputs."""

from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import Shortened
from imgzoo_layers.conv import ConvNormAct, create_conv
from imgzoo_layers.norm_act import BatchNormAct2d
from imgzoo_layers.pool import MaxPool2dSame

from .inception_blocks import InceptionModel

EPS = 1e-3
State = tuple[Tensor, Tensor]
"""Outputs of the last cell but one, and of the last one."""


def stem(in_chans: int, dim: int) -> ConvNormAct:
    """(B, 3, H, W) -> (B, dim, (H - 1)/2, (W - 1)/2), not activated."""
    return ConvNormAct(in_chans, dim, 3, 2, 0, norm=partial(BatchNormAct2d, eps=EPS), apply_act=False)  # type: ignore[arg-type]


def max_pool(stride: int) -> nn.Module:
    return MaxPool2dSame(3, stride) if stride > 1 else nn.MaxPool2d(3, stride, 1)


class ActConvNorm(nn.Module):
    """ReLU, 1x1, norm: (B, C, H, W) -> (B, dim_out, H/stride, W/stride)."""

    def __init__(self, dim: int, dim_out: int, stride: int = 1):
        super().__init__()
        self.act = nn.ReLU()
        self.conv = create_conv(dim, dim_out, 1, stride, "same")
        self.bn = nn.BatchNorm2d(dim_out, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(self.act(x)))


class SeparableConv(nn.Module):
    """Depthwise, then pointwise."""

    def __init__(self, dim: int, dim_out: int, kernel: int, stride: int):
        super().__init__()
        self.depthwise_conv2d = create_conv(dim, dim, kernel, stride, "same", groups=dim)
        self.pointwise_conv2d = nn.Conv2d(dim, dim_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise_conv2d(self.depthwise_conv2d(x))


class Separable(nn.Module):
    """ReLU, separable convolution, norm, twice; the first is strided: (B, C, H, W) -> (B, dim_out, H', W')."""

    def __init__(self, dim: int, dim_out: int, kernel: int, stride: int = 1):
        super().__init__()
        self.act_1 = nn.ReLU()
        self.separable_1 = SeparableConv(dim, dim_out, kernel, stride)
        self.bn_sep_1 = nn.BatchNorm2d(dim_out, eps=EPS)
        self.act_2 = nn.ReLU(inplace=True)
        self.separable_2 = SeparableConv(dim_out, dim_out, kernel, 1)
        self.bn_sep_2 = nn.BatchNorm2d(dim_out, eps=EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn_sep_1(self.separable_1(self.act_1(x)))
        return self.bn_sep_2(self.separable_2(self.act_2(x)))


class Path(nn.Module):
    """Every second pixel of every second row, beginning at `start`, through a 1x1: half of a factorized reduction."""

    def __init__(self, dim: int, dim_out: int, start: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim_out, 1, bias=False)
        self.start = start

    def forward(self, x: Tensor) -> Tensor:
        if self.start:
            x = F.pad(x[:, :, 1:, 1:], [0, 1, 0, 1])
        return self.conv(x[:, :, ::2, ::2])


class CellModel(InceptionModel):
    """A stem and cells, each fed with the outputs of the two before it; levels are activated outputs of cells.

    `parts.stem` names the stem, `parts.stages` the cells. The level before a cell is named by the activation in it.
    """

    shortened = Shortened
    keeps: ClassVar[tuple[str, ...]] = ()
    """Cells whose older input is also that of the next cell."""

    def begin(self, x: Tensor) -> State:
        x = getattr(self, self.parts.stem[0])(x)
        return x, x

    def _steps(self) -> list[tuple[str, Any]]:
        paths = {level.module.partition(".")[0]: level.module for level in self.feature_info.levels}
        cells = [(name, cell) for name, cell in self._stages() if not isinstance(cell, nn.Identity)]
        steps: list[tuple[str, Any]] = [(self.parts.stem[0], self.begin)]
        for i, (name, cell) in enumerate(cells):
            after = self.parts.stages[i + 1] if i + 1 < len(self.parts.stages) else "act"
            steps.append((paths.get(after, name), partial(advance, cell, name in self.keeps)))
        return steps

    def _advance(self, path: str, step: Any, x: Any) -> tuple[Any, dict[str, Any]]:
        """The last level is what the last activation gives, which hooks may stand on."""
        before, last = step(x)
        x = (before, self.act(last) if path == "act" else last)
        return x, {path: x}

    def _collect(self, x: Any, norm: bool) -> Tensor:
        before, last = x
        return last if before is last else torch.relu(last)  # what the stem makes is a level as it is

    def _final_norm(self, x: Any) -> Tensor:
        return self.act(x[1])

    def forward_intermediates(self, x: Tensor, *args: Any, **options: Any) -> Any:
        """As `ImageModel.forward_intermediates`."""
        result = super().forward_intermediates(x, *args, **options)
        if isinstance(result, tuple) and isinstance(result[0], tuple):  # stopped early
            return result[0][1], result[1]
        return result

    def _place(self, pieces: list[tuple[str, Any]], module: str) -> int:
        """A level named by an activation of a cell is what the piece before it makes."""
        place = super()._place(pieces, module)
        return place - 1 if "." in module else place

    def _blocks(self) -> list[nn.Module]:
        return [cell for _, cell in self._stages()]


def advance(cell: nn.Module, keep: bool, state: State) -> State:
    before, last = state
    return before if keep else last, cell(before, last)

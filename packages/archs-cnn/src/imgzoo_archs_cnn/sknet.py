"""SKNet: a ResNet that chooses between kernel sizes anew for each image and channel (arXiv:1903.06586)."""

from collections import OrderedDict
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo_layers.conv import Pointwise2d
from imgzoo_layers.drop import drop_path_of
from imgzoo_layers.gate import Gate
from imgzoo_layers.norm import Norm
from imgzoo_layers.util import Layer, make_divisible

from .resnet import MakeDrop, ResNet

PATHS = 2  # a 3x3 kernel and a 5x5 one; the latter is a dilated 3x3


class Selection(nn.Module):
    """Weigh the paths by their common content, channel by channel: (B, paths, C, H, W) -> (B, C, H, W).

    Its norm and activation are the paper's, whatever those around it are.
    """

    def __init__(self, dim: int, hidden: int, paths: int = PATHS):
        super().__init__()
        self.fc_reduce = Pointwise2d(dim, hidden, False)
        self.bn = nn.BatchNorm2d(hidden)
        self.act = nn.ReLU(inplace=True)
        self.fc_select = Pointwise2d(hidden, dim * paths, False)

    def forward(self, paths: Tensor) -> Tensor:
        common = paths.sum(1).mean((2, 3), keepdim=True)
        weights = self.fc_select(self.act(self.bn(self.fc_reduce(common))))
        weights = weights.unflatten(1, (-1, paths.shape[2])).softmax(1)  # (B, paths, C, 1, 1)
        return (paths * weights).sum(1)


class SelectiveKernel(nn.Module):
    """Two kernels side by side, then the choice; with `split_input` each sees half of the channels."""

    def __init__(self, dim: int, dim_out: int, stride: int, dilation: int, groups: int, norm: Norm, act: Layer,
                 drop_block: MakeDrop, rd_ratio: float, rd_divisor: int, split_input: bool):  # fmt: skip
        super().__init__()
        if split_input and dim % PATHS:
            raise ValueError(f"{dim} channels do not divide into {PATHS} paths: give even ones, or split_input=False")
        self.split_input = split_input
        dim = dim // PATHS if split_input else dim
        self.paths = nn.ModuleList(
            conv_norm_act(dim, dim_out, 3, norm, act, stride, dilation * (i + 1), groups, drop_block())
            for i in range(PATHS)
        )
        self.attn = Selection(dim_out, make_divisible(dim_out * rd_ratio, rd_divisor))

    def forward(self, x: Tensor) -> Tensor:
        inputs = x.chunk(len(self.paths), 1) if self.split_input else [x] * len(self.paths)
        return self.attn(torch.stack([path(inputs[i]) for i, path in enumerate(self.paths)], 1))


class BasicBlock(nn.Module):
    """The choice of kernels, then a 3x3 on a residual: (B, C, H, W) -> (B, dim, H/stride, W/stride)."""

    expansion = 1

    def __init__(self, dim_in: int, dim: int, stride: int, before: int, dilation: int, downsample: nn.Module | None,
                 norm: Norm, act: Layer, aa: str | None, gate: Gate | None, drop_block: MakeDrop, drop_path: float,
                 cardinality: int = 1, base_width: int = 64, reduce_first: int = 1, **selection: Any):  # fmt: skip
        super().__init__()
        refuse(aa, gate)
        hidden = dim // reduce_first
        self.conv1 = SelectiveKernel(dim_in, hidden, stride, before, 1, norm, act, drop_block, **selection)
        self.conv2 = conv_norm_act(hidden, dim, 3, norm, nn.Identity, 1, dilation)
        self.act = act()
        self.downsample = downsample
        self.drop_path = drop_path_of(drop_path)

    def zero_init_last(self) -> None:
        nn.init.zeros_(self.conv2.get_parameter("bn.weight"))

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop_path(self.conv2(self.conv1(x)))
        return self.act(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, the choice of kernels, 1x1 on a residual: (B, C, H, W) -> (B, 4 dim, H/stride, W/stride)."""

    expansion = 4

    def __init__(self, dim_in: int, dim: int, stride: int, before: int, dilation: int, downsample: nn.Module | None,
                 norm: Norm, act: Layer, aa: str | None, gate: Gate | None, drop_block: MakeDrop, drop_path: float,
                 cardinality: int = 1, base_width: int = 64, reduce_first: int = 1, **selection: Any):  # fmt: skip
        super().__init__()
        refuse(aa, gate)
        width, out = int(dim * base_width / 64) * cardinality, dim * self.expansion
        hidden = width // reduce_first
        self.conv1 = conv_norm_act(dim_in, hidden, 1, norm, act)
        self.conv2 = SelectiveKernel(hidden, width, stride, before, cardinality, norm, act, drop_block, **selection)
        self.conv3 = conv_norm_act(width, out, 1, norm, nn.Identity)
        self.act = act()
        self.downsample = downsample
        self.drop_path = drop_path_of(drop_path)

    def zero_init_last(self) -> None:
        nn.init.zeros_(self.conv3.get_parameter("bn.weight"))

    def forward(self, x: Tensor) -> Tensor:
        y = self.drop_path(self.conv3(self.conv2(self.conv1(x))))
        return self.act(y + (x if self.downsample is None else self.downsample(x)))


class SKNet(ResNet):
    """The options of `ResNet`, with `rd_ratio` and `rd_divisor` for the width in which the choice is made.

    Args:
        rd_ratio: channels in which the choice between kernels is made, as a share of the width
        rd_divisor: those channels are a multiple of this
        split_input: each kernel sees a part of the channels
    """

    norms_act = None

    def __init__(self, block: str = "bottleneck", rd_ratio: float = 1.0 / 16, rd_divisor: int = 8,
                 split_input: bool = True, zero_init_last: bool = False, **options: Any):  # fmt: skip
        selection = dict(rd_ratio=rd_ratio, rd_divisor=rd_divisor, split_input=split_input)
        super().__init__(block=partial(BLOCK[block], **selection), zero_init_last=zero_init_last, **options)


BLOCK = {"basic": BasicBlock, "bottleneck": Bottleneck}


def conv_norm_act(dim: int, dim_out: int, kernel: int, norm: Norm, act: Layer, stride: int = 1, dilation: int = 1,
                  groups: int = 1, drop: nn.Module | None = None) -> nn.Sequential:  # fmt: skip
    conv = nn.Conv2d(dim, dim_out, kernel, stride, kernel // 2 * dilation, dilation, groups, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, bn=norm(dim_out), **({"drop": drop} if drop else {}), act=act()))


def refuse(aa: str | None, gate: Gate | None) -> None:
    """Raise for what `ResNet` offers and these blocks do not have."""
    if aa or gate:
        raise ValueError("SKNet has no anti-aliased form and attention of its own; leave aa and gate out")

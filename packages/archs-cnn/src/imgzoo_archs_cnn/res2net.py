"""Res2Net: a ResNet whose 3x3 convolution is a chain over shares of the channels (arXiv:1904.01169)."""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo_layers.drop import drop_path_of
from imgzoo_layers.gate import Gate
from imgzoo_layers.norm import Norm
from imgzoo_layers.util import Layer

from .resnet import MakeDrop, ResNet, conv3x3, zero_


class Bottle2neck(nn.Module):
    """1x1, then each of `scale` shares but the last through a 3x3 together with the share before, 1x1 on a residual.

    (B, C, H, W) -> (B, 4 dim, H/stride, W/stride). The first block of a stage has no shares to add yet: its shares
    go side by side, and the last is pooled.
    """

    expansion = 4

    def __init__(self, dim_in: int, dim: int, stride: int, before: int, dilation: int, downsample: nn.Module | None,
                 norm: Norm, act: Layer, aa: str | None, gate: Gate | None, drop_block: MakeDrop, drop_path: float,
                 cardinality: int = 1, base_width: int = 26, reduce_first: int = 1, scale: int = 4):  # fmt: skip
        super().__init__()
        if aa or reduce_first > 1:
            raise ValueError("Res2Net has no anti-aliased and no reduced form; leave aa and reduce_first out")
        self.width, out = int(dim * base_width / 64) * cardinality, dim * self.expansion
        self.is_first = stride > 1 or downsample is not None
        self.conv1 = nn.Conv2d(dim_in, self.width * scale, 1, bias=False)
        self.bn1 = norm(self.width * scale)
        convs = [conv3x3(self.width, self.width, stride, before, cardinality) for _ in range(scale - 1)]
        self.convs = nn.ModuleList(convs)
        self.bns = nn.ModuleList(norm(self.width) for _ in convs)
        self.drop_block = drop_block() or nn.Identity()
        self.pool = nn.AvgPool2d(3, stride, 1) if self.is_first else nn.Identity()
        self.conv3 = nn.Conv2d(self.width * scale, out, 1, bias=False)
        self.bn3 = norm(out)
        self.se = gate(out) if gate else nn.Identity()
        self.relu = act()
        self.downsample = downsample
        self.drop_path = drop_path_of(drop_path)

    def zero_init_last(self) -> None:
        zero_(self.bn3)

    def forward(self, x: Tensor) -> Tensor:
        shares = torch.split(self.relu(self.bn1(self.conv1(x))), self.width, 1)
        done: list[Tensor] = []
        for i, (conv, bn) in enumerate(zip(self.convs, self.bns)):
            share = shares[i] if i == 0 or self.is_first else shares[i] + done[-1]
            done.append(self.relu(bn(conv(share))))
        done.append(self.pool(shares[-1]))
        y = self.drop_block(torch.cat(done, 1))
        y = self.drop_path(self.se(self.bn3(self.conv3(y))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Res2Net(ResNet):
    """The options of `ResNet` but `block`, and `scale`, the number of shares.

    Args:
        scale: parts that a block's channels are split into
    """

    settled = ("block",)

    def __init__(self, scale: int = 4, base_width: int = 26, **options: Any):
        super().__init__(block=partial(Bottle2neck, scale=scale), base_width=base_width, **options)

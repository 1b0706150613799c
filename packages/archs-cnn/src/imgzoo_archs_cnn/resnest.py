"""ResNeSt: a ResNet whose 3x3 convolution is split and weighed by attention over the splits (arXiv:2004.08955)."""

from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from imgzoo_layers.drop import drop_path_of
from imgzoo_layers.gate import Gate
from imgzoo_layers.norm import Norm
from imgzoo_layers.util import Layer, make_divisible

from .resnet import MakeDrop, ResNet, conv3x3, zero_


class SplitAttention(nn.Module):
    """Make `radix` maps of each channel group and add them with learned weights: (B, C, H, W) -> (B, C, H, W).

    Radix 1 leaves one map, scaled by a sigmoid as squeeze-excite does.
    """

    def __init__(self, dim: int, dilation: int, cardinality: int, radix: int, norm: Norm,
                 drop_block: MakeDrop):  # fmt: skip
        super().__init__()
        self.radix, self.cardinality = radix, cardinality
        hidden = make_divisible(dim * radix / 4, 8, minimum=32, round_limit=0.0)
        self.conv = conv3x3(dim, dim * radix, 1, dilation, cardinality * radix)
        self.bn0 = norm(dim * radix)
        self.drop = drop_block() or nn.Identity()
        self.act0 = nn.ReLU(inplace=True)
        self.fc1 = nn.Conv2d(dim, hidden, 1, groups=cardinality)
        self.bn1 = norm(hidden)
        self.act1 = nn.ReLU(inplace=True)
        self.fc2 = nn.Conv2d(hidden, dim * radix, 1, groups=cardinality)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act0(self.drop(self.bn0(self.conv(x))))
        splits = x.unflatten(1, (self.radix, x.shape[1] // self.radix))  # (B, radix, C, H, W)
        weights = self.fc2(self.act1(self.bn1(self.fc1(splits.sum(1).mean((2, 3), keepdim=True)))))
        if self.radix == 1:
            return x * weights.sigmoid()
        weights = weights.flatten(1).unflatten(1, (self.cardinality, self.radix, -1))
        weights = weights.transpose(1, 2).softmax(1).flatten(2)  # (B, radix, C)
        return (splits * weights[..., None, None]).sum(1)


class Bottleneck(nn.Module):
    """1x1, split attention, 1x1 on a residual; the map is halved by average pooling, before the attention with
    `avd_first`: (B, C, H, W) -> (B, 4 dim, H/stride, W/stride)."""

    expansion = 4

    def __init__(self, dim_in: int, dim: int, stride: int, before: int, dilation: int, downsample: nn.Module | None,
                 norm: Norm, act: Layer, aa: str | None, gate: Gate | None, drop_block: MakeDrop, drop_path: float,
                 cardinality: int = 1, base_width: int = 64, reduce_first: int = 1, radix: int = 2,
                 avd_first: bool = False):  # fmt: skip
        super().__init__()
        if aa or gate or reduce_first > 1:
            raise ValueError("ResNeSt has its own attention and downsampling; leave aa, gate and reduce_first out")
        width, out = int(dim * base_width / 64) * cardinality, dim * self.expansion

        pool = nn.AvgPool2d(3, stride, 1) if stride > 1 else nn.Identity()
        self.conv1 = nn.Conv2d(dim_in, width, 1, bias=False)
        self.bn1 = norm(width)
        self.act1 = act()
        self.avd_first = pool if avd_first else nn.Identity()
        self.conv2 = SplitAttention(width, before, cardinality, radix, norm, drop_block)
        self.avd_last = nn.Identity() if avd_first else pool
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = norm(out)
        self.act3 = act()
        self.downsample = downsample
        self.drop_path = drop_path_of(drop_path)

    def zero_init_last(self) -> None:
        zero_(self.bn3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.avd_first(self.act1(self.bn1(self.conv1(x))))
        y = self.avd_last(self.conv2(y))
        y = self.drop_path(self.bn3(self.conv3(y)))
        return self.act3(y + (x if self.downsample is None else self.downsample(x)))


class ResNeSt(ResNet):
    """The options of `ResNet` but `block`; `radix` is the number of splits of each of the `cardinality` groups.

    Args:
        radix: maps of each group that are weighed against each other
        avd_first: average pool before, not behind, the 3x3 convolution
    """

    settled = ("block",)

    def __init__(self, radix: int = 2, avd_first: bool = False, stem: Literal["", "deep", "deep_tiered"] = "deep",
                 stem_width: int = 32, avg_down: bool = True, **options: Any):  # fmt: skip
        block = partial(Bottleneck, radix=radix, avd_first=avd_first)
        super().__init__(block=block, stem=stem, stem_width=stem_width, avg_down=avg_down, **options)

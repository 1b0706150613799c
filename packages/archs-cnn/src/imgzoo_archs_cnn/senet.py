"""Squeeze-and-excitation networks as first published (arXiv:1709.01507): SENet-154, SE-ResNet, SE-ResNeXt."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.gate import SqueezeExcite
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.init import init_fan_out_
from imgzoo_layers.pool import GlobalPool


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and the gate on a residual: (B, C, H, W) -> (B, dim, H/stride, W/stride)."""

    expansion = 1

    def __init__(self, dim_in: int, dim: int, stride: int, downsample: nn.Module | None):
        super().__init__()
        self.conv1 = nn.Conv2d(dim_in, dim, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(dim)
        self.relu = nn.ReLU(inplace=True)
        self.se_module = SqueezeExcite(dim, rd_channels=dim // 16)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.se_module(self.relu(self.bn2(self.conv2(y))))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


class Bottleneck(nn.Module):
    """1x1, 3x3 in groups, 1x1 and the gate on a residual: (B, C, H, W) -> (B, 4 dim, H/stride, W/stride).

    `widths` are those of the first two convolutions in multiples of dim; `stride_first` subsamples in the first.
    """

    expansion = 4

    def __init__(self, dim_in: int, dim: int, stride: int, downsample: nn.Module | None,
                 widths: tuple[int, int] = (1, 1), groups: int = 1, stride_first: bool = False):  # fmt: skip
        super().__init__()
        hidden, width, out = dim * widths[0], dim * widths[1], dim * self.expansion
        self.conv1 = nn.Conv2d(dim_in, hidden, 1, stride if stride_first else 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, width, 3, 1 if stride_first else stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True)
        self.se_module = SqueezeExcite(out, rd_channels=out // 16)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        y = self.se_module(self.bn3(self.conv3(y)))
        return self.relu(y + (x if self.downsample is None else self.downsample(x)))


BLOCK = {
    "basic": BasicBlock,
    "resnet": partial(Bottleneck, stride_first=True),
    "resnext": partial(Bottleneck, widths=(2, 2), groups=32),
    "senet": partial(Bottleneck, widths=(2, 4), groups=64),
}


class SENet(ImageModel):
    """Args:
    block: "senet", "resnet", "resnext" or "basic"
    stem: "" for one 7x7 convolution, "deep" for three 3x3
    stem_width: channels of the last of them
    """

    parts = Parts(
        stem=("layer0", "pool0"),
        stages=("layer1", "layer2", "layer3", "layer4"),
        pool="global_pool",
        head="last_linear",
    )
    layer_groups = {"stem": r"^layer0", "blocks": r"^layer(\d+)\.(\d+)", "coarse": r"^layer(\d+)"}

    def __init__(self, layers: Sequence[int] = (3, 4, 6, 3), block: str = "resnet", stem: Literal["", "deep"] = "",
                 stem_width: int = 64, down_kernel: int = 1, num_classes: int = 1000, in_chans: int = 3,
                 global_pool: str = "avg", drop_rate: float = 0.2):  # fmt: skip
        super().__init__(num_classes, in_chans)
        if len(layers) != 4 or down_kernel % 2 == 0:
            raise ValueError(f"layers has the blocks of 4 stages, not of {len(layers)}; down_kernel is odd")
        self.drop_rate = drop_rate
        self.layer0, dim = make_stem(stem, in_chans, stem_width)
        self.pool0 = nn.MaxPool2d(3, 2, ceil_mode=True)
        levels = [Feature(dim, 2, "layer0")]
        make = BLOCK[block]
        for i, depth in enumerate(layers):
            width, stage = 64 * 2**i, nn.Sequential()
            out = width * (1 if block == "basic" else 4)
            for j in range(depth):
                stride = 2 if i and not j else 1
                down = make_downsample(dim, out, stride, down_kernel if i else 1) if dim != out else None
                stage.append(make(dim, width, stride, down))
                dim = out
            setattr(self, f"layer{i + 1}", stage)
            levels.append(Feature(dim, 4 * 2**i, f"layer{i + 1}"))
        self.feature_info = FeatureInfo(levels)
        self.global_pool = GlobalPool(global_pool)
        self.num_features, self.head_hidden_size = dim, dim * self.global_pool.width
        self.last_linear = linear_or_none(self.head_hidden_size, num_classes)
        init_fan_out_(self)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        x = self.pool0(self.layer0(x))
        return self.layer4(self._before_stage(self.layer3(self.layer2(self.layer1(x)))))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = F.dropout(self.global_pool(x), self.drop_rate, self.training)
        return x if pre_logits else self.last_linear(x)


def make_stem(kind: str, in_chans: int, dim: int) -> tuple[nn.Sequential, int]:
    """Halve the image and tell the width: one 7x7 convolution, or three 3x3 ("deep")."""
    kernel, widths = (3, [64, 64, dim]) if kind == "deep" else (7, [dim])
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, width in enumerate(widths, 1):
        layers[f"conv{i}"] = nn.Conv2d(in_chans, width, kernel, 2 if i == 1 else 1, kernel // 2, bias=False)
        layers[f"bn{i}"] = nn.BatchNorm2d(width)
        layers[f"relu{i}"] = nn.ReLU(inplace=True)
        in_chans = width
    return nn.Sequential(layers), in_chans


def make_downsample(dim: int, dim_out: int, stride: int, kernel: int) -> nn.Sequential:
    conv = nn.Conv2d(dim, dim_out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(dim_out))

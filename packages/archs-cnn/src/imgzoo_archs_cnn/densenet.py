"""DenseNet: every layer sees the maps of all layers before it (arXiv:1608.06993)."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.drop import dropout_of
from imgzoo_layers.exchange import Acts, Norms
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.norm_act import BatchNormAct2d
from imgzoo_layers.pool import GlobalPool, create_aa


class DenseLayer(nn.Module):
    """All earlier maps of the block, joined, to `growth` new channels through a 1x1 bottleneck of four times that."""

    def __init__(self, dim_in: int, growth: int, bn_size: int, drop: float):
        super().__init__()
        hidden = bn_size * growth
        self.norm1 = BatchNormAct2d(dim_in)
        self.conv1 = nn.Conv2d(dim_in, hidden, 1, bias=False)
        self.norm2 = BatchNormAct2d(hidden)
        self.conv2 = nn.Conv2d(hidden, growth, 3, padding=1, bias=False)
        self.drop = dropout_of(drop)

    def forward(self, maps: list[Tensor]) -> Tensor:
        x = self.conv1(self.norm1(torch.cat(maps, 1)))
        return self.drop(self.conv2(self.norm2(x)))


class DenseBlock(nn.Sequential):
    """(B, C, H, W) -> (B, C + layers * growth, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        maps = [x]
        for layer in self:
            maps = maps + [layer(maps)]  # a new list, since checkpointing runs the layer again on the old one
        return torch.cat(maps, 1)


class Transition(nn.Module):
    """Halve channels and size: (B, C, H, W) -> (B, C/2, H/2, W/2)."""

    def __init__(self, dim: int, aa: str | None = None):
        super().__init__()
        self.norm = BatchNormAct2d(dim)
        self.conv = nn.Conv2d(dim, dim // 2, 1, bias=False)
        self.pool = create_aa(aa, dim // 2) if aa else nn.AvgPool2d(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.conv(self.norm(x)))


class DenseNet(ImageModel):
    """Args:
    growth: channels that each layer adds
    bn_size: hidden channels of a layer as a multiple of those
    aa_stem_only: smooth what the stem pools, not what transitions do
    stem: "" for one 7x7 convolution, "deep" or "deep_tiered" for three 3x3
    """

    exchanged = (Acts("relu"), Norms("batchnorm"))
    norms_act = True
    parts = Parts(stem=(), stages=("features",), pool="global_pool", head="classifier")
    layer_groups = {
        "stem": r"^features\.(?:conv|norm)[012]\.",
        "blocks": [(r"^features\.denseblock(\d+)\.denselayer(\d+)", None), (r"^features\.transition(\d+)", (99999,))],
        "coarse": r"^features\.(?:denseblock|transition)(\d+)",
    }

    def __init__(self, depths: Sequence[int] = (6, 12, 24, 16), growth: int = 32, bn_size: int = 4,
                 stem: Literal["", "deep", "deep_tiered"] = "", aa: str | None = None, aa_stem_only: bool = True,
                 num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0,
                 proj_drop_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.drop_rate = drop_rate
        dim = 2 * growth
        layers = make_stem(stem, in_chans, growth, dim)
        levels, reached = [Feature(dim, 2, f"features.{next(reversed(layers))}")], 4
        pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), create_aa(aa, dim)) if aa else nn.MaxPool2d(3, 2, 1)
        layers["pool0"] = pool
        for i, depth in enumerate(depths, 1):
            if i > 1:
                layers[f"transition{i - 1}"] = Transition(dim, None if aa_stem_only else aa)
                dim, reached = dim // 2, reached * 2
            block = DenseBlock()
            for j in range(depth):
                block.add_module(f"denselayer{j + 1}", DenseLayer(dim + j * growth, growth, bn_size, proj_drop_rate))
            layers[f"denseblock{i}"] = block
            dim += depth * growth
            levels.append(Feature(dim, reached, f"features.denseblock{i}"))
        layers["norm5"] = BatchNormAct2d(dim)
        levels[-1] = levels[-1]._replace(module="features.norm5")
        self.features = nn.Sequential(layers)
        self.feature_info = FeatureInfo(levels)
        self.global_pool = GlobalPool(global_pool)
        self.num_features, self.head_hidden_size = dim, dim * self.global_pool.width
        self.classifier = linear_or_none(self.head_hidden_size, num_classes)
        init_(self)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.features(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = F.dropout(self.global_pool(x), self.drop_rate, self.training)
        return x if pre_logits else self.classifier(x)

    def _blocks(self) -> list[nn.Module]:
        """The layers of the dense blocks: each keeps a joint copy of all maps before it."""
        return [layer for stage in self.features if isinstance(stage, DenseBlock) for layer in stage]


def make_stem(kind: str, in_chans: int, growth: int, dim: int) -> OrderedDict[str, nn.Module]:
    """Halve the image: one 7x7 convolution, or three 3x3 ("deep")."""
    first = 3 * (growth // 4) if kind == "deep_tiered" else growth
    second = 2 * first if kind == "deep_tiered" else growth
    kernel, widths = (3, [first, second, dim]) if kind else (7, [dim])
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, width in enumerate(widths):
        layers[f"conv{i}"] = nn.Conv2d(in_chans, width, kernel, 1 if i else 2, kernel // 2, bias=False)
        layers[f"norm{i}"] = BatchNormAct2d(width)
        in_chans = width
    return layers


def init_(model: nn.Module) -> None:
    """Convolutions normal by fan-in, no bias in the classifier."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.zeros_(module.bias)

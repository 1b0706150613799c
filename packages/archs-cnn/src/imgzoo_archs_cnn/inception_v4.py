"""Inception-v4: the same branches everywhere, also in the stem (arXiv:1602.07261, figures 3 to 9)."""

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, Parts
from imgzoo_layers.exchange import Acts, Norms

from .inception_blocks import Branches, ConvUnit, InceptionModel, branches, chain, pooled


class InceptionC(nn.Module):
    """1x1, 3x3 and a deep 3x3 that end in both a 1x3 and a 3x1, pool (figure 6): (B, 1536, H, W), kept."""

    def __init__(self, dim: int = 1536):
        super().__init__()
        self.branch0 = ConvUnit(dim, 256, 1)
        self.branch1_0 = ConvUnit(dim, 384, 1)
        self.branch1_1a = ConvUnit(384, 256, (1, 3))
        self.branch1_1b = ConvUnit(384, 256, (3, 1))
        self.branch2_0 = ConvUnit(dim, 384, 1)
        self.branch2_1 = ConvUnit(384, 448, (3, 1))
        self.branch2_2 = ConvUnit(448, 512, (1, 3))
        self.branch2_3a = ConvUnit(512, 256, (1, 3))
        self.branch2_3b = ConvUnit(512, 256, (3, 1))
        self.branch3 = pooled(dim, 256)

    def forward(self, x: Tensor) -> Tensor:
        y, z = self.branch1_0(x), self.branch2_2(self.branch2_1(self.branch2_0(x)))
        return torch.cat([
            self.branch0(x),
            self.branch1_1a(y),
            self.branch1_1b(y),
            self.branch2_3a(z),
            self.branch2_3b(z),
            self.branch3(x),
        ], 1)  # fmt: skip


def inception_a(dim: int = 384) -> Branches:
    """1x1, 3x3, two 3x3, pool (figure 4): (B, 384, H, W), kept."""
    three, double = chain(dim, (64, 1), (96, 3)), chain(dim, (64, 1), (96, 3), (96, 3))
    return branches(ConvUnit(dim, 96, 1), three, double, pooled(dim, 96))


def inception_b(dim: int = 1024) -> Branches:
    """1x1, 7x7 and two 7x7 as 1x7 and 7x1, pool (figure 5): (B, 1024, H, W), kept."""
    seven = chain(dim, (192, 1), (224, (1, 7)), (256, (7, 1)))
    double = chain(dim, (192, 1), (192, (7, 1)), (224, (1, 7)), (224, (7, 1)), (256, (1, 7)))
    return branches(ConvUnit(dim, 384, 1), seven, double, pooled(dim, 128))


def reduction_a(dim: int = 384) -> Branches:
    """Halve the map: (B, 384, H, W) -> (B, 1024, H/2, W/2) (figure 7)."""
    return branches(ConvUnit(dim, 384, 3, 2), chain(dim, (192, 1), (224, 3), (256, 3, 2)), nn.MaxPool2d(3, 2))


def reduction_b(dim: int = 1024) -> Branches:
    """Halve the map: (B, 1024, H, W) -> (B, 1536, H/2, W/2) (figure 8)."""
    three = chain(dim, (192, 1), (192, 3, 2))
    seven = chain(dim, (256, 1), (256, (1, 7)), (320, (7, 1)), (320, 3, 2))
    return branches(three, seven, nn.MaxPool2d(3, 2))


def make_stem(in_chans: int) -> list[nn.Module]:
    """(B, 3, H, W) -> (B, 384, H/8, W/8) (figure 3)."""
    return [
        ConvUnit(in_chans, 32, 3, 2),
        ConvUnit(32, 32, 3, valid=True),
        ConvUnit(32, 64, 3),
        Branches({"maxpool": nn.MaxPool2d(3, 2), "conv": ConvUnit(64, 96, 3, 2)}),
        branches(
            chain(160, (64, 1), (96, 3, 1, True)),
            chain(160, (64, 1), (64, (1, 7)), (64, (7, 1)), (96, 3, 1, True)),
        ),
        Branches({"conv": ConvUnit(192, 192, 3, 2), "maxpool": nn.MaxPool2d(3, 2)}),
    ]


class InceptionV4(InceptionModel):
    parts = Parts(stem=(), stages=("features",), pool="global_pool", head="last_linear")
    exchanged = (Acts("relu"), Norms("batchnorm", options=("eps",)), Norms("batchnorm", options=("norm",)))
    layer_groups = {"stem": r"^features\.[012]\.", "blocks": r"^features\.(\d+)"}

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0):
        super().__init__(num_classes, in_chans)
        blocks = make_stem(in_chans)
        blocks += [inception_a() for _ in range(4)] + [reduction_a()]
        blocks += [inception_b() for _ in range(7)] + [reduction_b()]
        blocks += [InceptionC() for _ in range(3)]
        self.features = nn.Sequential(*blocks)
        self.feature_info = FeatureInfo([
            Feature(64, 2, "features.2"),
            Feature(160, 4, "features.3"),
            Feature(384, 8, "features.9"),
            Feature(1024, 16, "features.17"),
            Feature(1536, 32, "features.21"),
        ])  # fmt: skip
        self._add_head(1536, num_classes, global_pool, drop_rate)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, 299, 299) -> (B, 1536, 8, 8)
        return self.features(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self._pooled(x)
        return x if pre_logits else self.last_linear(x)

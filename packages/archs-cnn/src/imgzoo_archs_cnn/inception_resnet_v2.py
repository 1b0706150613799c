"""Inception-ResNet-v2: Inception branches on scaled residuals (arXiv:1602.07261, figures 10 to 18)."""

from typing import Any

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, Parts
from imgzoo_layers.exchange import Acts, Norms

from .inception_blocks import ConvUnit, InceptionModel, branches, chain, pooled


class Residual(nn.Module):
    """Branches joined by a 1x1, scaled, added to the map, ReLU (without it if `last`): (B, dim, H, W), kept.

    Small scales keep wide residual networks stable (section 3.3).
    """

    def __init__(self, dim: int, width: int, scale: float, *parts: nn.Module, last: bool = False):
        super().__init__()
        self.branch0, self.branch1 = parts[0], parts[1]
        self.branch2 = parts[2] if len(parts) > 2 else None
        self.conv2d = nn.Conv2d(width, dim, 1)
        self.act = nn.Identity() if last else nn.ReLU(inplace=True)
        self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        found = [self.branch0(x), self.branch1(x)]
        if self.branch2 is not None:
            found.append(self.branch2(x))
        return self.act(x + self.scale * self.conv2d(torch.cat(found, 1)))


def block35(dim: int = 320) -> Residual:
    """1x1, 3x3, two 3x3 (figure 16)."""
    three, double = chain(dim, (32, 1), (32, 3)), chain(dim, (32, 1), (48, 3), (64, 3))
    return Residual(dim, 128, 0.17, ConvUnit(dim, 32, 1), three, double)


def block17(dim: int = 1088) -> Residual:
    """1x1, 7x7 as 1x7 and 7x1 (figure 17)."""
    seven = chain(dim, (128, 1), (160, (1, 7)), (192, (7, 1)))
    return Residual(dim, 384, 0.1, ConvUnit(dim, 192, 1), seven)


def block8(dim: int = 2080, scale: float = 0.2, last: bool = False) -> Residual:
    """1x1, 3x3 as 1x3 and 3x1 (figure 19)."""
    three = chain(dim, (192, 1), (224, (1, 3)), (256, (3, 1)))
    return Residual(dim, 448, scale, ConvUnit(dim, 192, 1), three, last=last)


class InceptionResnetV2(InceptionModel):
    parts = Parts(
        stem=("conv2d_1a", "conv2d_2a", "conv2d_2b", "maxpool_3a", "conv2d_3b", "conv2d_4a", "maxpool_5a"),
        stages=("mixed_5b", "repeat", "mixed_6a", "repeat_1", "mixed_7a", "repeat_2", "block8", "conv2d_7b"),
        pool="global_pool",
        head="classif",
    )
    exchanged = (
        Acts("relu", ("!repeat*.[0-9].act", "!repeat*.[0-9][0-9].act")),
        Norms("batchnorm", options=("eps",)),
        Norms("batchnorm", options=("norm",)),
    )

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0):
        super().__init__(num_classes, in_chans)
        self.conv2d_1a = ConvUnit(in_chans, 32, 3, 2)
        self.conv2d_2a = ConvUnit(32, 32, 3, valid=True)
        self.conv2d_2b = ConvUnit(32, 64, 3)
        self.maxpool_3a = nn.MaxPool2d(3, 2)
        self.conv2d_3b = ConvUnit(64, 80, 1)
        self.conv2d_4a = ConvUnit(80, 192, 3, valid=True)
        self.maxpool_5a = nn.MaxPool2d(3, 2)
        five, double = chain(192, (48, 1), (64, 5)), chain(192, (64, 1), (96, 3), (96, 3))
        self.mixed_5b = branches(ConvUnit(192, 96, 1), five, double, pooled(192, 64))
        self.repeat = nn.Sequential(*(block35() for _ in range(10)))
        double = chain(320, (256, 1), (256, 3), (384, 3, 2))
        self.mixed_6a = branches(ConvUnit(320, 384, 3, 2), double, nn.MaxPool2d(3, 2))
        self.repeat_1 = nn.Sequential(*(block17() for _ in range(20)))
        wide, narrow = chain(1088, (256, 1), (384, 3, 2)), chain(1088, (256, 1), (288, 3, 2))
        double = chain(1088, (256, 1), (288, 3), (320, 3, 2))
        self.mixed_7a = branches(wide, narrow, double, nn.MaxPool2d(3, 2))
        self.repeat_2 = nn.Sequential(*(block8() for _ in range(9)))
        self.block8 = block8(scale=1.0, last=True)
        self.conv2d_7b = ConvUnit(2080, 1536, 1)
        self.feature_info = FeatureInfo([
            Feature(64, 2, "conv2d_2b"),
            Feature(192, 4, "conv2d_4a"),
            Feature(320, 8, "repeat"),
            Feature(1088, 16, "repeat_1"),
            Feature(1536, 32, "conv2d_7b"),
        ])  # fmt: skip
        self._add_head(1536, num_classes, global_pool, drop_rate)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, 299, 299) -> (B, 1536, 8, 8)
        x = self.maxpool_3a(self.conv2d_2b(self.conv2d_2a(self.conv2d_1a(x))))
        x = self.maxpool_5a(self.conv2d_4a(self.conv2d_3b(x)))
        x = self.repeat(self.mixed_5b(x))
        x = self.repeat_1(self.mixed_6a(x))
        x = self.repeat_2(self.mixed_7a(x))
        return self.conv2d_7b(self.block8(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self._pooled(x)
        return x if pre_logits else self.classif(x)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {
            "stem": r"^conv2d_[12]",
            "blocks": r"^conv2d_[34]",
            "mixed_5b": r"^mixed_5b",
            "repeat": r"^repeat\.(\d+)",
            "mixed_6a": r"^mixed_6a",
            "repeat_1": r"^repeat_1\.(\d+)",
            "mixed_7a": r"^mixed_7a",
            "repeat_2": r"^repeat_2\.(\d+)",
            "block8": r"^block8|^conv2d_7b",
        }

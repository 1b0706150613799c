"""Inception-v3: large kernels factorized into small and one-sided ones (arXiv:1512.00567)."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import Feature, FeatureInfo, Parts
from imgzoo_layers.exchange import Acts, Norms
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.init import trunc_normal_

from .inception_blocks import ConvUnit, InceptionModel


def mean3x3(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, 3, 1, 1)


class InceptionA(nn.Module):
    """1x1, 5x5, two 3x3, pool (figure 5): (B, dim, H, W) -> (B, 224 + dim_pool, H, W)."""

    def __init__(self, dim: int, dim_pool: int):
        super().__init__()
        self.branch1x1 = ConvUnit(dim, 64, 1)
        self.branch5x5_1 = ConvUnit(dim, 48, 1)
        self.branch5x5_2 = ConvUnit(48, 64, 5)
        self.branch3x3dbl_1 = ConvUnit(dim, 64, 1)
        self.branch3x3dbl_2 = ConvUnit(64, 96, 3)
        self.branch3x3dbl_3 = ConvUnit(96, 96, 3)
        self.branch_pool = ConvUnit(dim, dim_pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(mean3x3(x))], 1)


class InceptionB(nn.Module):
    """Halve the map: 3x3, two 3x3, pool (figure 10): (B, dim, H, W) -> (B, 480 + dim, H/2, W/2)."""

    def __init__(self, dim: int):
        super().__init__()
        self.branch3x3 = ConvUnit(dim, 384, 3, 2)
        self.branch3x3dbl_1 = ConvUnit(dim, 64, 1)
        self.branch3x3dbl_2 = ConvUnit(64, 96, 3)
        self.branch3x3dbl_3 = ConvUnit(96, 96, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class InceptionC(nn.Module):
    """1x1, 7x7 and two 7x7 as 1x7 and 7x1, pool (figure 6): (B, 768, H, W) -> (B, 768, H, W)."""

    def __init__(self, hidden: int, dim: int = 768):
        super().__init__()
        self.branch1x1 = ConvUnit(dim, 192, 1)
        self.branch7x7_1 = ConvUnit(dim, hidden, 1)
        self.branch7x7_2 = ConvUnit(hidden, hidden, (1, 7))
        self.branch7x7_3 = ConvUnit(hidden, 192, (7, 1))
        self.branch7x7dbl_1 = ConvUnit(dim, hidden, 1)
        self.branch7x7dbl_2 = ConvUnit(hidden, hidden, (7, 1))
        self.branch7x7dbl_3 = ConvUnit(hidden, hidden, (1, 7))
        self.branch7x7dbl_4 = ConvUnit(hidden, hidden, (7, 1))
        self.branch7x7dbl_5 = ConvUnit(hidden, 192, (1, 7))
        self.branch_pool = ConvUnit(dim, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(mean3x3(x))], 1)


class InceptionD(nn.Module):
    """Halve the map: 3x3, 7x7 and 3x3, pool: (B, dim, H, W) -> (B, 512 + dim, H/2, W/2)."""

    def __init__(self, dim: int):
        super().__init__()
        self.branch3x3_1 = ConvUnit(dim, 192, 1)
        self.branch3x3_2 = ConvUnit(192, 320, 3, 2)
        self.branch7x7x3_1 = ConvUnit(dim, 192, 1)
        self.branch7x7x3_2 = ConvUnit(192, 192, (1, 7))
        self.branch7x7x3_3 = ConvUnit(192, 192, (7, 1))
        self.branch7x7x3_4 = ConvUnit(192, 192, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([three, self.branch7x7x3_4(seven), F.max_pool2d(x, 3, 2)], 1)


class InceptionE(nn.Module):
    """1x1, 3x3 and two 3x3 that end in both a 1x3 and a 3x1, pool (figure 7): (B, dim, H, W) -> (B, 2048, H, W)."""

    def __init__(self, dim: int):
        super().__init__()
        self.branch1x1 = ConvUnit(dim, 320, 1)
        self.branch3x3_1 = ConvUnit(dim, 384, 1)
        self.branch3x3_2a = ConvUnit(384, 384, (1, 3))
        self.branch3x3_2b = ConvUnit(384, 384, (3, 1))
        self.branch3x3dbl_1 = ConvUnit(dim, 448, 1)
        self.branch3x3dbl_2 = ConvUnit(448, 384, 3)
        self.branch3x3dbl_3a = ConvUnit(384, 384, (1, 3))
        self.branch3x3dbl_3b = ConvUnit(384, 384, (3, 1))
        self.branch_pool = ConvUnit(dim, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        y, z = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        return torch.cat([
            self.branch1x1(x),
            self.branch3x3_2a(y),
            self.branch3x3_2b(y),
            self.branch3x3dbl_3a(z),
            self.branch3x3dbl_3b(z),
            self.branch_pool(mean3x3(x)),
        ], 1)  # fmt: skip


STEM = ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "Pool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3", "Pool2")
MIXED = {
    "Mixed_5b": lambda: InceptionA(192, 32),
    "Mixed_5c": lambda: InceptionA(256, 64),
    "Mixed_5d": lambda: InceptionA(288, 64),
    "Mixed_6a": lambda: InceptionB(288),
    "Mixed_6b": lambda: InceptionC(128),
    "Mixed_6c": lambda: InceptionC(160),
    "Mixed_6d": lambda: InceptionC(160),
    "Mixed_6e": lambda: InceptionC(192),
    "Mixed_7a": lambda: InceptionD(768),
    "Mixed_7b": lambda: InceptionE(1280),
    "Mixed_7c": lambda: InceptionE(2048),
}


class Auxiliary(nn.Module):
    """A classifier beside the network (figure 8): (B, dim, H, W) -> (B, classes)."""

    def __init__(self, dim: int, num_classes: int):
        super().__init__()
        self.conv0 = ConvUnit(dim, 128, 1)
        self.conv1 = ConvUnit(128, 768, 5, valid=True)
        self.fc = linear_or_none(768, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.avg_pool2d(x, 5, 3)  # (B, 768, 17, 17) -> (B, 768, 5, 5)
        return self.fc(self.conv1(self.conv0(x)).mean((2, 3)))


class InceptionV3(InceptionModel):
    """With `aux_logits`, `forward` in training gives (logits, logits of the auxiliary classifier), for a loss with a
    share of the latter (0.4 in the paper); the classifier itself alone is what `get_classifier` names.

    Args:
        aux_logits: a classifier on the maps of stride 16, which training alone asks
    """

    exchanged = (Acts("relu"), Norms("batchnorm", options=("eps",)), Norms("batchnorm", options=("norm",)))
    parts = Parts(stem=STEM, stages=tuple(MIXED), pool="global_pool", head="fc", tail=("AuxLogits",))

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0,
                 aux_logits: bool = False):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.Conv2d_1a_3x3 = ConvUnit(in_chans, 32, 3, 2)
        self.Conv2d_2a_3x3 = ConvUnit(32, 32, 3, valid=True)
        self.Conv2d_2b_3x3 = ConvUnit(32, 64, 3)
        self.Pool1 = nn.MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = ConvUnit(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvUnit(80, 192, 3, valid=True)
        self.Pool2 = nn.MaxPool2d(3, 2)
        for name, make in MIXED.items():
            setattr(self, name, make())
            if name == "Mixed_6e":
                self.AuxLogits = Auxiliary(768, num_classes) if aux_logits else None
        self.feature_info = FeatureInfo([
            Feature(64, 2, "Conv2d_2b_3x3"),
            Feature(192, 4, "Conv2d_4a_3x3"),
            Feature(288, 8, "Mixed_5d"),
            Feature(768, 16, "Mixed_6e"),
            Feature(2048, 32, "Mixed_7c"),
        ])  # fmt: skip
        self._add_head(2048, num_classes, global_pool, drop_rate)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                trunc_normal_(module.weight, std=0.1)

    def forward(self, x: Tensor) -> Any:
        x = self.half(x)
        logits = self.forward_head(self.rest(x))
        return (logits, self.AuxLogits(x)) if self.AuxLogits is not None and self.training else logits

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        super().reset_classifier(num_classes, global_pool)
        if isinstance(self.AuxLogits, Auxiliary):
            like = self.AuxLogits.conv0.conv.weight
            self.AuxLogits.fc = linear_or_none(768, num_classes).to(like.device, like.dtype)
        else:  # none, or the head was taken off
            self.AuxLogits = None

    def half(self, x: Tensor) -> Tensor:
        """(B, 3, 299, 299) -> (B, 768, 17, 17)."""
        x = self.Pool1(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))
        x = self.Pool2(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))
        x = self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x)))
        x = self.Mixed_6c(self.Mixed_6b(self.Mixed_6a(x)))
        return self.Mixed_6e(self.Mixed_6d(x))

    def rest(self, x: Tensor) -> Tensor:
        """(B, 768, 17, 17) -> (B, 2048, 8, 8)."""
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x)))

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, 299, 299) -> (B, 2048, 8, 8)
        return self.rest(self.half(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self._pooled(x)
        return x if pre_logits else self.fc(x)

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {"stem": r"^Conv2d_[12]", "blocks": r"^Conv2d_[34]", **{name: f"^{name}" for name in MIXED}}

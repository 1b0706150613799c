"""Dual path networks: each block adds to a residual path and appends to a dense one (arXiv:1707.01629)."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.conv import ConvNormAct
from imgzoo_layers.exchange import Norms
from imgzoo_layers.head import ConvClassifier
from imgzoo_layers.norm_act import BatchNormAct2d
from imgzoo_layers.pool import GlobalPool

EPS = 1e-3


class NormActConv(nn.Module):
    """Norm, activation, convolution: (B, C, H, W) -> (B, dim_out, H/stride, W/stride)."""

    def __init__(self, dim: int, dim_out: int, kernel: int, stride: int = 1, groups: int = 1):
        super().__init__()
        self.bn = BatchNormAct2d(dim, eps=EPS)
        self.conv = nn.Conv2d(dim, dim_out, kernel, stride, kernel // 2, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.bn(x))


class NormAct(nn.Module):
    def __init__(self, dim: int, act: str = "relu"):
        super().__init__()
        self.bn = BatchNormAct2d(dim, eps=EPS, act=act)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(x)


class DualPathBlock(nn.Module):
    """(B, C, H, W), `dim` residual channels before the dense ones -> (B, C', H/stride, W/stride), `grow` more dense.

    The first block of a stage projects its input to `dim` + 2 `grow` channels. With `apart` (the "b" forms) the last
    norm and activation are shared by a convolution for each path.
    """

    def __init__(self, dim_in: int, dim: int, hidden: int, grow: int, groups: int, stride: int, first: bool,
                 apart: bool):  # fmt: skip
        super().__init__()
        self.dim = dim
        project = NormActConv(dim_in, dim + 2 * grow, 1, stride) if first else None
        self.c1x1_w_s1 = project if stride == 1 else None
        self.c1x1_w_s2 = project if stride == 2 else None
        self.c1x1_a = NormActConv(dim_in, hidden, 1)
        self.c3x3_b = NormActConv(hidden, hidden, 3, stride, groups)
        self.c1x1_c = NormAct(hidden) if apart else NormActConv(hidden, dim + grow, 1)
        self.c1x1_c1 = nn.Conv2d(hidden, dim, 1, bias=False) if apart else None
        self.c1x1_c2 = nn.Conv2d(hidden, grow, 1, bias=False) if apart else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.c1x1_c(self.c3x3_b(self.c1x1_a(x)))
        if self.c1x1_c1 is not None and self.c1x1_c2 is not None:
            add, new = self.c1x1_c1(y), self.c1x1_c2(y)
        else:
            add, new = y[:, : self.dim], y[:, self.dim :]
        if self.c1x1_w_s1 is not None:
            x = self.c1x1_w_s1(x)
        if self.c1x1_w_s2 is not None:
            x = self.c1x1_w_s2(x)
        return torch.cat([x[:, : self.dim] + add, x[:, self.dim :], new], 1)


class DPN(ImageModel):
    """Args:
    grow: channels that the dense path gains in each block, by stage
    width: residual channels of the first stage
    hidden: channels of the first stage's 3x3 convolutions
    apart: two convolutions instead of one make residual and dense channels
    """

    exchanged = (Norms("batchnorm", ("features.conv1_1.bn", "features.conv5_bn_ac.bn"), options=("norm",)),)
    reads_maps = True
    parts = Parts(stem=(), stages=("features",), pool="global_pool", head="classifier")
    layer_groups = {
        "stem": r"^features\.conv1",
        "blocks": [(r"^features\.conv(\d+)_(\d+)", None), (r"^features\.conv5_bn_ac", (99999,))],
        "coarse": [(r"^features\.conv(\d+)", None), (r"^features\.conv5_bn_ac", (99999,))],
    }

    def __init__(self, depths: Sequence[int] = (3, 4, 20, 3), grow: Sequence[int] = (16, 32, 24, 128),
                 stem_width: int = 64, stem_kernel: int = 7, width: int = 256, hidden: int = 96, groups: int = 32,
                 apart: bool = False, act: str = "relu", num_classes: int = 1000, in_chans: int = 3,
                 global_pool: str = "avg", drop_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.drop_rate = drop_rate
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["conv1_1"] = ConvNormAct(
            in_chans, stem_width, stem_kernel, 2, norm=partial(BatchNormAct2d, eps=EPS, act=act)
        )
        layers["conv1_pool"] = nn.MaxPool2d(3, 2, 1)
        levels, dim = [Feature(stem_width, 2, "features.conv1_1")], stem_width
        for i, depth in enumerate(depths):
            out, inside, name = width * 2**i, hidden * 2**i, ""
            for j in range(depth):
                name, stride = f"conv{i + 2}_{j + 1}", 2 if i and not j else 1
                layers[name] = DualPathBlock(dim, out, inside, grow[i], groups, stride, j == 0, apart)
                dim = (out + 2 * grow[i] if j == 0 else dim) + grow[i]
            levels.append(Feature(dim, 4 * 2**i, f"features.{name}"))
        layers["conv5_bn_ac"] = NormAct(dim, act)
        self.features = nn.Sequential(layers)
        self.feature_info = FeatureInfo(levels)
        self.global_pool = GlobalPool(global_pool)
        self.num_features = dim
        self.head_hidden_size = dim * self.global_pool.width
        self.classifier = ConvClassifier(self.head_hidden_size, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.features(x)

    def _level_norm(self, index: int) -> nn.Module | None:
        return getattr(self.features, "conv5_bn_ac", None) if index == len(self.feature_info) - 1 else None

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = F.dropout(self.global_pool(x), self.drop_rate, self.training)
        if getattr(self.global_pool, "kind", "own") != "":
            x = x.flatten(1)
        return x if pre_logits else self.classifier(x)

    def _new_classifier(self, num_classes: int, bias: bool) -> nn.Module:
        return ConvClassifier(self.head_hidden_size, num_classes, bias)

"""PP-HGNet and V2, the backbone of RT-DETR (arXiv:2304.08069): blocks join the outputs of a row of convolutions."""

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import Feature, FeatureInfo, ImageModel
from imgzoo_layers.conv import Pointwise2d, create_conv
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.hidden_head import HiddenHead, HiddenPool
from imgzoo_layers.init import init_fan_out_
from imgzoo_layers.norm_act import BatchNormAct2d
from imgzoo_layers.stage import Stage


class Affine(nn.Module):
    """One learned scale and shift for the whole map."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x + self.bias


class ConvAct(nn.Sequential):
    """Convolution, norm, and ReLU if asked for, then a learned affine with `lab`: keys `conv`, `bn`, `lab`."""

    def __init__(self, dim: int, dim_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = True,
                 lab: bool = False):  # fmt: skip
        super().__init__()
        self.conv = create_conv(dim, dim_out, kernel, stride, 0 if kernel == 2 else "", groups=groups)
        self.bn = BatchNormAct2d(dim_out, apply_act=act)
        if act and lab:
            self.lab = Affine()


class Gate(nn.Module):
    """Effective squeeze-excite (arXiv:1911.06667) with the key `conv`."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv = Pointwise2d(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.conv(x.mean((2, 3), keepdim=True)).sigmoid()


class Stem(nn.Module):
    """Three 3x3 and a pool: (B, 3, H, W) -> (B, C, H/4, W/4)."""

    def __init__(self, dims: Sequence[int]):
        super().__init__()
        layers = [ConvAct(a, b, 3, 1 if i else 2) for i, (a, b) in enumerate(pairwise(dims))]
        self.stem = nn.Sequential(*layers)
        self.pool = nn.MaxPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.stem(x))


class StemV2(nn.Module):
    """Two 2x2 convolutions beside a pool between strided 3x3: (B, 3, H, W) -> (B, C, H/4, W/4)."""

    def __init__(self, dims: Sequence[int], lab: bool):
        super().__init__()
        in_chans, dim, dim_out = dims
        self.stem1 = ConvAct(in_chans, dim, 3, 2, lab=lab)
        self.stem2a = ConvAct(dim, dim // 2, 2, lab=lab)
        self.stem2b = ConvAct(dim // 2, dim, 2, lab=lab)
        self.stem3 = ConvAct(2 * dim, dim, 3, 2, lab=lab)
        self.stem4 = ConvAct(dim, dim_out, lab=lab)
        self.pool = nn.MaxPool2d(2, 1, ceil_mode=True)

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(self.stem1(x), (0, 1, 0, 1))
        y = self.stem2b(F.pad(self.stem2a(x), (0, 1, 0, 1)))
        return self.stem4(self.stem3(torch.cat([self.pool(x), y], dim=1)))


class Block(nn.Module):
    """A row of convolutions, all outputs and the input joined and reduced: (B, C, H, W) -> (B, dim, H, W).

    `light` makes each a 1x1 and a depthwise one.
    """

    def __init__(self, dim_in: int, hidden: int, dim: int, layers: int, kernel: int, light: bool, v2: bool, lab: bool,
                 residual: bool, drop_path: float):  # fmt: skip
        super().__init__()
        self.residual = residual
        widths = [dim_in] + [hidden] * layers
        if light:
            self.layers = nn.ModuleList(
                nn.Sequential(OrderedDict(conv1=ConvAct(width, hidden, act=False),
                                          conv2=ConvAct(hidden, hidden, kernel, groups=hidden, lab=lab)))
                for width in widths[:-1]
            )  # fmt: skip
        else:
            self.layers = nn.ModuleList(ConvAct(width, hidden, kernel, lab=lab) for width in widths[:-1])
        total = sum(widths)
        if v2:
            self.aggregation = nn.Sequential(ConvAct(total, dim // 2, lab=lab), ConvAct(dim // 2, dim, lab=lab))
        else:
            self.aggregation = nn.Sequential(ConvAct(total, dim, lab=lab), Gate(dim))
        self.drop_path = drop_path_of(drop_path if residual else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        y, outputs = x, [x]
        for layer in self.layers:
            y = layer(y)
            outputs.append(y)
        y = self.aggregation(torch.cat(outputs, dim=1))
        return self.drop_path(y) + x if self.residual else y


class Head(nn.Module):
    """Pool, a hidden 1x1 convolution, dropout, linear: (B, C, H, W) -> (B, classes)."""

    def __init__(self, dim: int, hidden: int, num_classes: int, pool: str, drop_rate: float, lab: bool):
        super().__init__()
        self.global_pool = HiddenPool(pool)
        self.last_conv = nn.Sequential(Pointwise2d(dim, hidden, False), nn.ReLU(), *([Affine()] if lab else []))
        self.drop = nn.Dropout(drop_rate)
        self.fc = linear_or_none(hidden, num_classes)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.global_pool(x)
        if getattr(self.global_pool, "kind", "own") == "":  # the classifier looks at every position
            x = self.drop(self.last_conv(x)).permute(0, 2, 3, 1)
            return (x if pre_logits else self.fc(x)).permute(0, 3, 1, 2)
        x = self.drop(self.last_conv(x.flatten(1)[:, :, None, None]).flatten(1))
        return x if pre_logits else self.fc(x)


class HighPerfGpuNet(HiddenHead, ImageModel):
    """`lab` puts a learned affine behind every ReLU.

    Args:
        stem: channels of the stem's convolutions
        hidden: channels of a block's layers, by stage
        layers: layers of a block
        v2: the form of PP-HGNetV2
        lab: a learned affine behind each activation, of the stem in v2 alone
    """

    hidden = ("head.last_conv",)
    layer_groups = {
        "stem": r"^stem",
        "blocks": [(r"^stages\.(\d+)\.downsample", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)],
        "coarse": r"^stages\.(\d+)",
    }

    def __init__(self, stem: Sequence[int] = (48, 48, 96), hidden: Sequence[int] = (96, 128, 160, 192),
                 dims: Sequence[int] = (224, 448, 512, 768), depths: Sequence[int] = (1, 1, 2, 1), layers: int = 5,
                 v2: bool = False, lab: bool = False, head_hidden: int = 2048, num_classes: int = 1000,
                 in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.stem = StemV2([in_chans, *stem], lab) if v2 else Stem([in_chans, *stem])
        dim, stages, levels = stem[-1], [], []
        for i, drops in enumerate(drop_path_rates(drop_path_rate, depths)):
            down = ConvAct(dim, dim, 3, 2, groups=dim, act=False) if i else nn.Identity()
            light, blocks = v2 and i > 1, []
            for j, drop in enumerate(drops):
                blocks.append(Block(dim, hidden[i], dims[i], layers, 5 if light else 3, light, v2, lab, j > 0, drop))
                dim = dims[i]
            stages.append(Stage(down, *blocks))
            levels.append(Feature(dim, 4 * 2**i, f"stages.{i}"))
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features, self.head_hidden_size = dim, head_hidden
        self.head = Head(dim, head_hidden, num_classes, global_pool, drop_rate, lab)
        init_fan_out_(self)
        if isinstance(self.head.fc, nn.Linear):
            nn.init.zeros_(self.head.fc.bias)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.stages(self.stem(x))

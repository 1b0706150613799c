"""Cross-stage partial networks (arXiv:1911.11929), their three-convolution form of YOLOv5, and the Darknets they are
drawn after (arXiv:1804.02767): half of a stage's channels go around its blocks."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel
from imgzoo_layers.act import create_act
from imgzoo_layers.conv import ConvNormAct
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Norms
from imgzoo_layers.gate import Gate, SqueezeExcite
from imgzoo_layers.head import ClassifierHead
from imgzoo_layers.util import Layer, dilate, per_stage


class BottleneckBlock(nn.Module):
    """1x1, grouped 3x3, gate, 1x1 on a residual, activated after it: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, hidden: int, dilation: int, groups: int, conv: Layer, act: str, gate: Gate,
                 drop_path: float):  # fmt: skip
        super().__init__()
        self.conv1 = conv(dim, hidden)
        self.conv2 = conv(hidden, hidden, 3, dilation=dilation, groups=groups)
        self.attn2 = gate(hidden)
        self.conv3 = conv(hidden, dim, apply_act=False)
        self.drop_path = drop_path_of(drop_path)
        self.act3 = create_act(act)

    def zero_init_last(self) -> None:
        nn.init.zeros_(self.get_parameter("conv3.bn.weight"))

    def forward(self, x: Tensor) -> Tensor:
        return self.act3(self.drop_path(self.conv3(self.attn2(self.conv2(self.conv1(x))))) + x)


class DarkBlock(nn.Module):
    """1x1, gate, grouped 3x3 on a residual: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, hidden: int, dilation: int, groups: int, conv: Layer, act: str, gate: Gate,
                 drop_path: float):  # fmt: skip
        super().__init__()
        self.conv1 = conv(dim, hidden)
        self.attn = gate(hidden)
        self.conv2 = conv(hidden, dim, 3, dilation=dilation, groups=groups)
        self.drop_path = drop_path_of(drop_path)

    def zero_init_last(self) -> None:
        nn.init.zeros_(self.get_parameter("conv2.bn.weight"))

    def forward(self, x: Tensor) -> Tensor:
        return self.drop_path(self.conv2(self.attn(self.conv1(x)))) + x


class EdgeBlock(DarkBlock):
    """Grouped 3x3, gate, 1x1 on a residual."""

    def __init__(self, dim: int, hidden: int, dilation: int, groups: int, conv: Layer, act: str, gate: Gate,
                 drop_path: float):  # fmt: skip
        super().__init__(dim, hidden, dilation, groups, conv, act, gate, drop_path)
        self.conv1 = conv(dim, hidden, 3, dilation=dilation, groups=groups)
        self.conv2 = conv(hidden, dim)


class DarkStage(nn.Module):
    """Halve the map, then blocks: (B, C, H, W) -> (B, dim, H/2, W/2)."""

    def __init__(self, down: nn.Module, blocks: list[nn.Module]):
        super().__init__()
        self.conv_down = down
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.conv_down(x))


class CrossStage(nn.Module):
    """Halve the map, widen it, send the second half of the channels through blocks, and join (figure 2b)."""

    def __init__(self, down: nn.Module, widen: nn.Module, blocks: list[nn.Module], dim: int, dim_out: int, conv: Layer):
        super().__init__()
        self.conv_down = down
        self.conv_exp = widen
        self.blocks = nn.Sequential(*blocks)
        self.conv_transition_b = conv(dim // 2, dim // 2)
        self.conv_transition = conv(dim, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        around, through = self.conv_exp(self.conv_down(x)).chunk(2, dim=1)
        return self.conv_transition(torch.cat([around, self.conv_transition_b(self.blocks(through))], dim=1))


class CrossStage3(nn.Module):
    """The same with blocks on the first half and no convolution behind them."""

    def __init__(self, down: nn.Module, widen: nn.Module, blocks: list[nn.Module], dim: int, dim_out: int, conv: Layer):
        super().__init__()
        self.conv_down = down
        self.conv_exp = widen
        self.blocks = nn.Sequential(*blocks)
        self.conv_transition = conv(dim, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        through, around = self.conv_exp(self.conv_down(x)).chunk(2, dim=1)
        return self.conv_transition(torch.cat([self.blocks(through), around], dim=1))


class CspNet(ImageModel):
    """Options that are a list have one value for each stage; ratios are of a stage's width (`bottle_ratio`: of its
    blocks'), `down_growth` widens where the map is halved already.

    Args:
        stage: "csp", "cs3" or "dark"
        block: "bottle", "dark" or "edge"
        groups: groups of the blocks' convolutions, one number or one for each stage
        block_ratio: channels of a stage's blocks as a share of its width
        expand_ratio: channels before the split as a share of the stage's width
        cross_linear: no activation before the split
        down_growth: widen where the map is halved
    """

    exchanged = (Norms("batchnorm"),)
    norms_act = True
    layout_from = 3
    layer_groups = {
        "stem": r"^stem",
        "blocks": [
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^stages\.(\d+)\..*transition", (99999,)),
            (r"^stages\.(\d+)", (0,)),
        ],
        "coarse": r"^stages\.(\d+)",
    }

    def __init__(self, stage: str = "csp", block: str = "bottle", depths: Sequence[int] = (3, 3, 5, 2),
                 dims: Sequence[int] = (128, 256, 512, 1024), strides: Sequence[int] = (2, 2, 2, 2),
                 groups: int | Sequence[int] = 1, block_ratio: float | Sequence[float] = 1.0,
                 bottle_ratio: float | Sequence[float] = 1.0, expand_ratio: float | Sequence[float] = 1.0,
                 cross_linear: bool = False, down_growth: bool = False, avg_down: bool = False,
                 se_ratio: float = 0.0, stem_dims: Sequence[int] = (64,), stem_kernel: int = 3, stem_stride: int = 2,
                 act: str = "leaky_relu", num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg",
                 output_stride: int = 32, drop_rate: float = 0.0, drop_path_rate: float = 0.0,
                 zero_init_last: bool = True):  # fmt: skip
        super().__init__(num_classes, in_chans)
        conv = partial(ConvNormAct, act=act)
        gate = partial(SqueezeExcite, rd_ratio=se_ratio, act=act) if se_ratio else nn.Identity
        self.stem = make_stem(in_chans, stem_dims, stem_kernel, stem_stride, conv)
        dim, reached = stem_dims[-1], stem_stride
        stages, levels = [], [Feature(dim, min(stem_stride, 2), f"stem.conv{len(stem_dims)}")]
        rates = drop_path_rates(drop_path_rate, list(depths))
        steps = dilate(strides, output_stride, start=stem_stride)
        shared = (groups, block_ratio, bottle_ratio, expand_ratio)
        ratios = list(zip(*(per_stage(option, len(depths)) for option in shared)))
        for i, ((stride, before, dilation), drops) in enumerate(zip(steps, rates)):
            group, block_share, bottle, expand = ratios[i]
            dim_out, inner = dims[i], round(dims[i] * block_share)
            blocks = [BLOCK[block](inner, round(inner * bottle), dilation, group, conv, act, gate, p) for p in drops]
            dim_down = dim_out if down_growth or stage == "dark" else dim
            down: nn.Module = nn.Identity()
            if stride > 1 or before != dilation:
                down = make_downsample(dim, dim_down, stride, before, group, avg_down, conv)
            if stage == "dark":
                stages.append(DarkStage(down, blocks))
            else:
                wide = round(dim_out * expand)
                if wide != 2 * inner:
                    raise ValueError(f"blocks of {inner} channels are not half of the {wide} that a stage splits: "
                                     "block_ratio is half of expand_ratio")  # fmt: skip
                widen = conv(dim_down, wide, apply_act=not cross_linear)
                stages.append(CROSS_STAGE[stage](down, widen, blocks, 2 * inner, dim_out, conv))
            dim, reached = dim_out, reached * stride
            levels.append(Feature(dim, reached, f"stages.{i}"))
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim
        self.head = ClassifierHead(dim, num_classes, global_pool, drop_rate)
        self.head_hidden_size = dim * self.head.global_pool.width
        init_(self, zero_init_last)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.stages(self.stem(x))


BLOCK: dict[str, Any] = {"bottle": BottleneckBlock, "dark": DarkBlock, "edge": EdgeBlock}
CROSS_STAGE = {"csp": CrossStage, "cs3": CrossStage3}


def make_stem(in_chans: int, dims: Sequence[int], kernel: int, stride: int, conv: Layer) -> nn.Sequential:
    """Convolutions, the first of stride 2 unless `stride` is 1; a stride of 4 pools behind them."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, dim in enumerate(dims):
        step = 2 if stride > 1 and i == 0 else 1
        layers[f"conv{i + 1}"] = conv(dims[i - 1] if i else in_chans, dim, kernel, step)
    if stride == 4:
        layers["pool"] = nn.MaxPool2d(3, 2, 1)
    return nn.Sequential(layers)


def make_downsample(dim: int, dim_out: int, stride: int, dilation: int, groups: int, avg: bool,
                    conv: Layer) -> nn.Module:  # fmt: skip
    """A strided 3x3, or a mean and a 1x1 against aliasing."""
    if avg:
        pool = nn.AvgPool2d(2) if stride == 2 else nn.Identity()
        return nn.Sequential(pool, conv(dim, dim_out, groups=groups))
    return conv(dim, dim_out, 3, stride, dilation=dilation, groups=groups)


def init_(model: nn.Module, zero_init_last: bool) -> None:
    """Convolutions normal by fan-out, the classifier nearly zero, residual branches from nothing."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
        elif zero_init_last and isinstance(module, (BottleneckBlock, DarkBlock)):
            module.zero_init_last()

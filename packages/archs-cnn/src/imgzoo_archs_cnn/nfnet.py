"""NFNet (arXiv:2102.06171) and NF-ResNet, NF-RegNet (arXiv:2101.08692): residual networks without normalization.

Scaled standardized kernels and a known variance of every block's input keep signals at unit variance instead.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo.errors import UsageError
from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.act import create_act
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.gate import Gate, create_gate
from imgzoo_layers.head import ClassifierHead
from imgzoo_layers.init import variance_scaling_
from imgzoo_layers.pool import mean_pool
from imgzoo_layers.std_conv import ScaledStdConv2d
from imgzoo_layers.util import Layer, dilate, make_divisible

GAMMA = {"relu": 1.7139588594436646, "gelu": 1.7015043497085571, "silu": 1.7881293296813965}
"""One over the standard deviation of an activation of unit noise (arXiv:2101.08692, section 3.4)."""


class GammaAct(nn.Module):
    """An activation that keeps the variance of unit noise."""

    def __init__(self, act: str):
        super().__init__()
        self.act = create_act(act)
        self.gamma = GAMMA[act]

    def forward(self, x: Tensor) -> Tensor:
        return self.act(x) * self.gamma


class Block(nn.Module):
    """x / std -> activation, 1x1, 3x3 (twice if `twice`), 1x1; scaled, then added: (B, C, H, W) -> (B, dim, H', W')."""

    def __init__(self, dim_in: int, dim: int, hidden: int, stride: int, before: int, dilation: int, std: float,
                 groups: int, conv: Layer, act: Layer, gate: Gate | None, gate_inside: bool, gate_gain: float,
                 twice: bool, alpha: float, skip_gain: bool, drop_path: float):  # fmt: skip
        super().__init__()
        self.beta = 1.0 / std
        self.alpha, self.gate_gain = alpha, gate_gain
        self.downsample = None
        if dim_in != dim or stride != 1 or before != dilation:
            self.downsample = make_downsample(dim_in, dim, stride, dilation, conv)
        self.act1 = act()
        self.conv1 = conv(dim_in, hidden, 1)
        self.act2 = act()
        self.conv2 = conv(hidden, hidden, 3, stride, dilation=before, groups=groups)
        self.act2b = act() if twice else None
        self.conv2b = conv(hidden, hidden, 3, dilation=dilation, groups=groups) if twice else None
        self.attn = gate(hidden) if gate and gate_inside else None
        self.act3 = act()
        self.conv3 = conv(hidden, dim, 1)
        self.attn_last = gate(dim) if gate and not gate_inside else None
        self.drop_path = drop_path_of(drop_path)
        if skip_gain:  # each block starts as its shortcut
            self.skipinit_gain = nn.Parameter(torch.tensor(0.0))
        else:
            self.skipinit_gain = None
            nn.init.zeros_(self.get_parameter("conv3.gain"))

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(x) * self.beta
        if self.downsample is not None:
            x = self.downsample(y)
        y = self.conv2(self.act2(self.conv1(y)))
        if self.act2b is not None and self.conv2b is not None:
            y = self.conv2b(self.act2b(y))
        if self.attn is not None:
            y = self.gate_gain * self.attn(y)
        y = self.conv3(self.act3(y))
        if self.attn_last is not None:
            y = self.gate_gain * self.attn_last(y)
        y = self.drop_path(y)
        if self.skipinit_gain is not None:
            y = y * self.skipinit_gain
        return x + self.alpha * y


class NFNet(ImageModel):
    """With `original`, as DeepMind published it: gamma behind the activation, "same" padding, a gain for each block.

    Args:
        stem: one convolution ("3x3", "7x7"), three ("deep", "deep_tiered"), with "_pool" a pool behind them; four
            ("deep_quad")
        alpha: share of each residual branch, whose square a block adds to the variance
        gate_gain: factor behind a gate, for its mean of a half
        eps: epsilon of the standardized kernels
        zero_init_fc: the classifier starts at zero
        extra_conv: a second 3x3 in every block
        reg: the blocks of RegNet: gate inside, hidden channels as a share of the input
        original: as first published: "same" padding, the activation's gain behind it, a gain for each block
        gamma_in_act: that gain behind the activation, not in the kernels; None for `original`
        same_padding: that padding; None for `original`
        skipinit: those gains, which start each block as its shortcut; None for `original`
    """

    parts = Parts(norm=("final_conv", "final_act"))
    layer_groups = {
        "stem": r"^stem",
        "blocks": [(r"^stages\.(\d+)\.(\d+)", None), (r"^final_conv", (99999,))],
        "coarse": [(r"^stages\.(\d+)", None), (r"^final_conv", (99999,))],
    }

    def __init__(self, depths: Sequence[int] = (1, 2, 6, 3), channels: Sequence[int] = (256, 512, 1536, 1536),
                 stem: str = "deep_quad", stem_width: int = 128, extra_conv: bool = True, width: float = 1.0,
                 num_features: int = 0, bottle_ratio: float = 0.25, group_size: int | None = None, reg: bool = False,
                 original: bool = False, gamma_in_act: bool | None = None, same_padding: bool | None = None,
                 skipinit: bool | None = None, gate: str | None = None, gate_ratio: float | None = None,
                 gate_gain: float = 2.0, alpha: float = 0.2, divisor: int = 8, act: str = "silu", eps: float = 1e-5,
                 zero_init_fc: bool = False, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg",
                 output_stride: int = 32, drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        behind, same, gains = (original if each is None else each for each in (gamma_in_act, same_padding, skipinit))
        conv = partial(ScaledStdConv2d, eps=eps, gamma=1.0 if behind else GAMMA[act], padding="same" if same else "")
        make_act = partial(GammaAct if behind else create_act, act)
        options = {"rd_ratio": gate_ratio} if gate_ratio else {}
        make_gate = partial(create_gate, gate, **options) if gate else None
        rounded = partial(make_divisible, divisor=divisor)
        dim = rounded(stem_width * width)
        self.stem, before_last = make_stem(stem, in_chans, dim, conv, make_act)
        levels = [Feature(dim // 2 if before_last[-1:].isdecimal() else dim, 2, f"stem.{before_last}")]
        shared: dict[str, Any] = dict(conv=conv, act=make_act, gate=make_gate, gate_inside=reg, gate_gain=gate_gain,
                                      twice=extra_conv, alpha=alpha, skip_gain=gains)  # fmt: skip
        reached, variance, stages = 4 if stem.endswith(("_pool", "quad")) else 2, 1.0, []
        steps = dilate((4 // reached, 2, 2, 2), output_stride, start=reached)
        for i, (drops, (stride, before, dilation)) in enumerate(zip(drop_path_rates(drop_path_rate, depths), steps)):
            out, blocks = rounded(channels[i] * width), []
            for j, drop in enumerate(drops):
                ratio = 1.0 if reg and i == j == 0 else bottle_ratio
                hidden = rounded((dim if reg else out) * ratio)
                groups = hidden // group_size if group_size else 1
                hidden = groups * group_size if group_size else hidden
                step, spread = (1, dilation) if j else (stride, before)
                blocks.append(Block(dim, out, hidden, step, spread, dilation, variance**0.5, groups,
                                    drop_path=drop, **shared))  # fmt: skip
                variance = (1.0 if j == 0 else variance) + alpha**2
                dim = out
            stages.append(nn.Sequential(*blocks))
            reached *= stride
            levels.append(Feature(dim, reached, f"stages.{i}"))
        self.stages = nn.Sequential(*stages)
        self.final_conv: nn.Module = nn.Identity()
        if num_features:
            self.num_features = rounded(num_features * width)
            self.final_conv = conv(dim, self.num_features, 1)
            levels[-1] = Feature(self.num_features, reached, "final_conv")
        else:
            self.num_features = dim
        self.final_act = make_act()
        self.feature_info = FeatureInfo(levels)
        self.head = ClassifierHead(self.num_features, num_classes, global_pool, drop_rate)
        self.head_hidden_size = self.num_features * self.head.global_pool.width
        init_(self)
        if zero_init_fc and isinstance(self.head.fc, nn.Linear):
            nn.init.zeros_(self.head.fc.weight)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.final_act(self.final_conv(self.stages(self.stem(x))))


STEM = {
    "3x3": ((1, 3, 2),),
    "7x7": ((1, 7, 2),),
    "deep": ((1 / 2, 3, 2), (1 / 2, 3, 1), (1, 3, 1)),
    "deep_tiered": ((3 / 8, 3, 2), (1 / 2, 3, 1), (1, 3, 1)),
    "deep_quad": ((1 / 8, 3, 2), (1 / 4, 3, 1), (1 / 2, 3, 1), (1, 3, 2)),
}
"""(share of the width, kernel, stride) of the convolutions of a stem."""


def make_stem(kind: str, in_chans: int, dim: int, conv: Layer, act: Layer) -> tuple[nn.Sequential, str]:
    """(B, 3, H, W) -> (B, dim, H/2, W/2), or a quarter with a pool or four convolutions; the name of its last
    convolution of half the size, before the last of several."""
    rows = STEM.get(kind.removesuffix("_pool"))
    if rows is None or kind == "deep_quad_pool":
        raise UsageError(f"stem is one of {', '.join(STEM)}, or a single or deep one with _pool, not '{kind}'")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (share, kernel, stride) in enumerate(rows, start=1):
        if i > 1:
            layers[f"act{i}"] = act()
        dim_out = int(dim * share)
        layers[f"conv{i}" if len(rows) > 1 else "conv"] = conv(in_chans, dim_out, kernel, stride)
        in_chans = dim_out
    if kind.endswith("_pool"):
        layers["pool"] = nn.MaxPool2d(3, 2, 1)
    return nn.Sequential(layers), f"conv{len(rows) - 1}" if len(rows) > 1 else "conv"


def make_downsample(dim: int, dim_out: int, stride: int, dilation: int, conv: Layer) -> nn.Sequential:
    """The shortcut where width or size changes: average pooling where the size does, then a 1x1."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if max(stride, dilation) > 1:
        layers["pool"] = mean_pool(stride, dilation)
    layers["conv"] = conv(dim, dim_out, 1)
    return nn.Sequential(layers)


def init_(model: nn.Module) -> None:
    """Convolutions of variance 1 / fan_in, the classifier nearly zero."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            variance_scaling_(module.weight)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
            nn.init.zeros_(module.bias)

"""RegNet X and Y (arXiv:2003.13678), Z with inverted bottlenecks (arXiv:2103.06877), and V, a Y of pre-activation."""

import math
from collections import OrderedDict
from functools import partial
from itertools import groupby

from torch import Tensor, nn

from imgzoo.errors import UsageError
from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.act import create_act
from imgzoo_layers.conv import ConvNormAct
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.gate import Gate, SqueezeExcite
from imgzoo_layers.head import ClassifierHead
from imgzoo_layers.init import init_conv_per_group_
from imgzoo_layers.norm_act import NormAct, get_norm_act
from imgzoo_layers.pool import mean_pool
from imgzoo_layers.util import dilate, make_divisible


class Bottleneck(nn.Module):
    """1x1, grouped 3x3, gate, 1x1 on a residual, activated after it: (B, C, H, W) -> (B, dim, H/stride, W/stride)."""

    def __init__(self, dim_in: int, dim: int, hidden: int, stride: int, dilation: int, groups: int, gate: Gate,
                 downsample: nn.Module | None, norm: NormAct, act_out: str | None, drop_path: float):  # fmt: skip
        super().__init__()
        self.conv1 = ConvNormAct(dim_in, hidden, norm=norm)
        self.conv2 = ConvNormAct(hidden, hidden, 3, stride, dilation=dilation, groups=groups, norm=norm)
        self.se = gate(hidden)
        self.conv3 = ConvNormAct(hidden, dim, norm=norm, apply_act=False)
        self.act3 = create_act(act_out)
        self.downsample = downsample
        self.drop_path = drop_path_of(drop_path if downsample is not None else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(self.se(self.conv2(self.conv1(x))))
        if self.downsample is not None:
            y = self.drop_path(y) + self.downsample(x)
        return self.act3(y)


class PreBottleneck(nn.Module):
    """The same with norm and activation before each convolution (arXiv:1603.05027), the shortcut behind the first."""

    def __init__(self, dim_in: int, dim: int, hidden: int, stride: int, dilation: int, groups: int, gate: Gate,
                 downsample: nn.Module, norm: NormAct, act_out: str, drop_path: float):  # fmt: skip
        super().__init__()
        self.norm1 = norm(dim_in)
        self.conv1 = nn.Conv2d(dim_in, hidden, 1, bias=False)
        self.norm2 = norm(hidden)
        self.conv2 = nn.Conv2d(hidden, hidden, 3, stride, dilation, dilation, groups, bias=False)
        self.se = gate(hidden)
        self.norm3 = norm(hidden)
        self.conv3 = nn.Conv2d(hidden, dim, 1, bias=False)
        self.downsample = downsample
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(x)
        y = self.conv3(self.norm3(self.se(self.conv2(self.norm2(self.conv1(x))))))
        return self.drop_path(y) + self.downsample(x)


class RegNet(ImageModel):
    """Args:
    w0: width that the line of block widths starts at
    wa: slope of that line
    wm: quotient of neighboring stage widths
    group_min_ratio: least share of the hidden channels that rounding down may leave
    linear_out: no activation behind a block
    """

    parts = Parts(stages=("s1", "s2", "s3", "s4"), norm=("final_conv",))
    layer_groups = {"stem": r"^stem", "blocks": r"^s(\d+)\.b(\d+)", "coarse": r"^s(\d+)"}

    def __init__(self, depth: int = 21, w0: int = 80, wa: float = 42.63, wm: float = 2.66, group_size: int = 24,
                 bottle_ratio: float = 1.0, se_ratio: float = 0.0, group_min_ratio: float = 0.0, stem_width: int = 32,
                 downsample: str | None = "conv1x1", linear_out: bool = False, preact: bool = False,
                 num_features: int = 0, norm: str = "batchnorm", norm_group: int | None = None, act: str = "relu",
                 num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", output_stride: int = 32,
                 drop_rate: float = 0.0, drop_path_rate: float = 0.0, zero_init_last: bool = True):  # fmt: skip
        super().__init__(num_classes, in_chans)
        make_norm = get_norm_act(norm, act, **({"group_size": norm_group} if norm_group else {}))
        dim = stem_width
        self.stem = ConvNormAct(in_chans, dim, 3, 2, norm=make_norm)
        if preact:
            self.stem = self.stem.conv
        stages, levels, reached = [], [Feature(dim, 2, "stem")], 2
        shared = dict(norm=make_norm, act_out=None if linear_out else act)
        shapes = stage_shapes(depth, w0, wa, wm, group_size, bottle_ratio, group_min_ratio)
        rates = drop_path_rates(drop_path_rate, [shape[0] for shape in shapes])
        steps = dilate((2, 2, 2, 2), output_stride, start=2)
        for i, drops in enumerate(rates):
            (_, width, hidden, groups), (stride, before, dilation) = shapes[i], steps[i]
            blocks = OrderedDict()
            for j, drop in enumerate(drops):
                step, spread = (1, dilation) if j else (stride, before)
                down: nn.Module | None = nn.Identity()
                if dim != width or step != 1:
                    down = make_downsample(downsample, dim, width, step, spread, preact, make_norm)
                gate = partial(SqueezeExcite, rd_channels=round(dim * se_ratio), act=act) if se_ratio else nn.Identity
                block = BLOCK[preact](dim, width, hidden, step, spread, groups, gate, down, drop_path=drop, **shared)
                blocks[f"b{j + 1}"] = block
                dim = width
            stages.append(nn.Sequential(blocks))
            reached *= stride
            levels.append(Feature(dim, reached, f"s{i + 1}"))
        self.s1, self.s2, self.s3, self.s4 = stages
        self.feature_info = FeatureInfo(levels)
        if num_features:
            self.final_conv = ConvNormAct(dim, num_features, norm=make_norm)
        else:
            self.final_conv = create_act(act) if linear_out or preact else nn.Identity()
        self.num_features = num_features or dim
        self.head = ClassifierHead(self.num_features, num_classes, global_pool, drop_rate)
        self.head_hidden_size = self.num_features * self.head.global_pool.width
        init_(self, zero_init_last)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.final_conv(self.s4(self.s3(self.s2(self.s1(self.stem(x))))))


BLOCK = {False: Bottleneck, True: PreBottleneck}


def stage_shapes(depth: int, w0: int, wa: float, wm: float, group_size: int, bottle_ratio: float,
                 group_min_ratio: float) -> list[tuple[int, int, int, int]]:  # fmt: skip
    """(depth, width, bottleneck width, groups) of each stage by the quantized linear rule (section 3.3, eq. 2 to 4).

    Block j would have width w0 + wa j; it takes the nearest w0 wm^s instead, so equal widths form the stages. Widths
    are multiples of 8 and then of the group size; `group_min_ratio` is the least that rounding down may leave.
    """
    powers = [round(math.log((w0 + wa * j) / w0, wm)) for j in range(depth)]
    widths = [8 * round(w0 * wm**power / 8) for power in powers]
    shapes = []
    for width, same in groupby(widths):
        size = min(group_size, int(width * bottle_ratio))
        if not size:
            raise ValueError(f"a stage of {width} channels has none inside: w0 is above 4, bottle_ratio not as small")
        hidden = size * round(width * bottle_ratio / size)
        if group_min_ratio:  # torchvision's networks: halves go up
            hidden = make_divisible(width * bottle_ratio, size, round_limit=group_min_ratio)
        shapes.append((len(list(same)), int(hidden / bottle_ratio), hidden, hidden // size))
    return shapes


def make_downsample(kind: str | None, dim: int, dim_out: int, stride: int, dilation: int, preact: bool, norm: NormAct):
    """The shortcut where width or size changes: a strided 1x1 convolution, average pooling and 1x1, or none (Z)."""
    if kind is None:
        return None
    if kind not in ("conv1x1", "avg"):
        raise UsageError(f"downsample is 'conv1x1', 'avg' or None, not '{kind}'")
    step = stride if kind == "conv1x1" else 1
    if preact:
        conv: nn.Module = nn.Conv2d(dim, dim_out, 1, step, bias=False)
    else:
        conv = ConvNormAct(dim, dim_out, 1, step, norm=norm, apply_act=False)
    return conv if kind == "conv1x1" else nn.Sequential(mean_pool(stride, dilation), conv)


def init_(model: nn.Module, zero_init_last: bool) -> None:
    """Convolutions normal by fan-out, the classifier nearly zero, residual branches from nothing (but not of V)."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            init_conv_per_group_(module)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
        elif zero_init_last and isinstance(module, Bottleneck):
            nn.init.zeros_(module.conv3.bn.get_parameter("weight"))

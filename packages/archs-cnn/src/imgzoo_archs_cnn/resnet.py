"""ResNet (arXiv:1512.03385), its improved stems (arXiv:1812.01187), ResNeXt, SE, ECA, RS and blurred forms."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.act import create_act
from imgzoo_layers.drop import DropBlock2d, DropPath, drop_path_rates
from imgzoo_layers.gate import Gate, create_gate
from imgzoo_layers.init import init_fan_out_
from imgzoo_layers.norm import Norm, get_norm
from imgzoo_layers.pool import GlobalPool, create_aa, mean_pool, residual_aa
from imgzoo_layers.prune import fit_to_file, out_channels
from imgzoo_layers.util import Layer, dilate

MakeDrop = Callable[[], nn.Module | None]
"""Makes the DropBlock behind a convolution, or none."""


class BasicBlock(nn.Module):
    """Two 3x3 convolutions on a residual: (B, C, H, W) -> (B, dim, H/stride, W/stride)."""

    expansion = 1

    def __init__(self, dim_in: int, dim: int, stride: int, before: int, dilation: int, downsample: nn.Module | None,
                 norm: Norm, act: Layer, aa: str | None, gate: Gate | None, drop_block: MakeDrop, drop_path: float,
                 cardinality: int = 1, base_width: int = 64, reduce_first: int = 1):  # fmt: skip
        super().__init__()
        hidden, out = dim // reduce_first, dim * self.expansion
        blurred = bool(aa) and (stride == 2 or before != dilation)
        self.conv1 = conv3x3(dim_in, hidden, 1 if blurred else stride, before)
        self.bn1 = norm(hidden)
        self.drop_block = drop_block()
        self.act1 = act()
        self.aa = create_aa(residual_aa(aa), hidden, stride) if blurred else None
        self.conv2 = conv3x3(hidden, out, 1, dilation)
        self.bn2 = norm(out)
        self.se = gate(out) if gate else None
        self.act2 = act()
        self.downsample = downsample
        self.drop_path = DropPath(drop_path) if drop_path else None

    def zero_init_last(self) -> None:
        zero_(self.bn2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn1(self.conv1(x))
        if self.drop_block is not None:
            y = self.drop_block(y)
        y = self.act1(y)
        if self.aa is not None:
            y = self.aa(y)
        y = self.bn2(self.conv2(y))
        if self.se is not None:
            y = self.se(y)
        if self.drop_path is not None:
            y = self.drop_path(y)
        y += x if self.downsample is None else self.downsample(x)
        return self.act2(y)


class Bottleneck(nn.Module):
    """1x1, 3x3 (in `cardinality` groups), 1x1 on a residual: (B, C, H, W) -> (B, 4 dim, H/stride, W/stride)."""

    expansion = 4

    def __init__(self, dim_in: int, dim: int, stride: int, before: int, dilation: int, downsample: nn.Module | None,
                 norm: Norm, act: Layer, aa: str | None, gate: Gate | None, drop_block: MakeDrop, drop_path: float,
                 cardinality: int = 1, base_width: int = 64, reduce_first: int = 1):  # fmt: skip
        super().__init__()
        width, out = int(dim * base_width / 64) * cardinality, dim * self.expansion
        hidden = width // reduce_first
        blurred = bool(aa) and (stride == 2 or before != dilation)
        self.conv1 = nn.Conv2d(dim_in, hidden, 1, bias=False)
        self.bn1 = norm(hidden)
        self.act1 = act()
        self.conv2 = conv3x3(hidden, width, 1 if blurred else stride, before, cardinality)
        self.bn2 = norm(width)
        self.drop_block = drop_block()
        self.act2 = act()
        self.aa = create_aa(residual_aa(aa), width, stride) if blurred else None
        self.conv3 = nn.Conv2d(width, out, 1, bias=False)
        self.bn3 = norm(out)
        self.se = gate(out) if gate else None
        self.act3 = act()
        self.downsample = downsample
        self.drop_path = DropPath(drop_path) if drop_path else None

    def zero_init_last(self) -> None:
        zero_(self.bn3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act1(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.drop_block is not None:
            y = self.drop_block(y)
        y = self.act2(y)
        if self.aa is not None:
            y = self.aa(y)
        y = self.bn3(self.conv3(y))
        if self.se is not None:
            y = self.se(y)
        if self.drop_path is not None:
            y = self.drop_path(y)
        y += x if self.downsample is None else self.downsample(x)
        return self.act3(y)


BLOCK = {"basic": BasicBlock, "bottleneck": Bottleneck}

Block = str | Layer
"""A name in `BLOCK`, or a class like those there, perhaps with options bound to it: the blocks of families after it."""


def get_block(block: Block) -> Layer:
    return BLOCK[block] if isinstance(block, str) else block


def expansion_of(make: Layer) -> int:
    """Channels that a block puts out for each of its width."""
    return getattr(make, "func", make).expansion


class ResNet(ImageModel):
    """Args:
    block: "basic" or "bottleneck", one name or one for each stage
    stem: "" for one 7x7 convolution, "deep" or "deep_tiered" for three 3x3
    stem_width: channels of the deep stem's first convolutions
    replace_stem_pool: a strided convolution for the stem's pool
    reduce_first: divisor of the channels of a block's first convolution
    """

    parts = Parts(
        stem=("conv1", "bn1", "act1", "maxpool"),
        stages=("layer1", "layer2", "layer3", "layer4"),
        pool="global_pool",
        head="fc",
    )
    layer_groups = {"stem": r"^conv1|bn1|maxpool", "blocks": r"^layer(\d+)\.(\d+)", "coarse": r"^layer(\d+)"}

    def __init__(self, layers: Sequence[int] = (3, 4, 6, 3), block: Block | Sequence[str] = "bottleneck",
                 channels: Sequence[int] = (64, 128, 256, 512), cardinality: int = 1, base_width: int = 64,
                 stem: Literal["", "deep", "deep_tiered"] = "", stem_width: int = 64, replace_stem_pool: bool = False,
                 avg_down: bool = False, down_kernel: int = 1, reduce_first: int = 1, norm: str = "batchnorm",
                 act: str = "relu", aa: str | None = None, gate: str | None = None, gate_ratio: float | None = None,
                 num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", output_stride: int = 32,
                 drop_rate: float = 0.0, drop_path_rate: float = 0.0, drop_block_rate: float = 0.0,
                 zero_init_last: bool = True, pruned: str | None = None):  # fmt: skip
        super().__init__(num_classes, in_chans)
        if len(layers) != 4:
            raise ValueError(f"layers has the blocks of 4 stages, not of {len(layers)}")
        self.drop_rate = drop_rate
        make_norm, make_act = get_norm(norm), partial(create_act, act, inplace=True)
        options = {"rd_ratio": gate_ratio} if gate_ratio else {}
        make_gate = partial(create_gate, gate, **options) if gate else None
        dim = stem_width * 2 if stem else 64
        self.conv1 = make_stem(stem, in_chans, stem_width, dim, make_norm, make_act)
        self.bn1 = make_norm(dim)
        self.act1 = make_act()
        self.maxpool = make_stem_pool(dim, replace_stem_pool, aa, make_norm, make_act)
        levels = [Feature(dim, 2, "act1")]
        blocks = [block] * len(layers) if isinstance(block, str) or callable(block) else block
        shared = dict(norm=make_norm, act=make_act, aa=aa, gate=make_gate, cardinality=cardinality,
                      base_width=base_width, reduce_first=reduce_first)  # fmt: skip
        steps, reached = dilate((1, 2, 2, 2), output_stride, start=4), 4
        for i, (drops, (stride, before, dilation)) in enumerate(zip(drop_path_rates(drop_path_rate, layers), steps)):
            make, width, reached = get_block(blocks[i]), channels[i], reached * stride
            drop_block = partial(make_drop_block, drop_block_rate, i)
            units = []
            for j, drop in enumerate(drops):
                first, out = j == 0, width * expansion_of(make)
                down: nn.Module | None = None
                if first and (stride != 1 or dim != out):
                    down = make_downsample(dim, out, stride, before, dilation, avg_down, down_kernel, make_norm)
                units.append(make(dim, width, stride if first else 1, before if first else dilation, dilation, down,
                                  drop_block=drop_block, drop_path=drop, **shared))  # fmt: skip
                dim = out
            setattr(self, f"layer{i + 1}", nn.Sequential(*units))
            levels.append(Feature(dim, reached, f"layer{i + 1}"))
        self.feature_info = FeatureInfo(levels)
        self.global_pool = GlobalPool(global_pool)
        self.num_features, self.head_hidden_size = dim, dim * self.global_pool.width
        self.fc = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()
        if pruned:
            fit_to_file(self, __package__, pruned, self.global_pool.width)
            levels[1:] = [level._replace(channels=out_channels(getattr(self, level.module))) for level in levels[1:]]
            self.feature_info = FeatureInfo(levels)
            self.num_features = levels[-1].channels
            self.head_hidden_size = self.num_features * self.global_pool.width
        else:  # what is cut from trained weights keeps torch's initial values
            init_(self, zero_init_last)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        x = self.maxpool(self.act1(self.bn1(self.conv1(x))))
        return self.layer4(self._before_stage(self.layer3(self.layer2(self.layer1(x)))))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = F.dropout(self.global_pool(x), self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)


def conv3x3(dim: int, dim_out: int, stride: int, dilation: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(dim, dim_out, 3, stride, dilation, dilation, groups, bias=False)


def make_stem(kind: str, in_chans: int, width: int, dim: int, norm: Norm, act: Layer) -> nn.Module:
    """Halve the image: one 7x7, or three 3x3 ("deep"; "deep_tiered" grows them step by step)."""
    if not kind:
        return nn.Conv2d(in_chans, dim, 7, 2, 3, bias=False)
    first = 3 * (width // 4) if kind == "deep_tiered" else width
    return nn.Sequential(
        conv3x3(in_chans, first, 2, 1), norm(first), act(),
        conv3x3(first, width, 1, 1), norm(width), act(),
        conv3x3(width, dim, 1, 1),
    )  # fmt: skip


def make_stem_pool(dim: int, replace: bool, aa: str | None, norm: Norm, act: Layer) -> nn.Module:
    """Halve the stem's map: maximum, blurred maximum, or a strided convolution (ResNet-RS)."""
    if replace:
        down = [conv3x3(dim, dim, 1, 1), create_aa(aa, dim)] if aa else [conv3x3(dim, dim, 2, 1)]
        return nn.Sequential(*down, norm(dim), act())
    if not aa:
        return nn.MaxPool2d(3, 2, 1)
    return create_aa(aa, dim) if aa == "avg" else nn.Sequential(nn.MaxPool2d(3, 1, 1), create_aa(aa, dim))


def make_downsample(dim: int, dim_out: int, stride: int, before: int, dilation: int, avg: bool, kernel: int,
                    norm: Norm) -> nn.Sequential:  # fmt: skip
    """The shortcut where width or size changes: a strided convolution, or average pooling and a 1x1 ("d" forms)."""
    if avg:
        return nn.Sequential(mean_pool(stride, dilation), nn.Conv2d(dim, dim_out, 1, bias=False), norm(dim_out))
    if stride == 1 and dilation == 1:
        kernel = 1
    spread = before if kernel > 1 else 1
    pad = spread * (kernel - 1) // 2
    return nn.Sequential(nn.Conv2d(dim, dim_out, kernel, stride, pad, spread, bias=False), norm(dim_out))


def make_drop_block(rate: float, stage: int) -> nn.Module | None:
    """DropBlock in the last two stages (arXiv:1810.12890, section 4.1)."""
    if not rate or stage < 2:
        return None
    return DropBlock2d(rate, 5, 0.25) if stage == 2 else DropBlock2d(rate, 3, 1.0)


def zero_(norm: nn.Module) -> None:
    """Let a norm begin with nothing, its weights learned or fixed; one without weights stays."""
    weight = norm.state_dict().get("weight")
    if weight is not None:
        nn.init.zeros_(weight)


def init_(model: nn.Module, zero_init_last: bool) -> None:
    """Convolutions by fan-out; with `zero_init_last` each block starts as its shortcut (arXiv:1706.02677)."""
    init_fan_out_(model)
    for module in model.modules():
        if zero_init_last and callable(start := getattr(module, "zero_init_last", None)):
            start()

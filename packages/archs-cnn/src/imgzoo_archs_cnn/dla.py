"""Deep layer aggregation: blocks are the leaves of trees whose roots fuse all that lies below (arXiv:1707.06484)."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.head import ConvClassifier
from imgzoo_layers.init import init_fan_out_
from imgzoo_layers.pool import GlobalPool
from imgzoo_layers.util import Layer


class BasicBlock(nn.Module):
    """Two 3x3 convolutions on a shortcut that comes from outside: (B, C, H, W) -> (B, dim, H/stride, W/stride)."""

    def __init__(self, dim_in: int, dim: int, stride: int = 1, cardinality: int = 1, base_width: int = 64):
        super().__init__()
        self.conv1 = conv3x3(dim_in, dim, stride)
        self.bn1 = nn.BatchNorm2d(dim)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = conv3x3(dim, dim)
        self.bn2 = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 in `cardinality` groups, 1x1, half as wide inside."""

    def __init__(self, dim_in: int, dim: int, stride: int = 1, cardinality: int = 1, base_width: int = 64):
        super().__init__()
        hidden = dim * base_width // 64 * cardinality // 2
        self.conv1 = nn.Conv2d(dim_in, hidden, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.conv2 = conv3x3(hidden, hidden, stride, cardinality)
        self.bn2 = nn.BatchNorm2d(hidden)
        self.conv3 = nn.Conv2d(hidden, dim, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(dim)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(y)))
        return self.relu(self.bn3(self.conv3(y)) + shortcut)


class Bottle2neck(nn.Module):
    """The middle split in four, each share added to the next before its 3x3 (Res2Net, arXiv:1904.01169)."""

    def __init__(self, dim_in: int, dim: int, stride: int = 1, cardinality: int = 1, base_width: int = 64):
        super().__init__()
        scale = 4
        width = dim * base_width // 64 * cardinality // 2
        self.conv1 = nn.Conv2d(dim_in, width * scale, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width * scale)
        self.convs = nn.ModuleList(conv3x3(width, width, stride, cardinality) for _ in range(scale - 1))
        self.bns = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(scale - 1))
        self.conv3 = nn.Conv2d(width * scale, dim, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(dim)
        self.relu = nn.ReLU(inplace=True)
        self.pool = nn.AvgPool2d(3, stride, 1) if stride > 1 else None
        self.scale = scale

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        shares = self.relu(self.bn1(self.conv1(x))).chunk(self.scale, 1)
        y, done = shares[0], []
        for i, (conv, bn) in enumerate(zip(self.convs, self.bns)):
            if i > 0:  # where the map shrinks the shares stay apart
                y = shares[i] if self.pool is not None else y + shares[i]
            y = self.relu(bn(conv(y)))
            done.append(y)
        last = shares[self.scale - 1]
        done.append(last if self.pool is None else self.pool(last))
        return self.relu(self.bn3(self.conv3(torch.cat(done, 1))) + shortcut)


class Root(nn.Module):
    """Fuse maps of one size: list of (B, ?, H, W) -> (B, dim, H, W); with `shortcut` the first one is added."""

    def __init__(self, dim_in: int, dim: int, shortcut: bool):
        super().__init__()
        self.conv = nn.Conv2d(dim_in, dim, 1, bias=False)
        self.bn = nn.BatchNorm2d(dim)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = shortcut

    def forward(self, x: list[Tensor]) -> Tensor:
        y = self.bn(self.conv(torch.cat(x, 1)))
        return self.relu(y + x[0] if self.shortcut else y)


class Twig(nn.Module):
    """The lowest tree: two blocks and a root that fuses them with what the trees above hand down."""

    def __init__(self, dim_in: int, dim: int, stride: int, below: int, level_root: bool, block: Layer, shortcut: bool):
        super().__init__()
        self.downsample = nn.MaxPool2d(stride, stride, ceil_mode=True) if stride > 1 else nn.Identity()
        self.project: nn.Module = nn.Identity()
        if dim_in != dim:
            self.project = nn.Sequential(nn.Conv2d(dim_in, dim, 1, bias=False), nn.BatchNorm2d(dim))
        self.tree1 = block(dim_in, dim, stride)
        self.tree2 = block(dim, dim)
        self.root = Root(2 * dim + below + level_root * dim_in, dim, shortcut)
        self.level_root = level_root

    def forward(self, x: Tensor, below: list[Tensor] | None = None) -> Tensor:
        children = [] if below is None else below
        bottom = self.downsample(x)
        if self.level_root:
            children = children + [bottom]
        first = self.tree1(x, self.project(bottom))
        second = self.tree2(first, first)
        return self.root([second, first] + children)


class Tree(nn.Module):
    """Two trees, the second of which fuses the first's output, too; a `level_root` also the level's input."""

    def __init__(self, levels: int, dim_in: int, dim: int, stride: int, below: int, level_root: bool, block: Layer,
                 shortcut: bool):  # fmt: skip
        super().__init__()
        self.downsample = nn.MaxPool2d(stride, stride, ceil_mode=True) if level_root and stride > 1 else nn.Identity()
        self.tree1 = make_tree(levels - 1, dim_in, dim, stride, 0, False, block, shortcut)
        below = below + level_root * dim_in + dim
        self.tree2 = make_tree(levels - 1, dim, dim, 1, below, False, block, shortcut)
        self.level_root = level_root

    def forward(self, x: Tensor, below: list[Tensor] | None = None) -> Tensor:
        children = [] if below is None else below
        if self.level_root:
            children = children + [self.downsample(x)]
        first = self.tree1(x)
        return self.tree2(first, children + [first])


class DLA(ImageModel):
    """Args:
    levels: height of each stage's tree of blocks
    block: "basic", "bottleneck" or "bottle2neck"
    shortcut_root: a shortcut around the node that joins a tree
    """

    default_levels = (1, 2, 3, 4, 5)
    reads_maps = True
    parts = Parts(
        stem=("base_layer",),
        stages=("level0", "level1", "level2", "level3", "level4", "level5"),
        pool="global_pool",
        head="fc",
    )
    layer_groups = {
        "stem": r"^base_layer",
        "blocks": [(r"^level(\d+)\.tree(\d+)", None), (r"^level(\d+)\.root", (2,)), (r"^level(\d+)", (1,))],
        "coarse": r"^level(\d+)",
    }

    def __init__(self, levels: Sequence[int] = (1, 1, 1, 2, 3, 1),
                 channels: Sequence[int] = (16, 32, 128, 256, 512, 1024), block: str = "bottleneck",
                 cardinality: int = 1, base_width: int = 64, shortcut_root: bool = False, num_classes: int = 1000,
                 in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.drop_rate = drop_rate
        dim = channels[0]
        self.base_layer = nn.Sequential(*unit(in_chans, dim, 7, 1))
        self.level0 = make_level(dim, channels[0], levels[0], 1)
        self.level1 = make_level(channels[0], channels[1], levels[1], 2)
        make_block = partial(BLOCK[block], cardinality=cardinality, base_width=base_width)
        for i in range(2, 6):
            tree = make_tree(levels[i], channels[i - 1], channels[i], 2, 0, i > 2, make_block, shortcut_root)
            setattr(self, f"level{i}", tree)
        self.feature_info = FeatureInfo(Feature(width, 2**i, f"level{i}") for i, width in enumerate(channels))
        self.global_pool = GlobalPool(global_pool)
        self.num_features = channels[-1]
        self.head_hidden_size = self.num_features * self.global_pool.width
        self.fc = ConvClassifier(self.head_hidden_size, num_classes) if num_classes else nn.Identity()
        init_fan_out_(self)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        x = self.level2(self.level1(self.level0(self.base_layer(x))))
        return self.level5(self._before_stage(self.level4(self.level3(x))))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = F.dropout(self.global_pool(x), self.drop_rate, self.training)
        if getattr(self.global_pool, "kind", "own") != "":
            x = x.flatten(1)
        return x if pre_logits else self.fc(x)

    def _new_classifier(self, num_classes: int, bias: bool) -> nn.Module:
        return ConvClassifier(self.head_hidden_size, num_classes, bias)

    def _blocks(self) -> list[nn.Module]:
        return [module for module in self.modules() if isinstance(module, tuple(BLOCK.values()))]


BLOCK = {"basic": BasicBlock, "bottleneck": Bottleneck, "bottle2neck": Bottle2neck}


def conv3x3(dim: int, dim_out: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(dim, dim_out, 3, stride, 1, groups=groups, bias=False)


def unit(dim: int, dim_out: int, kernel: int, stride: int) -> list[nn.Module]:
    conv = nn.Conv2d(dim, dim_out, kernel, stride, kernel // 2, bias=False)
    return [conv, nn.BatchNorm2d(dim_out), nn.ReLU(inplace=True)]


def make_level(dim: int, dim_out: int, depth: int, stride: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for i in range(depth):
        layers += unit(dim if i == 0 else dim_out, dim_out, 3, stride if i == 0 else 1)
    return nn.Sequential(*layers)


def make_tree(levels: int, dim: int, dim_out: int, stride: int, below: int, level_root: bool, block: Layer,
              shortcut: bool) -> nn.Module:  # fmt: skip
    """A tree of 2^levels blocks; its last root fuses `below` more channels that are handed down."""
    if levels == 1:
        return Twig(dim, dim_out, stride, below, level_root, block, shortcut)
    return Tree(levels, dim, dim_out, stride, below, level_root, block, shortcut)

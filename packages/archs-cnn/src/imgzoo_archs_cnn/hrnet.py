"""HRNet: branches of several resolutions side by side that exchange what they see (arXiv:1908.07919)."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts, Shortened
from imgzoo_layers.init import init_fan_out_
from imgzoo_layers.pool import GlobalPool

from .resnet import BasicBlock, Bottleneck

WIDTHS = (32, 64, 128, 256)
"""Of the bottlenecks that lift each branch for classification (section 3.3)."""


class Each(nn.ModuleList):
    """A module for every map."""

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        maps: list[Tensor] = []
        for i, module in enumerate(self):
            maps.append(module(x[i]))
        return maps


class Exchange(nn.Module):
    """Blocks on every branch, then each branch adds what the others see, resized: maps -> maps of the same shapes."""

    def __init__(self, dims: Sequence[int], blocks: int):
        super().__init__()
        branches = [[make_block(BasicBlock, dim, dim) for _ in range(blocks)] for dim in dims]
        fuse = [[make_fuse(dims, to, source) for source in range(len(dims))] for to in range(len(dims))]
        self.branches = Each(nn.Sequential(*branch) for branch in branches)
        self.fuse_layers: Any = nn.ModuleList(nn.ModuleList(layers) for layers in fuse)
        self.fuse_act = nn.ReLU()

    def forward(self, x: list[Tensor]) -> list[Tensor]:
        seen = self.branches(x)
        fused: list[Tensor] = []
        for i, layers in enumerate(self.fuse_layers):
            y = seen[i]
            for j, layer in enumerate(layers):
                if j < i:
                    y = y + layer(seen[j])
                elif j > i:
                    y = y + F.interpolate(layer(seen[j]), size=[y.shape[2], y.shape[3]], mode="nearest")
            fused.append(self.fuse_act(y))
        return fused


class Stage(nn.Sequential):
    """Modules one after another over a list of maps."""

    def forward(self, x: list[Tensor]) -> list[Tensor]:  # type: ignore[override]
        for module in self:
            x = module(x)
        return x


class HighResolutionNet(ImageModel):
    """Args:
    width: channels of the finest branch
    modules: exchanges of the second to fourth stage
    blocks: blocks of a branch between exchanges
    first_blocks: blocks of the first stage
    first_width: channels inside the first stage's blocks
    head_conv_bias: biases of the head's convolutions
    """

    parts = Parts(stem=("conv1", "bn1", "stem"), stages=("layer1", "stage2", "stage3", "stage4"),
                  pool="global_pool", head="classifier", tail=("downsamp_modules", "final_layer"))  # fmt: skip
    shortened = Shortened
    layer_groups = {
        "stem": r"^conv[12]|bn[12]",
        "blocks": [
            (r"^layer(\d+)\.(\d+)", None),
            (r"^stage(\d+)\.(\d+)", None),
            (r"^transition(\d+)", (99999,)),
        ],
        "coarse": r"^(?:layer|stage|transition)(\d+)",
    }

    def __init__(self, width: int = 18, modules: Sequence[int] = (1, 4, 3), blocks: int = 4, first_blocks: int = 4,
                 first_width: int = 64, head_conv_bias: bool = True, num_classes: int = 1000, in_chans: int = 3,
                 global_pool: str = "avg", drop_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.drop_rate = drop_rate
        self.conv1 = nn.Conv2d(in_chans, 64, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.stem = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(64, 64, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.act2 = nn.ReLU(inplace=True)
        dims, first = [width * 2**i for i in range(4)], 4 * first_width
        firsts = [make_block(Bottleneck, first if i else 64, first_width) for i in range(first_blocks)]
        self.layer1 = nn.Sequential(*firsts)
        self.transition1 = make_transition([first], dims[:2])
        self.stage2 = Stage(*(Exchange(dims[:2], blocks) for _ in range(modules[0])))
        self.transition2 = make_transition(dims[:2], dims[:3])
        self.stage3 = Stage(*(Exchange(dims[:3], blocks) for _ in range(modules[1])))
        self.transition3 = make_transition(dims[:3], dims)
        self.stage4 = Stage(*(Exchange(dims, blocks) for _ in range(modules[2])))
        lifted = [4 * w for w in WIDTHS]
        conv = partial(nn.Conv2d, bias=head_conv_bias)
        self.stage1 = nn.Identity()
        self.incre_modules = Each(nn.Sequential(make_block(Bottleneck, d, w)) for d, w in zip(dims, WIDTHS))
        self.downsamp_modules = nn.ModuleList(
            nn.Sequential(conv(d, 2 * d, 3, 2, 1), nn.BatchNorm2d(2 * d), nn.ReLU(inplace=True)) for d in lifted[:-1]
        )
        self.num_features = 2048
        self.final_layer = nn.Sequential(conv(lifted[-1], 2048, 1), nn.BatchNorm2d(2048), nn.ReLU(inplace=True))
        names = ("stage1", "stage2", "stage3", "stage4")
        levels = [Feature(d, 4 * 2**i, name) for i, (d, name) in enumerate(zip(lifted, names))]
        self.feature_info = FeatureInfo([Feature(64, 2, "stem"), *levels])
        self.global_pool = GlobalPool(global_pool)
        self.head_hidden_size = 2048 * self.global_pool.width
        self.classifier = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()
        init_fan_out_(self)

    def forward_stem(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 64, H/2, W/2)
        return self.stem(self.bn1(self.conv1(x)))

    def forward_stages(self, x: Tensor) -> list[Tensor]:
        """(B, 64, H/2, W/2) -> lifted maps of strides 4 to 32."""
        y = self.layer1(self.act2(self.bn2(self.conv2(x))))
        maps = self.stage2(self.transition1([y, y]))
        maps = self.stage3(self.transition2(maps + maps[-1:]))
        maps = self.stage4(self.transition3(maps + maps[-1:]))
        return self.incre_modules(maps)

    def forward_join(self, levels: list[Tensor]) -> Tensor:
        y = levels[0]
        for i, down in enumerate(self.downsamp_modules):
            y = levels[i + 1] + down(y)
        return self.final_layer(y)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 2048, H/32, W/32)
        return self.forward_join(self.forward_stages(self.forward_stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = F.dropout(self.global_pool(x), self.drop_rate, self.training)
        return x if pre_logits else self.classifier(x)

    def _steps(self) -> list[tuple[str, Any]]:
        """All levels of stride 4 and more come at the end, together."""
        return [("stem", self.forward_stem), ("stage4", self.forward_stages)]

    def _advance(self, path: str, step: Any, x: Any) -> tuple[Any, dict[str, Any]]:
        x = step(x)
        return x, {path: x} if path == "stem" else {f"stage{i}": level for i, level in enumerate(x, start=1)}

    def _cut(self, level: str, chosen: list[int]) -> None:
        """The branches need each other and stay; what fuses and lifts those without a level goes."""
        if level != "stem":
            for i in set(range(4)) - {index - 1 for index in chosen}:
                self._drop([f"incre_modules.{i}"])
                last: Any = self.stage4[-1]
                last.fuse_layers[i] = nn.ModuleList()

    def _pieces(self) -> list[tuple[str, Any]]:
        names = ("stem", "conv2", "bn2", "layer1", "transition1", "stage2", "transition2", "stage3", "transition3",
                 "incre_modules", "stage4")  # fmt: skip
        return [(name, getattr(self, name)) for name in names]

    def _place(self, pieces: list[tuple[str, Any]], module: str) -> int:
        return 0 if module == "stem" else len(pieces) - 1

    def _final_norm(self, x: list[Tensor]) -> Tensor:
        return self.forward_join(x)


def make_block(cls: type[BasicBlock] | type[Bottleneck], dim: int, width: int) -> nn.Module:
    """A block of ResNet of stride 1, with a convolution as the shortcut where the width changes."""
    out = width * cls.expansion
    down = None if dim == out else nn.Sequential(nn.Conv2d(dim, out, 1, bias=False), nn.BatchNorm2d(out))
    return cls(dim, width, stride=1, before=1, dilation=1, downsample=down, norm=nn.BatchNorm2d,
               act=partial(nn.ReLU, inplace=True), aa=None, gate=None, drop_block=no_drop, drop_path=0.0)  # fmt: skip


def no_drop() -> None:
    return None


def halve(dim: int, dim_out: int, act: bool = True) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Conv2d(dim, dim_out, 3, 2, 1, bias=False), nn.BatchNorm2d(dim_out)]
    return nn.Sequential(*layers, *([nn.ReLU(inplace=True)] if act else []))


def make_transition(before: Sequence[int], dims: Sequence[int]) -> Each:
    """To each branch from the one before it of the same size, or for a new one from the smallest."""
    layers: list[nn.Module] = []
    for i, dim in enumerate(dims):
        if i >= len(before):
            layers.append(nn.Sequential(halve(before[-1], dim)))
        elif before[i] == dim:
            layers.append(nn.Identity())
        else:
            conv = nn.Conv2d(before[i], dim, 3, padding=1, bias=False)
            layers.append(nn.Sequential(conv, nn.BatchNorm2d(dim), nn.ReLU(inplace=True)))
    return Each(layers)


def make_fuse(dims: Sequence[int], to: int, source: int) -> nn.Module:
    """What branch `to` adds of branch `source`: halved step by step, or of fewer channels (and enlarged later)."""
    if source == to:
        return nn.Identity()
    if source > to:
        return nn.Sequential(nn.Conv2d(dims[source], dims[to], 1, bias=False), nn.BatchNorm2d(dims[to]))
    steps = [halve(dims[source], dims[source]) for _ in range(to - source - 1)]
    return nn.Sequential(*steps, halve(dims[source], dims[to], act=False))

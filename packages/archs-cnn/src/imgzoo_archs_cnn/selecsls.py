"""SelecSLS: blocks that join their own three maps and one kept from the start of the stage (arXiv:1907.00837)."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.init import init_fan_out_
from imgzoo_layers.pool import GlobalPool


class Block(nn.Module):
    """(B, C, H, W) and the kept map -> (B, dim_out, H/stride, W/stride) and the map kept from here on.

    With `dim_kept` 0 the block starts a stage: it joins nothing from before and its own map is kept.
    """

    def __init__(self, dim: int, dim_kept: int, hidden: int, dim_out: int, stride: int):
        super().__init__()
        self.starts = dim_kept == 0
        self.conv1 = conv_norm_act(dim, hidden, 3, stride)
        self.conv2 = conv_norm_act(hidden, hidden, 1)
        self.conv3 = conv_norm_act(hidden, hidden // 2, 3)
        self.conv4 = conv_norm_act(hidden // 2, hidden, 1)
        self.conv5 = conv_norm_act(hidden, hidden // 2, 3)
        self.conv6 = conv_norm_act(2 * hidden + dim_kept, dim_out, 1)

    def forward(self, x: Tensor, kept: Tensor) -> tuple[Tensor, Tensor]:
        first = self.conv1(x)
        second = self.conv3(self.conv2(first))
        third = self.conv5(self.conv4(second))
        if self.starts:
            y = self.conv6(torch.cat([first, second, third], 1))
            return y, y
        return self.conv6(torch.cat([first, second, third, kept], 1)), kept


class Blocks(nn.Sequential):
    """(B, C, H, W) -> (B, C', H', W'), the kept map handed from block to block."""

    def forward(self, x: Tensor) -> Tensor:
        kept = x
        for block in self:
            x, kept = block(x, kept)
        return x


class SelecSls(ImageModel):
    """Args:
    stages: hidden and output channels of each stage
    head: channels and kernel of each layer behind the stages
    """

    default_levels = (0, 1, 2, 3, 4)
    parts = Parts(stages=("features", "head"), pool="global_pool", head="fc")
    layout = "plain"
    layer_groups = {"stem": r"^stem", "blocks": [(r"^features\.(\d+)", None), (r"^head", (999,))]}

    def __init__(self, stages: Sequence[Sequence[int]] = ((64, 128), (144, 288), (304, 480)),
                 depths: Sequence[int] = (2, 2, 2),
                 head: Sequence[Sequence[int]] = ((960, 3), (1024, 3), (1280, 3), (1024, 1)), num_classes: int = 1000,
                 in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.drop_rate = drop_rate
        self.stem = conv_norm_act(in_chans, 32, 3, 2)
        blocks: list[nn.Module] = []
        levels, dim = [Feature(32, 2, "stem.2")], 32
        for i, ((hidden, dim_out), depth) in enumerate(zip(stages, depths)):
            for j in range(depth):
                width = dim_out if j == depth - 1 else hidden
                blocks.append(Block(dim, hidden if j else 0, hidden, width, 1 if j else 2))
                dim = width
            levels.append(Feature(dim, 4 * 2**i, f"features.{len(blocks) - 1}"))
        self.features = Blocks(*blocks)
        self.head = nn.Sequential()
        reached = levels[-1].reduction
        for i, (width, kernel) in enumerate(head):
            stride = 1 if i % 2 else 2
            self.head.append(conv_norm_act(dim, width, kernel, stride))
            dim, reached = width, reached * stride
            if i % 2:
                levels.append(Feature(dim, reached, f"head.{i}"))
        self.feature_info = FeatureInfo(levels)
        self.global_pool = GlobalPool(global_pool)
        self.num_features, self.head_hidden_size = dim, dim * self.global_pool.width
        self.fc = linear_or_none(self.head_hidden_size, num_classes)
        init_fan_out_(self)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/64, W/64)
        return self.head(self.features(self.stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = F.dropout(self.global_pool(x), self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)

    def _steps(self) -> list[tuple[str, Any]]:
        """Blocks one by one, with a place beside the path for the map they keep."""
        place: dict[str, Tensor] = {}
        return [(path, keeping(step, place) if isinstance(step, Block) else step) for path, step in super()._steps()]

    def _blocks(self) -> list[nn.Module]:
        return [*self.features, *self.head]


def keeping(block: Block, place: dict[str, Tensor]) -> Callable[[Tensor], Tensor]:
    """The block as a function of its first argument alone."""

    def step(x: Tensor) -> Tensor:
        x, place["kept"] = block(x, place.get("kept", x))
        return x

    return step


def conv_norm_act(dim: int, dim_out: int, kernel: int, stride: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(dim, dim_out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(dim_out), nn.ReLU(inplace=True))

"""Xception: Inception taken to its extreme, depthwise separable convolutions in residual blocks (arXiv:1610.02357)."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.init import init_fan_out_
from imgzoo_layers.pool import GlobalPool

BLOCKS = tuple(f"block{i}" for i in range(1, 13))


class SeparableConv2d(nn.Module):
    """A 3x3 convolution of each channel by itself, then a 1x1 over channels."""

    def __init__(self, dim: int, dim_out: int):
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.pointwise = nn.Conv2d(dim, dim_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise(self.conv1(x))


class Block(nn.Module):
    """`count` separable convolutions on a residual: (B, C, H, W) -> (B, dim_out, H/stride, W/stride).

    The width grows in the first of them, or in the last with `grow_last`; the first block of all has no activation
    in front.
    """

    def __init__(self, dim: int, dim_out: int, count: int, stride: int = 1, activate: bool = True,
                 grow_last: bool = False):  # fmt: skip
        super().__init__()
        if dim != dim_out or stride != 1:
            self.skip: nn.Module = nn.Conv2d(dim, dim_out, 1, stride, bias=False)
            self.skipbn: nn.Module = nn.BatchNorm2d(dim_out)
        else:
            self.skip, self.skipbn = nn.Identity(), nn.Identity()
        middle = dim if grow_last else dim_out
        widths = [dim, *[middle] * (count - 1), dim_out]
        layers: list[nn.Module] = []
        for i in range(count):
            if i or activate:
                layers.append(nn.ReLU(inplace=i > 0))  # the first would write over the shortcut
            layers += [SeparableConv2d(widths[i], widths[i + 1]), nn.BatchNorm2d(widths[i + 1])]
        if stride > 1:
            layers.append(nn.MaxPool2d(3, stride, 1))
        self.rep = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.rep(x) + self.skipbn(self.skip(x))


class Front(nn.Module):
    """What is left of a block behind the deepest level: its first activation, which is that level."""

    def __init__(self):
        super().__init__()
        self.rep = nn.Sequential(nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return self.rep(x)


class Xception(ImageModel):
    parts = Parts(
        stem=("conv1", "bn1", "act1", "conv2", "bn2", "act2"),
        stages=(*BLOCKS, "conv3", "bn3", "act3", "conv4", "bn4", "act4"),
        pool="global_pool",
        head="fc",
    )
    layer_groups = {
        "stem": r"^(?:conv|bn)[12]\.",
        "blocks": [(r"^block(\d+)", None), (r"^(?:conv|bn)[34]\.", (99,))],
    }

    def __init__(self, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0):
        super().__init__(num_classes, in_chans)
        self.drop_rate = drop_rate
        self.conv1 = nn.Conv2d(in_chans, 32, 3, 2, bias=False)
        self.bn1 = nn.BatchNorm2d(32)
        self.act1 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(32, 64, 3, bias=False)
        self.bn2 = nn.BatchNorm2d(64)
        self.act2 = nn.ReLU(inplace=True)
        self.block1 = Block(64, 128, 2, 2, activate=False)
        self.block2 = Block(128, 256, 2, 2)
        self.block3 = Block(256, 728, 2, 2)
        for name in BLOCKS[3:11]:
            setattr(self, name, Block(728, 728, 3))
        self.block12 = Block(728, 1024, 2, 2, grow_last=True)
        self.conv3 = SeparableConv2d(1024, 1536)
        self.bn3 = nn.BatchNorm2d(1536)
        self.act3 = nn.ReLU(inplace=True)
        self.conv4 = SeparableConv2d(1536, 2048)
        self.bn4 = nn.BatchNorm2d(2048)
        self.act4 = nn.ReLU(inplace=True)
        self.feature_info = FeatureInfo([
            Feature(64, 2, "act2"), Feature(128, 4, "block2.rep.0"), Feature(256, 8, "block3.rep.0"),
            Feature(728, 16, "block12.rep.0"), Feature(2048, 32, "act4"),
        ])  # fmt: skip
        self.global_pool = GlobalPool(global_pool)
        self.num_features, self.head_hidden_size = 2048, 2048 * self.global_pool.width
        self.fc = linear_or_none(self.head_hidden_size, num_classes)
        init_fan_out_(self)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 2048, H/32, W/32)
        x = self.act1(self.bn1(self.conv1(x)))
        x = self.act2(self.bn2(self.conv2(x)))
        x = self.block3(self.block2(self.block1(x)))
        x = self.block7(self.block6(self.block5(self.block4(x))))
        x = self.block11(self.block10(self.block9(self.block8(x))))
        x = self.act3(self.bn3(self.conv3(self.block12(x))))
        return self.act4(self.bn4(self.conv4(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = F.dropout(self.global_pool(x), self.drop_rate, self.training)
        return x if pre_logits else self.fc(x)

    def _advance(self, path: str, step: Any, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """The first activation of a block is a level too: what the block before it hands on."""
        outputs = {f"{path}.rep.0": F.relu(x)} if isinstance(step, Block | Front) else {}
        x = step(x)
        return x, {path: x, **outputs}

    def _cut(self, level: str, chosen: list[int]) -> None:
        if level.endswith(".rep.0"):
            setattr(self, level.partition(".")[0], Front())

    def _blocks(self) -> list[nn.Module]:
        return [getattr(self, name) for name in BLOCKS]

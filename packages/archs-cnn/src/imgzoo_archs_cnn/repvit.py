"""RepViT: a mobile CNN in the manner of a ViT, of branches that merge for inference (arXiv:2307.09283)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.conv import ConvBn, create_conv
from imgzoo_layers.exchange import Acts
from imgzoo_layers.gate import SqueezeExcite
from imgzoo_layers.norm_linear import NormLinearHead, TwoHeads
from imgzoo_layers.pool import GlobalPool
from imgzoo_layers.reparam import fold_norm, identity_kernel, merged


class RepVggDw(nn.Module):
    """`kernel` x `kernel`, 1x1 and identity depthwise, summed: (B, C, H, W) -> (B, C, H, W).

    A norm stands behind the sum, or with `legacy` in the 1x1 branch.
    """

    def __init__(self, dim: int, kernel: int, legacy: bool):
        super().__init__()
        self.conv: Any = ConvBn(dim, dim, kernel, groups=dim)
        self.conv1: Any = ConvBn(dim, dim, 1, groups=dim) if legacy else create_conv(dim, dim, 1, groups=dim, bias=True)
        self.bn: Any = nn.Identity() if legacy else nn.BatchNorm2d(dim)
        self.legacy = legacy
        self.reparam_conv: nn.Conv2d | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.reparam_conv is not None:
            return self.reparam_conv(x)
        return self.bn(self.conv(x) + self.conv1(x) + x)

    @torch.no_grad()
    def reparameterize(self) -> None:
        """Replace the branches by one convolution, for inference."""
        if self.reparam_conv is not None:
            return
        conv = self.conv.c
        main = fold_norm(conv.weight, self.conv.bn)
        side = self.conv1
        point = fold_norm(side.c.weight, side.bn) if self.legacy else (side.weight, side.bias)
        eye = identity_kernel(conv.out_channels, conv.groups, conv.kernel_size[0], conv.weight)
        one: Any = merged(conv, [main, point, (eye, torch.zeros_like(conv.weight[:, 0, 0, 0]))])
        if not self.legacy:
            weight, bias = fold_norm(one.weight, self.bn, one.bias)
            one.weight, one.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.reparam_conv = one
        self.conv = self.conv1 = self.bn = None


class Mlp(nn.Module):
    """Two pointwise convolutions with norms: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.conv1 = ConvBn(dim, hidden)
        self.act = nn.GELU()
        self.conv2 = ConvBn(hidden, dim)
        nn.init.zeros_(self.conv2.bn.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.act(self.conv1(x)))


class Block(nn.Module):
    """Mix space, then channels: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, gated: bool, kernel: int, mlp_ratio: float, legacy: bool):
        super().__init__()
        self.token_mixer = RepVggDw(dim, kernel, legacy)
        self.se = SqueezeExcite(dim, 0.25) if gated else nn.Identity()
        self.channel_mixer = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        x = self.se(self.token_mixer(x))
        return x + self.channel_mixer(x)


class Downsample(nn.Module):
    """Halve the map depthwise, then change its width: (B, C, H, W) -> (B, dim, H/2, W/2)."""

    def __init__(self, dim_in: int, dim: int, kernel: int, mlp_ratio: float, legacy: bool):
        super().__init__()
        self.pre_block = Block(dim_in, False, kernel, mlp_ratio, legacy)
        self.spatial_downsample = ConvBn(dim_in, dim_in, kernel, 2, groups=dim_in)
        self.channel_downsample = ConvBn(dim_in, dim)
        self.ffn = Mlp(dim, int(dim * mlp_ratio))

    def forward(self, x: Tensor) -> Tensor:
        x = self.channel_downsample(self.spatial_downsample(self.pre_block(x)))
        return x + self.ffn(x)


class Stage(nn.Module):
    """Blocks of one width, every other one gated."""

    def __init__(self, downsample: nn.Module, blocks: list[nn.Module]):
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class Stem(nn.Module):
    """(B, 3, H, W) -> (B, dim, H/4, W/4)."""

    def __init__(self, in_chans: int, dim: int):
        super().__init__()
        self.conv1 = ConvBn(in_chans, dim // 2, 3, 2)
        self.act1 = nn.GELU()
        self.conv2 = ConvBn(dim // 2, dim, 3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.act1(self.conv1(x)))


class RepVit(NormLinearHead, ImageModel):
    """Args:
    kernel: side of the depthwise convolutions
    legacy: the norm in the 1x1 branch, not behind the sum
    distilled: a second head for distillation
    """

    exchanged = (Acts("gelu"),)
    parts = Parts(pool="pool", head=("head.head.l", "head.head_dist.l"), taught="head.head_dist")
    layer_groups = {
        "stem": r"^stem",
        "blocks": [(r"^stages\.(\d+)\.downsample", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)],
        "coarse": r"^stages\.(\d+)",
    }
    layout = "plain"

    def __init__(self, embed_dim: Sequence[int] = (48, 96, 192, 384), depth: Sequence[int] = (2, 2, 14, 2),
                 kernel: int = 3, mlp_ratio: float = 2.0, legacy: bool = False, distilled: bool = True,
                 num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg",
                 drop_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.stem = Stem(in_chans, embed_dim[0])
        stages, common = [], (kernel, mlp_ratio, legacy)
        for i, dim in enumerate(embed_dim):
            down = Downsample(embed_dim[i - 1], dim, *common) if i else nn.Identity()
            stages.append(Stage(down, [Block(dim, j % 2 == 0, *common) for j in range(depth[i])]))
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(Feature(dim, 4 * 2**i, f"stages.{i}") for i, dim in enumerate(embed_dim))
        self.num_features = embed_dim[-1]
        self.pool = GlobalPool(global_pool)
        self.head_hidden_size = self.num_features * self.pool.width
        self.head = TwoHeads(self.head_hidden_size, num_classes, drop_rate, distilled)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.stages(self.stem(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False):
        x = self.pool(x)
        return x if pre_logits else self.head(x)

    @torch.jit.ignore  # pyright: ignore[reportArgumentType]
    def set_distilled_training(self, enable: bool = True) -> None:
        """While training, return the two classifiers' logits apart, where there are two."""
        self.head.apart = enable

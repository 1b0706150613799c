"""iFormer: ConvNeXt-like blocks, and single-head attention modulated by a gate (arXiv:2501.15369)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.attention import Attending
from imgzoo_layers.conv import ConvBn
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Acts
from imgzoo_layers.init import trunc_normal_
from imgzoo_layers.norm_linear import NormLinearHead, TwoHeads
from imgzoo_layers.pool import GlobalPool
from imgzoo_layers.reparam import fold_norm, identity_kernel, merged
from imgzoo_layers.stage import Stage


class Residual(nn.Module):
    """x + drop_path(gamma * module(x)): (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, module: nn.Module, layer_scale: float, drop_path: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((1, dim, 1, 1), layer_scale)) if layer_scale else None
        self.module = module
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.module(x)
        if self.gamma is not None:
            y = y * self.gamma
        return x + self.drop_path(y)


class Mixed(nn.Module):
    """A residual under the key `mixer`."""

    def __init__(self, dim: int, module: nn.Module, layer_scale: float, drop_path: float):
        super().__init__()
        self.mixer = Residual(dim, module, layer_scale, drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return self.mixer(x)


class Position(nn.Module):
    """x plus a 3x3 of each channel with a norm (arXiv:2102.10882), one convolution once merged."""

    def __init__(self, dim: int):
        super().__init__()
        self.cpe: Any = Residual(dim, ConvBn(dim, dim, 3, groups=dim), 0.0, 0.0)
        self.reparam_conv: nn.Conv2d | None = None

    def forward(self, x: Tensor) -> Tensor:
        return self.cpe(x) if self.reparam_conv is None else self.reparam_conv(x)

    def reparameterize(self) -> None:
        """Replace convolution, norm and skip by one convolution, for inference."""
        if self.reparam_conv is None:
            conv, norm = self.cpe.module.c, self.cpe.module.bn
            eye = identity_kernel(conv.out_channels, conv.groups, 1, conv.weight)
            self.reparam_conv = merged(conv, [fold_norm(conv.weight, norm), (eye, torch.zeros_like(norm.bias))])
            self.cpe = None


class ModulationAttention(Attending):
    """One head attends, a gate modulates what it found: (B, C, H, W) -> (B, C, H, W); section 3.3."""

    def __init__(self, dim: int, head_dim: int, ratio: int):
        super().__init__(1, head_dim, fused=False)
        self.dim = ratio * dim
        self.q = ConvBn(dim, head_dim)
        self.k = ConvBn(dim, head_dim)
        self.v_gate = ConvBn(dim, 2 * ratio * dim)
        self.proj = ConvBn(ratio * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        v, gate = self.v_gate(x).sigmoid().split(self.dim, 1)
        y = self.attend(one_head(self.q(x)), one_head(self.k(x)), one_head(v)).squeeze(1)
        return self.proj(y.transpose(1, 2).unflatten(2, (height, width)) * gate)


def one_head(x: Tensor) -> Tensor:  # (B, C, H, W) -> (B, 1, N, C)
    return x.flatten(2).transpose(1, 2).unsqueeze(1)


class Stem(nn.Module):
    """(B, 3, H, W) -> (B, dim, H/4, W/4)."""

    def __init__(self, in_chans: int, dim: int):
        super().__init__()
        self.conv1 = ConvBn(in_chans, dim // 2, 5, 2)
        self.act1 = nn.GELU()
        self.conv2 = ConvBn(dim // 2, 2 * dim, 5, 2)
        self.act2 = nn.GELU()
        self.conv3 = ConvBn(2 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(self.act2(self.conv2(self.act1(self.conv1(x)))))


class IFormer(NormLinearHead, ImageModel):
    """`depths` count every block; of a stage `attn_groups` triples are position, attention and mlp, and the last of
    the convolutional blocks comes behind them. Heads are `head_reductions` times narrower than the stage.

    Args:
        attn_groups: triples of position, attention and mlp in each stage
        head_reductions: how much narrower than the stage its attention is
        conv_ratio: hidden channels of the convolutional blocks as a multiple of the width
        attn_ratio: channels that attention mixes as a multiple of the width
        ffn_ratio: hidden channels of the mlps as a multiple of the width
        distilled: a second head for distillation
    """

    exchanged = (Acts("gelu"),)
    parts = Parts(pool="pool", head=("head.head.l", "head.head_dist.l"), taught="head.head_dist")
    layer_groups = {
        "stem": r"^stem",
        "blocks": [
            (r"^stages\.(\d+)\.downsample", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^head", (99999,)),
        ],
        "coarse": r"^stages\.(\d+)",
    }

    def __init__(self, dims: Sequence[int] = (48, 96, 192, 384), depths: Sequence[int] = (2, 2, 22, 6),
                 attn_groups: Sequence[int] = (0, 0, 4, 2), head_reductions: Sequence[int] = (0, 0, 2, 4),
                 conv_ratio: int = 4, attn_ratio: int = 1, ffn_ratio: int = 3, layer_scale: float = 0.0,
                 distilled: bool = False, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg",
                 drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.stem = Stem(in_chans, dims[0])
        stages, levels = [], []
        for i, drops in enumerate(drop_path_rates(drop_path_rate, depths)):
            if attn_groups[i] and not head_reductions[i]:
                raise ValueError(f"stage {i} attends (attn_groups), so its head_reductions is at least 1")
            dim, convs, blocks = dims[i], depths[i] - 3 * attn_groups[i], []
            for j, drop in enumerate(drops):
                place = j - max(convs - 1, 0)  # among the triples
                if not 0 <= place < 3 * attn_groups[i]:
                    blocks.append(Mixed(dim, conv_mixer(dim, conv_ratio), layer_scale, drop))
                elif place % 3 == 0:
                    blocks.append(Position(dim))
                else:
                    attends = place % 3 == 1
                    module = (ModulationAttention(dim, dim // head_reductions[i], attn_ratio) if attends
                              else ffn(dim, ffn_ratio))  # fmt: skip
                    blocks.append(Mixed(dim, module, layer_scale, drop))
            down = ConvBn(dims[i - 1], dim, 3, 2) if i else nn.Identity()
            stages.append(Stage(down, *blocks))
            levels.append(Feature(dim, 4 * 2**i, f"stages.{i}"))
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dims[-1]
        self.pool = GlobalPool(global_pool)
        self.head_hidden_size = dims[-1] * self.pool.width
        self.head = TwoHeads(self.head_hidden_size, num_classes, drop_rate, distilled)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                trunc_normal_(module.weight, std=0.02)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.stages(self.stem(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False):
        x = self.pool(x)
        return x if pre_logits else self.head(x)

    @torch.jit.ignore  # pyright: ignore[reportArgumentType]
    def set_distilled_training(self, enable: bool = True) -> None:
        """While training, return the two classifiers' logits apart, where there are two."""
        self.head.apart = enable


def conv_mixer(dim: int, ratio: int) -> nn.Sequential:
    """7x7 of each channel, then two pointwise layers."""
    return nn.Sequential(ConvBn(dim, dim, 7, groups=dim), *ffn(dim, ratio))


def ffn(dim: int, ratio: int) -> nn.Sequential:
    """Two pointwise layers."""
    return nn.Sequential(ConvBn(dim, ratio * dim), nn.GELU(), ConvBn(ratio * dim, dim))

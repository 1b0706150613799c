"""RDNet: DenseNet revived, wide and shallow, of ConvNeXt's layers (arXiv:2403.19588)."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from imgzoo.errors import UsageError
from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.drop import drop_path_of, drop_path_rates, dropout_of
from imgzoo_layers.exchange import Acts, Biases, HeadScale, Norms
from imgzoo_layers.gate import EffectiveSqueezeExcite
from imgzoo_layers.head import norm_and_head
from imgzoo_layers.norm import LayerNorm2d, Norm

BLOCKS = 3
"""Dense blocks between two transitions."""


class DenseBlock(nn.Module):
    """New features from all before, scaled: (B, C, H, W) -> (B, growth, H, W)."""

    def __init__(self, dim: int, growth: int, ratio: float, gated: bool, norm: Norm, layer_scale: float, drop: float,
                 drop_path: float):  # fmt: skip
        super().__init__()
        self.gamma = nn.Parameter(torch.full((growth,), layer_scale))
        hidden = int(dim * ratio / 8) * 8
        layers = [nn.Conv2d(dim, dim, 7, padding=3, groups=dim), norm(dim), nn.Conv2d(dim, hidden, 1),
                  nn.GELU(), nn.Conv2d(hidden, growth, 1)]  # fmt: skip
        if gated:
            layers.append(EffectiveSqueezeExcite(growth))
        self.layers = nn.Sequential(OrderedDict(layers=nn.Sequential(*layers)))
        self.drop_path = drop_path_of(drop_path)
        self.drop = dropout_of(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.drop_path(self.layers(x) * self.gamma[:, None, None]))


class DenseStage(nn.Sequential):
    """Blocks that each add to what they read: (B, C, H, W) -> (B, C + growths, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        for block in self:
            x = torch.cat([x, block(x)], dim=1)
        return x


class RDNet(ImageModel):
    """Of every level the first transition halves the map; all halve the width, or leave another share of it.

    Args:
        stem_dim: channels of the stem
        stem: "patch", or "overlap" for two strided 3x3 convolutions
        patch_size: side of a patch of the stem "patch" in pixels
        growth_rates: channels that each block of a stage adds
        bottle_ratio: hidden channels of a block as a multiple of those it reads
        transition_ratio: share of the channels that a transition leaves
        head_norm_first: norm before the pool
    """

    exchanged = (Acts("gelu"), Norms("layernorm2d"), Biases(("stem.*",), ("conv_bias",)), HeadScale())
    parts = Parts(stages=("dense_stages",), norm=("norm_pre",))
    layer_groups = {"stem": r"^stem", "blocks": r"^dense_stages\.(\d+)"}

    def __init__(self, stem_dim: int = 64, depths: Sequence[int] = (1, 1, 4, 1),
                 growth_rates: Sequence[int] = (64, 104, 128, 224), bottle_ratio: float = 4.0,
                 transition_ratio: float = 0.5, eps: float = 1e-6, layer_scale: float = 1e-6,
                 head_norm_first: bool = False,
                 stem: Literal["patch", "overlap"] = "patch", patch_size: int = 4, num_classes: int = 1000,
                 in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        norm = partial(LayerNorm2d, eps=eps)
        dim = stem_dim
        if stem == "overlap" and patch_size != 4:
            raise UsageError(f"convolutions that overlap reduce the image by 4: leave patch_size={patch_size} out")
        convs = [(patch_size, patch_size, 0)] if stem == "patch" else [(3, 2, 1), (3, 2, 1)]
        widths = (in_chans, dim)
        self.stem = nn.Sequential(*(nn.Conv2d(wide, dim, *each) for wide, each in zip(widths, convs)), norm(dim))
        drops = iter(drop_path_rates(drop_path_rate, [BLOCKS] * sum(depths)))
        stages, levels = [], []
        for i, (depth, growth) in enumerate(zip(depths, growth_rates, strict=True)):
            for j in range(depth):
                layers: list[nn.Module] = []
                if stages:
                    out, stride = max(int(dim * transition_ratio) // 8, 1) * 8, 1 if j else 2
                    layers += [norm(dim), nn.Conv2d(dim, out, stride, stride)]
                    dim = out
                blocks: OrderedDict[str, nn.Module] = OrderedDict()
                for k, drop in enumerate(next(drops)):
                    blocks[f"dense_block{k}"] = DenseBlock(dim, growth, bottle_ratio, i > 1, norm, layer_scale,
                                                           proj_drop_rate, drop)  # fmt: skip
                    dim += growth
                stages.append(nn.Sequential(*layers, DenseStage(blocks)))
            levels.append(Feature(dim, patch_size * 2**i, f"dense_stages.{len(stages) - 1}"))
        self.dense_stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim
        self.norm_pre, self.head = norm_and_head(dim, num_classes, global_pool, drop_rate, norm, head_norm_first)
        self.head_hidden_size = dim * self.head.global_pool.width
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)
            elif isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.norm_pre(self.dense_stages(self.stem(x)))

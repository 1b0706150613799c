"""SHViT: one attention head on some of the channels of a coarsely patched image (arXiv:2401.16456)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.attention import Attending
from imgzoo_layers.conv import ConvBn
from imgzoo_layers.exchange import Acts, Norms
from imgzoo_layers.gate import SqueezeExcite
from imgzoo_layers.norm import GroupNorm1
from imgzoo_layers.norm_linear import NormLinear, NormLinearHead
from imgzoo_layers.pool import GlobalPool
from imgzoo_layers.stage import Stage
from imgzoo_layers.util import Layer


class Residual(nn.Module):
    """x + m(x)."""

    def __init__(self, m: nn.Module):
        super().__init__()
        self.m = m

    def forward(self, x: Tensor) -> Tensor:
        return x + self.m(x)


class PatchMerging(nn.Module):
    """Expand, halve the map depthwise, gate, project: (B, C, H, W) -> (B, dim_out, H/2, W/2)."""

    def __init__(self, dim: int, dim_out: int, layer: Layer = ConvBn):
        super().__init__()
        self.conv1 = layer(dim, 4 * dim)
        self.act1 = nn.ReLU()
        self.conv2 = layer(4 * dim, 4 * dim, 3, 2, 4 * dim)
        self.act2 = nn.ReLU()
        self.se = SqueezeExcite(4 * dim, 0.25)
        self.conv3 = layer(4 * dim, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act2(self.conv2(self.act1(self.conv1(x))))
        return self.conv3(self.se(x))


class Mlp(nn.Module):
    """Two pointwise convolutions with norms, the hidden width doubled: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, layer: Layer = ConvBn):
        super().__init__()
        self.pw1 = layer(dim, 2 * dim)
        self.act = nn.ReLU()
        self.pw2 = layer(2 * dim, dim, scale=0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.pw2(self.act(self.pw1(x)))


class SingleHeadAttention(Attending):
    """One head attends with `part` of the channels, the others pass; all projected: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, part: int, key_dim: int):
        super().__init__(1, key_dim, fused=False)
        if part > dim:
            raise ValueError(f"{part} of {dim} channels cannot attend: partial_dim is at most the channels of a stage")
        self.splits, self.widths = [part, dim - part], [key_dim, key_dim, part]
        self.pre_norm = GroupNorm1(part)
        self.qkv = ConvBn(part, 2 * key_dim + part)
        self.proj = nn.Sequential(nn.ReLU(), ConvBn(dim, dim, scale=0.0))

    def forward(self, x: Tensor) -> Tensor:
        part, others = torch.split(x, self.splits, 1)
        q, k, v = torch.split(self.qkv(self.pre_norm(part)).flatten(2).transpose(1, 2), self.widths, 2)
        y = self.attend(q[:, None], k[:, None], v[:, None])[:, 0]
        y = y.transpose(1, 2).unflatten(2, (x.shape[2], x.shape[3]))
        return self.proj(torch.cat([y, others], dim=1))


class Block(nn.Module):
    """Depthwise, attention (if `part`), mlp, each on a residual: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, part: int, key_dim: int):
        super().__init__()
        self.conv = depthwise(dim, scale=0.0)
        self.mixer = Residual(SingleHeadAttention(dim, part, key_dim)) if part else nn.Identity()
        self.ffn = Residual(Mlp(dim))

    def forward(self, x: Tensor) -> Tensor:
        return self.ffn(self.mixer(self.conv(x)))


class SHViT(NormLinearHead, ImageModel):
    """Attention begins with the second stage.

    Args:
        partial_dim: channels that attend, by stage
        qk_dim: channels of queries and keys, by stage
    """

    exchanged = (Acts("relu", ("!*.ffn.m.act", "!*.se.act")), Norms("groupnorm1"))
    parts = Parts(stem=("patch_embed",), pool="global_pool", head="head.l")
    layer_groups = {
        "stem": r"^patch_embed",
        "blocks": [(r"^stages\.(\d+)\.downsample", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)],
        "coarse": r"^stages\.(\d+)",
    }

    def __init__(self, embed_dim: Sequence[int] = (128, 224, 320), depth: Sequence[int] = (2, 4, 5),
                 partial_dim: Sequence[int] = (32, 48, 68), qk_dim: Sequence[int] = (16, 16, 16),
                 num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg",
                 drop_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        dim, stem = in_chans, []
        for share in (8, 4, 2, 1):
            stem += [ConvBn(dim, embed_dim[0] // share, 3, 2), nn.ReLU()]
            dim = embed_dim[0] // share
        self.patch_embed = nn.Sequential(*stem[:-1])
        stages, levels = [], []
        for i, out in enumerate(embed_dim):
            down: nn.Module = nn.Identity()
            if i:
                down = nn.Sequential(depthwise(dim), Residual(Mlp(dim)), PatchMerging(dim, out), depthwise(out),
                                     Residual(Mlp(out)))  # fmt: skip
            stages.append(Stage(down, *(Block(out, partial_dim[i] if i else 0, qk_dim[i]) for _ in range(depth[i]))))
            levels.append(Feature(out, 16 * 2**i, f"stages.{i}"))
            dim = out
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim
        self.global_pool = GlobalPool(global_pool)
        self.head_hidden_size = dim * self.global_pool.width
        self.head_drop = nn.Dropout(drop_rate)
        self.head = NormLinear(self.head_hidden_size, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/64, W/64)
        return self._through_stages(self.patch_embed(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.head_drop(self.global_pool(x))
        return x if pre_logits else self.head(x)


def depthwise(dim: int, scale: float = 1.0) -> nn.Module:
    """3x3 on a residual."""
    return Residual(ConvBn(dim, dim, 3, groups=dim, scale=scale))

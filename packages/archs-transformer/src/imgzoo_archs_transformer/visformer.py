"""Visformer: convolutions at high resolution, attention below, batch norm throughout (arXiv:2104.12533)."""

import itertools
import math
import operator
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo.errors import UsageError
from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts, Shortened
from imgzoo_layers.attention import Attending, head_width
from imgzoo_layers.drop import drop_path_of, drop_path_rates, dropout_of
from imgzoo_layers.exchange import Norms
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.init import trunc_normal_
from imgzoo_layers.pool import GlobalPool
from imgzoo_layers.tables import MapTable
from imgzoo_layers.util import pair


class PatchEmbed(nn.Module):
    """Merge squares of positions: (B, C, H, W) -> (B, dim_out, H/size, W/size)."""

    def __init__(self, dim: int, dim_out: int, size: int):
        super().__init__()
        self.proj = nn.Conv2d(dim, dim_out, size, size)
        self.norm = nn.BatchNorm2d(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x))


class SpatialMlp(nn.Module):
    """Two pointwise layers; with `groups` a grouped 3x3 between them: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, hidden: int, groups: int, drop: float):
        super().__init__()
        self.conv1 = nn.Conv2d(dim, hidden, 1, bias=False)
        self.act1 = nn.GELU()
        self.drop1 = dropout_of(drop)
        spatial = nn.Conv2d(hidden, hidden, 3, padding=1, groups=groups, bias=False) if groups else nn.Identity()
        self.conv2: nn.Module = spatial
        self.act2 = nn.GELU() if groups else nn.Identity()
        self.conv3 = nn.Conv2d(hidden, dim, 1, bias=False)
        self.drop3 = dropout_of(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop3(self.conv3(self.act2(self.conv2(self.drop1(self.act1(self.conv1(x)))))))


class Attention(Attending):
    """Self-attention between the positions of a map: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, heads: int, attn_drop: float, proj_drop: float):
        super().__init__(heads, head_width(dim, heads), attn_drop)
        self.qkv = nn.Conv2d(dim, 3 * dim, 1, bias=False)
        self.proj = nn.Conv2d(dim, dim, 1, bias=False)
        self.proj_drop = dropout_of(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        qkv = self.qkv(x).flatten(2).unflatten(1, (3, self.num_heads, self.head_dim))
        q, k, v = qkv.permute(1, 0, 2, 4, 3).unbind(0)
        x = self.attend(q, k, v).transpose(2, 3).flatten(1, 2).unflatten(2, (height, width))
        return self.proj_drop(self.proj(x))


class SpatialBlock(nn.Module):
    """An mlp that sees neighbors, on a residual: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, mlp: nn.Module, drop_path: float):
        super().__init__()
        self.norm2 = nn.BatchNorm2d(dim)
        self.mlp = mlp
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.mlp(self.norm2(x)))


class AttentionBlock(nn.Module):
    """Attention, then an mlp, each on a residual: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, attn: nn.Module, mlp: nn.Module, drop_path: float):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(dim)
        self.attn = attn
        self.norm2 = nn.BatchNorm2d(dim)
        self.mlp = mlp
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.attn(self.norm1(x)))
        return x + self.drop_path(self.mlp(self.norm2(x)))


class Visformer(ImageModel):
    """Args:
    init_channels: channels of the stem
    embed_dim: channels of the middle stage
    """

    exchanged = (Norms("batchnorm", ("!patch_embed*.norm", "!stem.1")),)
    parts = Parts(
        stages=("patch_embed1", "pos_embed1", "stage1", "patch_embed2", "pos_embed2", "stage2", "patch_embed3",
                "pos_embed3", "stage3"),
        norm=("norm",), pool="global_pool", head="head",
    )  # fmt: skip
    shortened = Shortened
    tables = {f"pos_embed{i}": MapTable(f"grid{i}") for i in (1, 2, 3)}
    layer_groups = {
        "stem": r"^patch_embed1|pos_embed1|stem",
        "blocks": [
            (r"^stage(\d+)\.(\d+)", None),
            (r"^(?:patch_embed|pos_embed)(\d+)", (0,)),
            (r"^norm", (99999,)),
        ],
    }

    def __init__(self, img_size: int | tuple[int, int] = 224, init_channels: int = 32, embed_dim: int = 384,
                 depths: Sequence[int] = (7, 4, 4), num_heads: int = 6, mlp_ratio: float = 4.0, groups: int = 8,
                 patch_size: int = 16, abs_pos: bool = True, num_classes: int = 1000, in_chans: int = 3,
                 global_pool: str = "avg", drop_rate: float = 0.0, pos_drop_rate: float = 0.0,
                 proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.img_size = pair(img_size)
        self.sides = (patch_size // 4, patch_size // 8, patch_size // 8)
        self._set_grids(self.img_size)
        dims = [embed_dim // 2, embed_dim, 2 * embed_dim]
        grids = (self.grid1, self.grid2, self.grid3)
        self.pos_embed1, self.pos_embed2, self.pos_embed3 = (
            nn.Parameter(torch.empty(1, dim, *grid)) if abs_pos else None for dim, grid in zip(dims, grids)
        )
        if not abs_pos:
            stages = tuple(name for name in self.parts.stages if not name.startswith("pos_embed"))
            self.parts = self.parts._replace(stages=stages)  # pyright: ignore[reportAttributeAccessIssue]
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, init_channels, 7, 2, 3, bias=False),
            nn.BatchNorm2d(init_channels),
            nn.ReLU(inplace=True),
        )
        self.pos_drop = dropout_of(pos_drop_rate)
        rates = drop_path_rates(drop_path_rate, depths)
        drops = (attn_drop_rate, proj_drop_rate)
        self.patch_embed1 = PatchEmbed(init_channels, dims[0], self.sides[0])
        self.stage1 = nn.Sequential(
            *(SpatialBlock(dims[0], SpatialMlp(dims[0], 2 * dims[0], groups, drops[1]), rate) for rate in rates[0])
        )
        self.patch_embed2 = PatchEmbed(dims[0], dims[1], self.sides[1])
        self.stage2 = attend(dims[1], num_heads, mlp_ratio, *drops, rates[1])
        self.patch_embed3 = PatchEmbed(dims[1], dims[2], self.sides[2])
        self.stage3 = attend(dims[2], num_heads, mlp_ratio, *drops, rates[2])
        self.feature_info = FeatureInfo(
            Feature(dim, 2 * math.prod(self.sides[: i + 1]), f"stage{i + 1}") for i, dim in enumerate(dims)
        )
        self.num_features = dims[2]
        self.norm = nn.BatchNorm2d(dims[2])
        self.global_pool = GlobalPool(global_pool)
        self.head_hidden_size = dims[2] * self.global_pool.width
        self.head_drop = nn.Dropout(drop_rate)
        self.head = linear_or_none(self.head_hidden_size, num_classes)
        init_(self)

    def _set_grids(self, size: tuple[int, int]) -> None:
        height, width = ((side + 1) // 2 for side in size)
        first, second, third = itertools.accumulate(self.sides, operator.mul)
        self.grid1 = (height // first, width // first)
        self.grid2, self.grid3 = (height // second, width // second), (height // third, width // third)
        if not all(self.grid3):
            raise UsageError(f"patches of {self.sides} positions, one in another, are larger than {size} pixels")

    def fit_size(self, img_size: tuple[int, int], **options: Any) -> None:
        super().fit_size(img_size, **options)
        self._set_grids(img_size)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        x = self.stage1(self.placed(self.patch_embed1(self.stem(self.sized_input(x))), self.pos_embed1))
        x = self.stage2(self.placed(self.patch_embed2(x), self.pos_embed2))
        return self.norm(self.stage3(self.placed(self.patch_embed3(x), self.pos_embed3)))

    def placed(self, x: Tensor, table: Tensor | None) -> Tensor:
        """A map with its positions, if there are any."""
        return self.pos_drop(x) if table is None else self.pos_drop(x + table)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.head_drop(self.global_pool(x))
        return x if pre_logits else self.head(x)

    def _advance(self, path: str, step: Any, x: Any) -> tuple[Any, dict[str, Any]]:
        x = self.pos_drop(x + step) if path.startswith("pos_embed") else step(x)
        if path.startswith("patch_embed") and self.pos_embed1 is None:
            x = self.pos_drop(x)
        return x, {path: x}


def attend(dim: int, heads: int, mlp_ratio: float, attn_drop: float, proj_drop: float,
           rates: list[float]) -> nn.Sequential:  # fmt: skip
    """Blocks of attention."""
    return nn.Sequential(*(
        AttentionBlock(dim, Attention(dim, heads, attn_drop, proj_drop),
                       SpatialMlp(dim, int(dim * mlp_ratio), 0, proj_drop), rate)
        for rate in rates
    ))  # fmt: skip


def init_(model: Visformer) -> None:
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    for table in (model.pos_embed1, model.pos_embed2, model.pos_embed3):
        if table is not None:
            trunc_normal_(table, std=0.02)

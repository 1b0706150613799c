"""The image encoder of Segment Anything (arXiv:2304.02643): a ViT in windows, with relative positions (2203.16527)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo.errors import UsageError
from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.attention import Attending, head_width, layer_scale_of
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Acts, Biases, Norms
from imgzoo_layers.head import ClassifierHead
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import LayerNorm, LayerNorm2d
from imgzoo_layers.padding import pad_to_multiple
from imgzoo_layers.position import resize_map_last, resize_offsets
from imgzoo_layers.tables import LastTable, OffsetTable, Size, Tabled
from imgzoo_layers.util import pair
from imgzoo_layers.window import from_windows, to_windows


class PatchEmbed(nn.Module):
    """Cut the image into patches and project each: (B, 3, H, W) -> (B, h, w, C)."""

    def __init__(self, patch_size: Size, in_chans: int, dim: int, bias: bool = True):
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, patch_size, patch_size, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).permute(0, 2, 3, 1)


class Attention(Tabled, Attending):
    """Attention over a map that also scores by how far rows and columns lie apart: (B, H, W, C) -> (B, H, W, C)."""

    tables = {f"rel_pos_{side}": OffsetTable(axis=axis, align_corners=False) for axis, side in enumerate("hw")}

    def __init__(self, dim: int, heads: int, grid: Size, rel_pos: bool, qk_norm: bool, attn_drop: float,
                 proj_drop: float):  # fmt: skip
        super().__init__(heads, head_width(dim, heads), attn_drop)
        self.grid = grid
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * grid[0] - 1, self.head_dim)) if rel_pos else None
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * grid[1] - 1, self.head_dim)) if rel_pos else None
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = nn.LayerNorm(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = nn.LayerNorm(self.head_dim) if qk_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        grid = x.shape[1], x.shape[2]
        qkv = self.qkv(x).flatten(1, 2).unflatten(2, (3, self.num_heads, self.head_dim))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        q, k = self.q_norm(q), self.k_norm(k)
        x = self.attend(q, k, v, self.bias(q, grid)).transpose(1, 2).flatten(2).unflatten(1, grid)
        return self.proj_drop(self.proj(x))

    def bias(self, q: Tensor, grid: Size) -> Tensor | None:
        """Scores by distance (B, heads, N, N) of queries (B, heads, N, D)."""
        if self.rel_pos_h is None or self.rel_pos_w is None:
            return None
        places = q.unflatten(2, grid)
        by_row = torch.einsum("bnhwd,hdk->bnhwk", places, by_distance(self.rel_pos_h, grid[0]))
        by_column = torch.einsum("bnhwd,wdk->bnhwk", places, by_distance(self.rel_pos_w, grid[1]))
        return (by_row.unsqueeze(-1) + by_column.unsqueeze(-2)).flatten(4).flatten(2, 3)


class Block(nn.Module):
    """Attention in windows (0: over the map), then mlp, each normalized first: (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int, heads: int, grid: Size, window: int, mlp_ratio: float, rel_pos: bool, qk_norm: bool,
                 layer_scale: float | None, drop: float, attn_drop: float, drop_path: float):  # fmt: skip
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads, (window, window) if window else grid, rel_pos, qk_norm, attn_drop, drop)
        self.ls1 = layer_scale_of(dim, layer_scale)
        self.drop_path1 = drop_path_of(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=drop)
        self.ls2 = layer_scale_of(dim, layer_scale)
        self.drop_path2 = drop_path_of(drop_path)

    def attend(self, x: Tensor) -> Tensor:
        if not self.window:
            return self.attn(x)
        height, width, window = x.shape[1], x.shape[2], (self.window, self.window)
        x = pad_to_multiple(x, window)
        high, wide = x.shape[1], x.shape[2]
        x = self.attn(to_windows(x, window).unflatten(1, window)).flatten(1, 2)
        return from_windows(x, window, high, wide)[:, :height, :width]

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.ls1(self.attend(self.norm1(x))))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class Neck(nn.Sequential):
    """Two convolutions to fewer channels: (B, C, H, W) -> (B, C', H, W)."""

    def __init__(self, dim: int, dim_out: int):
        first, second = nn.Conv2d(dim, dim_out, 1, bias=False), nn.Conv2d(dim_out, dim_out, 3, padding=1, bias=False)
        super().__init__(first, LayerNorm2d(dim_out), second, LayerNorm2d(dim_out))


class VisionTransformerSAM(ImageModel):
    """Without `neck_chans` a norm takes the neck's place.

    Args:
        rel_pos: scores by how far rows and columns lie apart
        neck_chans: channels of the neck; none or 0 for a norm in its place
    """

    exchanged = (Acts("gelu"), Norms("layernorm", ("!neck*",)), Biases(("*.attn.qkv",)))
    parts = Parts(stem=("embed",), stages=("blocks",), norm=("neck",))
    isotropic = True
    layer_groups = {"stem": r"^pos_embed|patch_embed", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}
    no_decay = ("pos_embed",)
    tables = {"pos_embed": LastTable()}
    layout = "plain"

    def __init__(self, img_size: int | Size = 1024, patch_size: int | Size = 16, embed_dim: int = 768, depth: int = 12,
                 num_heads: int = 12, mlp_ratio: float = 4.0, window_size: int = 14,
                 global_blocks: Sequence[int] = (2, 5, 8, 11), abs_pos: bool = True, rel_pos: bool = True,
                 qk_norm: bool = False, pre_norm: bool = False, layer_scale: float | None = None,
                 neck_chans: int | None = 256, dynamic_img_size: bool = False, num_classes: int = 1000,
                 in_chans: int = 3, global_pool: str = "avg",
                 drop_rate: float = 0.0, pos_drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
                 attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        dim = embed_dim
        self.img_size, self.patch_size, self.dynamic_img_size = pair(img_size), pair(patch_size), dynamic_img_size
        self.grid = self.grid_of(self.img_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, *self.grid, dim)) if abs_pos else None
        self.patch_embed = PatchEmbed(self.patch_size, in_chans, dim, bias=not pre_norm)
        self.pos_drop = nn.Dropout(pos_drop_rate)
        self.norm_pre = LayerNorm(dim) if pre_norm else nn.Identity()
        windows = [0 if i in global_blocks else window_size for i in range(depth)]
        self.blocks = nn.Sequential(*(
            Block(dim, num_heads, self.grid, window, mlp_ratio, rel_pos, qk_norm, layer_scale, proj_drop_rate,
                  attn_drop_rate, drop) for window, drop in zip(windows, drop_path_rates(drop_path_rate, depth)[0])
        ))  # fmt: skip
        self.feature_info = FeatureInfo(Feature(dim, self.patch_size[0], f"blocks.{i}") for i in range(depth))
        self.neck = Neck(dim, neck_chans) if neck_chans else LayerNorm2d(dim)
        self.num_features = neck_chans or dim
        self.normed_width = self.num_features
        self.head = ClassifierHead(self.num_features, num_classes, global_pool, drop_rate)
        self.head_hidden_size = self.num_features * self.head.global_pool.width

    def grid_of(self, img_size: Size) -> Size:
        if img_size[0] % self.patch_size[0] or img_size[1] % self.patch_size[1]:
            raise UsageError(f"img_size {img_size} does not divide into patches of {self.patch_size}")
        return img_size[0] // self.patch_size[0], img_size[1] // self.patch_size[1]

    def embed(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, h, w, C)
        x = self.patch_embed(self.sized_input(x))
        if self.pos_embed is not None:
            x = x + self.resized_table(self.pos_embed, (x.shape[1], x.shape[2]))
        return self.norm_pre(self.pos_drop(x))

    def resized_table(self, table: Tensor, grid: Size) -> Tensor:
        return resize_map_last(table, grid)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, h, w)
        return self._final_norm(self.blocks(self.embed(x)))

    def _final_norm(self, x: Tensor) -> Tensor:
        return self.neck(x.permute(0, 3, 1, 2))

    def _collect(self, x: Tensor, norm: bool) -> Tensor:
        return self._final_norm(x) if norm else x.permute(0, 3, 1, 2)

    def _stopped(self, x: Tensor) -> Tensor:
        return self._final_norm(x)

    def sized(self):
        return [(block.attn, self.grid) for block in self.blocks if not block.window]

    def fit_size(self, img_size: Size, **options: Any) -> None:
        self.grid = self.grid_of(img_size)
        super().fit_size(img_size, **options)


def by_distance(table: Tensor, length: int) -> Tensor:
    """Rows (2n - 1, D) by how far a query lies behind a key -> (n queries, D, n keys), of a map of any length n."""
    return resize_offsets(table, [length], align_corners=False).unfold(0, length, 1).flip(2)

"""Attention on two axes of a map: near, in windows, and far, on a grid across it (arXiv:2204.01697, section 3.2)."""

import torch
from torch import Tensor, nn

from imgzoo_layers.attention import Attending, LayerScale
from imgzoo_layers.drop import drop_path_of
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import Norm
from imgzoo_layers.util import Layer
from imgzoo_layers.window import from_grid, from_windows, to_grid, to_windows

Size = tuple[int, int]
HEAD_DIM = 32


class Attention(Attending):
    """Self-attention in windows: (B * windows, h, w, C) -> (B * windows, h, w, D)."""

    def __init__(self, dim: int, dim_out: int, window: Size, rel_pos: Layer, head_first: bool):
        super().__init__(dim // HEAD_DIM, HEAD_DIM)
        self.head_first = head_first
        self.qkv = nn.Linear(dim, 3 * dim)
        self.rel_pos = rel_pos(window, self.num_heads)
        self.proj = nn.Linear(dim, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        size, qkv = (x.shape[1], x.shape[2]), self.qkv(x).flatten(1, 2)
        if self.head_first:
            q, k, v = qkv.unflatten(2, (self.num_heads, -1)).transpose(1, 2).chunk(3, dim=3)
        else:
            q, k, v = qkv.unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        x = self.attend(q, k, v, self.rel_pos())
        return self.proj(x.transpose(1, 2).flatten(2).unflatten(1, size))


def near(x: Tensor, window: Size) -> Tensor:
    """Windows of a map: (B, H, W, C) -> (B * windows, h, w, C)."""
    return to_windows(x, window).unflatten(1, window)


def far(x: Tensor, grid: Size) -> Tensor:
    """Grids across a map: (B, H, W, C) -> (B * steps, h, w, C)."""
    return to_grid(x, grid).unflatten(1, grid)


class PartitionAttention(nn.Module):
    """Attention in windows, or on a grid across the map, then mlp: (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int, grid: bool, partition: Size, attn: Layer, norm: Norm, layer_scale: float | None,
                 act: str, drop_path: float):  # fmt: skip
        super().__init__()
        self.grid, self.partition = grid, partition
        self.norm1 = norm(dim)
        self.attn = attn(dim, dim, partition)
        self.ls1 = LayerScale(dim, layer_scale) if layer_scale else nn.Identity()
        self.drop_path1 = drop_path_of(drop_path)
        self.norm2 = norm(dim)
        self.mlp = Mlp(dim, 4 * dim, act=act)
        self.ls2 = LayerScale(dim, layer_scale) if layer_scale else nn.Identity()
        self.drop_path2 = drop_path_of(drop_path)

    def set_size(self, partition: Size) -> None:
        self.partition = partition

    def attend(self, x: Tensor) -> Tensor:
        height, width = x.shape[1], x.shape[2]
        if self.grid:
            return from_grid(self.attn(far(x, self.partition)), self.partition, height, width)
        return from_windows(self.attn(near(x, self.partition)), self.partition, height, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.ls1(self.attend(self.norm1(x))))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class ParallelAttention(nn.Module):
    """Windows and grid side by side, half the channels each, then mlp: (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int, partition: Size, attn: Layer, norm: Norm, act: str, drop_path: float):
        super().__init__()
        self.partition = partition
        self.norm1 = norm(dim)
        self.attn_block = attn(dim, dim // 2, partition)
        self.attn_grid = attn(dim, dim // 2, partition)
        self.drop_path1 = drop_path_of(drop_path)
        self.norm2 = norm(dim)
        self.mlp = Mlp(dim, 4 * dim, act=act)
        self.drop_path2 = drop_path_of(drop_path)

    def set_size(self, partition: Size) -> None:
        self.partition = partition

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1], x.shape[2]
        y = self.norm1(x)
        close = from_windows(self.attn_block(near(y, self.partition)), self.partition, height, width)
        apart = from_grid(self.attn_grid(far(y, self.partition)), self.partition, height, width)
        x = x + self.drop_path1(torch.cat([close, apart], dim=-1))
        return x + self.drop_path2(self.mlp(self.norm2(x)))

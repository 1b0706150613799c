"""Attention in windows of a map (B, H, W, C), with a learned bias for each offset between two positions."""

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Attending, Attention
from .init import trunc_normal_
from .padding import pad_to_multiple
from .tables import BiasTable, Computed, Size, Tabled


def to_windows(x: Tensor, window: Size) -> Tensor:
    """(B, H, W, C) -> (B * windows, h * w, C); H and W are multiples of the window."""
    batch, height, width, dim = x.shape
    x = x.view(batch, height // window[0], window[0], width // window[1], window[1], dim)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, window[0] * window[1], dim)


def from_windows(windows: Tensor, window: Size, height: int, width: int) -> Tensor:
    """(B * windows, h * w, C) -> (B, H, W, C), the inverse of `to_windows`."""
    dim = windows.shape[-1]
    x = windows.view(-1, height // window[0], width // window[1], window[0], window[1], dim)
    return x.permute(0, 1, 3, 2, 4, 5).reshape(-1, height, width, dim)


def to_grid(x: Tensor, grid: Size) -> Tensor:
    """Tokens a constant step apart: (B, H, W, C) -> (B * steps, h * w, C)."""
    batch, height, width, dim = x.shape
    x = x.view(batch, grid[0], height // grid[0], grid[1], width // grid[1], dim)
    return x.permute(0, 2, 4, 1, 3, 5).reshape(-1, grid[0] * grid[1], dim)


def from_grid(x: Tensor, grid: Size, height: int, width: int) -> Tensor:
    """(B * steps, h * w, C) -> (B, H, W, C), the inverse of `to_grid`."""
    dim = x.shape[-1]
    x = x.view(-1, height // grid[0], width // grid[1], grid[0], grid[1], dim)
    return x.permute(0, 3, 1, 4, 2, 5).reshape(-1, height, width, dim)


def relative_index(window: Size) -> Tensor:
    """Row of the bias table for each pair of positions of a window: (h * w, h * w), rows ordered by offset."""
    down, across = torch.meshgrid(torch.arange(window[0]), torch.arange(window[1]), indexing="ij")
    down, across = down.flatten(), across.flatten()
    return (down[:, None] - down + window[0] - 1) * (2 * window[1] - 1) + across[:, None] - across + window[1] - 1


def shift_mask(height: int, width: int, window: Size, shift: Size, like: Tensor) -> Tensor:
    """-100 between positions that the cyclic shift brought together, else 0: (windows, h * w, h * w)."""
    return mask_of_shift(height, width, window, shift, like)


def mask_of_shift(height: int, width: int, window: Size, shift: Size, like: Tensor) -> Tensor:
    rows, columns = torch.arange(height, device=like.device), torch.arange(width, device=like.device)
    rows = (rows >= height - window[0]).to(like.dtype) + (rows >= height - shift[0]).to(like.dtype)
    columns = (columns >= width - window[1]).to(like.dtype) + (columns >= width - shift[1]).to(like.dtype)
    region = 3 * rows[:, None] + columns  # nine regions; within a window, pixels of two never met before the shift
    flat = to_windows(region[None, :, :, None], window).squeeze(-1)
    return (flat[:, None, :] != flat[:, :, None]).to(like.dtype) * -100.0


class LocalAttention(Attention):
    """Self-attention within windows of a map, the last ones filled up with zeros: (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int, heads: int, window: int, attn_drop: float = 0.0, proj_drop: float = 0.0):
        super().__init__(dim, heads, attn_drop=attn_drop, proj_drop=proj_drop)
        self.window = (window, window)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        height, width = x.shape[1], x.shape[2]
        x = pad_to_multiple(x, self.window)
        high, wide = x.shape[1], x.shape[2]
        qkv = self.qkv(to_windows(x, self.window)).unflatten(2, (3, self.num_heads, self.head_dim))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        x = self.proj(self.attend(q, k, v).transpose(1, 2).flatten(2))
        return self.proj_drop(from_windows(x, self.window, high, wide)[:, :height, :width])


class WindowAttending(Attending):
    """Multi-head attention inside windows of a map."""

    def attend_windows(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, mask: Tensor | None) -> Tensor:
        """Queries, keys and values (B * windows, heads, N, D), a bias (1, heads, N, N) and the mask of a shift
        (windows, N, N) -> (B * windows, N, heads * D)."""
        if mask is not None:
            bias = bias + mask.unsqueeze(1)  # (windows, heads, N, N)
        if self.fused_attn:
            x = attend_biased(q, k, v, bias, self.attn_drop.p, self.training)
        else:  # hooks see weights (B * windows, heads, N, N)
            if mask is not None:
                bias = bias.repeat(q.shape[0] // mask.shape[0], 1, 1, 1)
            x = self.attend(q, k, v, bias)
        return x.transpose(1, 2).flatten(2)


class WindowAttention(Tabled, WindowAttending):
    """Multi-head attention inside windows with a bias by offset (arXiv:2103.14030, eq. 4): (B * windows, N, C)."""

    relative_position_index: Tensor
    tables = {
        "relative_position_bias_table": BiasTable(),
        "relative_position_index": Computed(relative_index, "window"),
    }
    sized_by = "window"

    def __init__(
        self,
        dim: int,
        heads: int,
        window: Size,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ):
        super().__init__(heads, head_dim or dim // heads, attn_drop)
        self.window = window
        inner = heads * self.head_dim
        offsets = (2 * window[0] - 1) * (2 * window[1] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets, heads))
        self.qkv = nn.Linear(dim, 3 * inner, bias=qkv_bias)
        self.proj = nn.Linear(inner, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.init_non_persistent_buffers()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        count, area = x.shape[0], x.shape[1]
        q, k, v = self.qkv(x).view(count, area, 3, self.num_heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        bias = bias.view(area, area, self.num_heads).permute(2, 0, 1).contiguous().unsqueeze(0)
        return self.proj_drop(self.proj(self.attend_windows(q, k, v, bias, mask)))


def attend_biased(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, drop: float, training: bool) -> Tensor:
    """Attention with a bias (windows, heads, N, N) that a gradient reaches; the batch of q, k, v counts windows."""
    if training and q.is_cpu:  # torch's kernel has no gradient of the bias there, and its substitute is slower
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
        scores = (scores.unflatten(0, (-1, bias.shape[0])) + bias).flatten(0, 1)
        return F.dropout(scores.softmax(dim=-1), drop) @ v
    if bias.shape[0] > 1:
        bias = bias.to(q.dtype).repeat(q.shape[0] // bias.shape[0], 1, 1, 1)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=drop if training else 0.0)


torch.fx.wrap("attend_biased")
torch.fx.wrap("mask_of_shift")

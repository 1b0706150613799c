"""Attention in windows of a map (B, H, W, C), with a learned bias for each offset between two positions."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .init import trunc_normal_

Size = tuple[int, int]


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


def relative_index(window: Size) -> Tensor:
    """Row of the bias table for each pair of positions of a window: (h * w, h * w), rows ordered by offset."""
    down, across = torch.meshgrid(torch.arange(window[0]), torch.arange(window[1]), indexing="ij")
    down, across = down.flatten(), across.flatten()
    return (down[:, None] - down + window[0] - 1) * (2 * window[1] - 1) + across[:, None] - across + window[1] - 1


def shift_mask(height: int, width: int, window: Size, shift: Size, like: Tensor) -> Tensor:
    """-100 between positions that the cyclic shift brought together, else 0: (windows, h * w, h * w)."""
    rows, columns = torch.arange(height, device=like.device), torch.arange(width, device=like.device)
    rows = (rows >= height - window[0]).to(like.dtype) + (rows >= height - shift[0]).to(like.dtype)
    columns = (columns >= width - window[1]).to(like.dtype) + (columns >= width - shift[1]).to(like.dtype)
    region = 3 * rows[:, None] + columns  # nine regions; within a window, pixels of two never met before the shift
    flat = to_windows(region[None, :, :, None], window).squeeze(-1)
    return (flat[:, None, :] != flat[:, :, None]).to(like.dtype) * -100.0


def resize_bias_table(table: Tensor, old: Size, new: Size) -> Tensor:
    """A table of ((2h-1)(2w-1), heads) for another window, by bicubic interpolation of the offsets."""
    if old == new:
        return table
    grid = table.float().T.unflatten(1, (2 * old[0] - 1, 2 * old[1] - 1))[None]
    grid = F.interpolate(grid, size=(2 * new[0] - 1, 2 * new[1] - 1), mode="bicubic", align_corners=False)
    return grid[0].flatten(1).T.to(table.dtype).contiguous()


class WindowAttention(nn.Module):
    """Multi-head attention inside windows with a bias by offset (arXiv:2103.14030, eq. 4): (B * windows, N, C)."""

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
        super().__init__()
        self.heads, self.head_dim, self.window = heads, head_dim or dim // heads, window
        inner = self.heads * self.head_dim
        offsets = (2 * window[0] - 1) * (2 * window[1] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets, heads))
        self.register_buffer("relative_position_index", relative_index(window), persistent=False)
        self.qkv = nn.Linear(dim, 3 * inner, bias=qkv_bias)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(inner, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        trunc_normal_(self.relative_position_bias_table, std=0.02)

    @torch.jit.ignore
    def set_window(self, window: Size) -> None:
        """Resize the bias table for another window."""
        if window != self.window:
            table = resize_bias_table(self.relative_position_bias_table.detach(), self.window, window)
            self.relative_position_bias_table = nn.Parameter(table)
            self.relative_position_index = relative_index(window).to(table.device)
            self.window = window

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        count, area = x.shape[0], x.shape[1]
        q, k, v = self.qkv(x).view(count, area, 3, self.heads, self.head_dim).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        bias = bias.view(area, area, self.heads).permute(2, 0, 1).unsqueeze(0)  # (1, heads, N, N)
        if mask is not None:
            bias = bias + mask.unsqueeze(1)  # (windows, heads, N, N)
        if self.training and x.is_cpu:  # torch's kernel has no gradient of the bias there, and its substitute is slower
            scores = (q * self.head_dim**-0.5) @ k.transpose(-2, -1)
            scores = (scores.unflatten(0, (-1, bias.shape[0])) + bias).flatten(0, 1)
            x = self.attn_drop(scores.softmax(dim=-1)) @ v
        else:
            if mask is not None:
                bias = bias.repeat(count // mask.shape[0], 1, 1, 1)
            drop = self.attn_drop.p if self.training else 0.0
            x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=drop)
        return self.proj_drop(self.proj(x.transpose(1, 2).reshape(count, area, -1)))

"""Rotary and relative position."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo_layers import rel_pos, rotary
from imgzoo_layers.tables import BiasTable
from imgzoo_layers.window import relative_index

from ._helpers import to_2tuple


def apply_rot_embed_cat(x: Tensor, emb: Tensor, half: bool = False) -> Tensor:
    """Turn queries or keys (..., N, D) by a table (N, 2 * D) of sines and cosines."""
    return rotary.rotate(x, emb, half)


def apply_rot_embed(x: Tensor, sin_emb: Tensor, cos_emb: Tensor, half: bool = False) -> Tensor:
    return rotary.rotate(x, torch.cat([sin_emb, cos_emb], dim=-1), half)


def apply_rot_embed_list(x: Any, sin_emb: Tensor, cos_emb: Tensor, half: bool = False) -> list[Tensor]:
    return [apply_rot_embed(each, sin_emb, cos_emb, half) for each in ([x] if isinstance(x, Tensor) else x)]


def freq_bands(num_bands: int, temperature: float = 10000.0, step: int = 2, device: Any = None) -> Tensor:
    exponents = torch.arange(0, num_bands, step, dtype=torch.int64, device=device).float() / num_bands
    return 1.0 / temperature**exponents


def pixel_freq_bands(num_bands: int, max_freq: float = 224.0, linear_bands: bool = True, device: Any = None) -> Tensor:
    if linear_bands:
        bands = torch.linspace(1.0, max_freq / 2, num_bands, device=device)
    else:
        bands = 2 ** torch.linspace(0, math.log(max_freq, 2) - 1, num_bands, device=device)
    return bands * math.pi


def build_sincos2d_pos_embed(feat_shape: list[int], dim: int = 64, temperature: float = 10000.0,
                             reverse_coord: bool = False, interleave_sin_cos: bool = False, device: Any = None,
                             dtype: torch.dtype = torch.float32) -> Tensor:  # fmt: skip
    """A fixed table (h * w, D): sines and cosines of columns and rows, a quarter of the channels each."""
    if dim % 4:
        raise ValueError(f"the width must divide by 4, got {dim}")
    bands = freq_bands(dim // 4, temperature, 1, device)
    sides = [torch.arange(n, device=device, dtype=torch.int64).float() for n in feat_shape]
    sides = sides[::-1] if reverse_coord else sides
    grid = torch.stack(torch.meshgrid(*sides, indexing="ij")).flatten(1).T  # (N, 2)
    angles = grid[:, :, None] * bands
    parts = torch.stack([angles.sin(), angles.cos()], dim=2 if interleave_sin_cos else 1)
    return parts.flatten(1).to(dtype)


class RotaryEmbeddingCat(nn.Module):
    """Tables of rows and columns for heads of `dim` channels, for the grid `feat_shape` or one that is handed in."""

    bands: Tensor

    def __init__(self, dim: int, max_res: int = 224, temperature: float = 10000, in_pixels: bool = True,
                 linear_bands: bool = False, feat_shape: list[int] | None = None,
                 ref_feat_shape: list[int] | None = None, grid_offset: float = 0.0, grid_indexing: str = "ij",
                 rotate_half: bool = False, grid_type: str | None = None, normalize_coords: str = "separate",
                 device: Any = None, dtype: Any = None, shift_coords: float | None = None,
                 jitter_coords: float | None = None, rescale_coords: float | None = None):  # fmt: skip
        super().__init__()
        if rotate_half or grid_type or shift_coords or jitter_coords or rescale_coords:
            raise ValueError("this table takes channels as neighbors and places as they are: see imgzoo_layers.rotary")
        self.dim, self.in_pixels, self.ref_feat_shape = dim, in_pixels, ref_feat_shape
        self.feat_shape, self.grid_offset, self.grid_indexing = feat_shape, grid_offset, grid_indexing
        bands = pixel_freq_bands(dim // 4, float(max_res), linear_bands, device) if in_pixels else \
            freq_bands(dim // 4, float(temperature), 1, device)  # fmt: skip
        self.register_buffer("bands", bands.to(dtype or torch.float32), persistent=False)

    def get_embed(self, shape: list[int] | None = None) -> Tensor:
        grid = self.feat_shape if shape is None else shape
        if grid is None:
            raise ValueError("give feat_shape to the constructor, or a shape here")
        sides = self._sides(grid)
        if self.grid_indexing == "xy":
            sides = sides[::-1]
        where = torch.stack(torch.meshgrid(*sides, indexing="ij"), dim=-1).flatten(0, 1)
        if self.grid_indexing == "xy":
            where = where.unflatten(0, (grid[1], grid[0])).transpose(0, 1).flatten(0, 1)
        angles = (where[:, :, None] * self.bands).flatten(1)
        return rotary.as_table(angles.repeat_interleave(2, dim=-1))

    def _sides(self, grid: list[int]) -> list[Tensor]:
        like = self.bands
        if self.in_pixels:
            return [torch.linspace(-1.0, 1.0, n, device=like.device) for n in grid]
        sides = [torch.arange(n, device=like.device).float() + self.grid_offset for n in grid]
        if self.ref_feat_shape is not None:
            sides = [side / n * old for side, n, old in zip(sides, grid, self.ref_feat_shape)]
        return sides

    def forward(self, x: Tensor) -> Tensor:
        """Turn (B, heads, N, D) or (B, D, H, W) whose last sides are the grid."""
        return apply_rot_embed_cat(x, self.get_embed(list(x.shape[2:])))


def gen_relative_position_index(q_size: Any, k_size: Any = None, class_token: bool = False,
                                device: Any = None) -> Tensor:  # fmt: skip
    """Rows of a table of offsets for each pair of places of a window: (N, N)."""
    if k_size is not None and to_2tuple(k_size) != to_2tuple(q_size):
        raise ValueError("queries and keys share one window here: see imgzoo_layers.rel_pos")
    size = to_2tuple(q_size)
    return (rel_pos.relative_index_with_class(size) if class_token else relative_index(size)).to(device)


def resize_rel_pos_bias_table(rel_pos_bias: Tensor, new_window_size: Any, new_bias_shape: Any,
                              old_window_size: Any = None) -> Tensor:  # fmt: skip
    """A table of offsets (rows, heads) for another window; what stands behind the offsets is kept."""
    rows, new = rel_pos_bias.shape[0], to_2tuple(new_window_size)
    offsets = (2 * new[0] - 1) * (2 * new[1] - 1)
    extra = new_bias_shape[0] - offsets
    side = math.isqrt(rows - extra)
    if old_window_size is None and side * side != rows - extra:
        raise ValueError(f"a table of {rows} rows is of no square window: give old_window_size")
    body, tail = rel_pos_bias[: rows - extra], rel_pos_bias[rows - extra :]
    old = ((side + 1) // 2, (side + 1) // 2) if old_window_size is None else to_2tuple(old_window_size)
    return torch.cat([BiasTable().resize(body, old, new), tail]) if old != new else rel_pos_bias


def resize_rel_pos_bias_table_simple(rel_pos_bias: Tensor, new_window_size: Any, new_bias_shape: Any) -> Tensor:
    """The same by bicubic interpolation of the offsets."""
    rows, new = rel_pos_bias.shape[0], to_2tuple(new_window_size)
    size = (2 * new[0] - 1, 2 * new[1] - 1)
    extra = new_bias_shape[0] - size[0] * size[1]
    side = math.isqrt(rows - extra)
    if (side, side) == size:
        return rel_pos_bias
    body, tail = rel_pos_bias[: rows - extra], rel_pos_bias[rows - extra :]
    image = body.T.reshape(1, -1, side, side).float()
    image = F.interpolate(image, size=size, mode="bicubic", align_corners=False)
    return torch.cat([image[0].flatten(1).T.to(body.dtype), tail])


class RelPosBias(rel_pos.RelPosBias):
    """A learned bias for each head and offset, added to scores (B, heads, N, N)."""

    def __init__(self, window_size: Any, num_heads: int, prefix_tokens: int = 0, device: Any = None,
                 dtype: Any = None):  # fmt: skip
        if prefix_tokens:
            raise ValueError("prefix tokens have no place here: see imgzoo_layers.rel_pos")
        super().__init__(to_2tuple(window_size), num_heads)
        self.to(device=device, dtype=dtype)

    @property
    def window_size(self) -> tuple[int, int]:
        return self.window

    def get_bias(self) -> Tensor:
        return super().forward()

    def forward(self, attn: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        return attn + self.get_bias()

"""Fixed and relative position."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from imgzoo_layers import rel_pos
from imgzoo_layers.tables import BiasTable
from imgzoo_layers.window import relative_index

from ._base import renamed
from ._helpers import to_2tuple
from ._rotary import freq_bands


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


def resize_rel_pos_bias_table_levit(position_bias_table: Tensor, new_size: Any, interpolation: str = "bicubic",
                                    antialias: bool = True) -> Tensor:  # fmt: skip
    """A table of distances (side * side, heads) for the shape of another."""
    rows, heads = position_bias_table.shape
    if heads != new_size[1]:
        raise ValueError(f"a table of {heads} heads cannot be one of {new_size[1]}")
    if rows == new_size[0]:
        return position_bias_table
    old, new = math.isqrt(rows), math.isqrt(new_size[0])
    image = position_bias_table.T.reshape(1, heads, old, old).float()
    image = F.interpolate(image, (new, new), mode=interpolation, antialias=antialias)
    return image[0].flatten(1).T.to(position_bias_table.dtype)


class RelPosBias(rel_pos.RelPosBias):
    """A learned bias for each head and offset, added to scores (B, heads, N, N)."""

    def __init__(self, window_size: Any, num_heads: int, prefix_tokens: int = 0, device: Any = None,
                 dtype: Any = None):  # fmt: skip
        super().__init__(to_2tuple(window_size), num_heads, prefix_tokens)
        self.to(device=device, dtype=dtype)

    @property
    def window_size(self) -> tuple[int, int]:
        return self.window

    get_bias = renamed(rel_pos.RelPosBias.forward, "get_bias")

    def forward(self, attn: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        return attn + self.get_bias()


class RelPosBiasTf(rel_pos.RelPosBiasTf):
    """The same as TensorFlow keeps it."""

    def __init__(self, window_size: Any, num_heads: int, prefix_tokens: int = 0, device: Any = None,
                 dtype: Any = None):  # fmt: skip
        if prefix_tokens > 1:
            raise ValueError("one prefix token at most has a place beside a window")
        super().__init__(to_2tuple(window_size), num_heads)
        self.to(device=device, dtype=dtype)

    batched = renamed(rel_pos.RelPosBiasTf.forward, "batched")

    def get_bias(self) -> Tensor:
        return self.batched()[0]

    def forward(self, attn: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        return attn + self.get_bias()


class RelPosMlp(rel_pos.RelPosMlp):
    """The bias as a small network of offsets on a log scale."""

    def __init__(self, window_size: Any, num_heads: int = 8, hidden_dim: int = 128, prefix_tokens: int = 0,
                 mode: str = "cr", pretrained_window_size: Any = (0, 0), device: Any = None,
                 dtype: Any = None):  # fmt: skip
        if mode != "cr" or prefix_tokens or any(to_2tuple(pretrained_window_size)):
            raise ValueError("offsets are measured by mode 'cr', without prefix tokens: see imgzoo_layers.RelPosMlp")
        super().__init__(to_2tuple(window_size), num_heads, hidden_dim)
        self.to(device=device, dtype=dtype)

    get_bias = renamed(rel_pos.RelPosMlp.forward, "get_bias")

    def forward(self, attn: Tensor, shared_rel_pos: Tensor | None = None) -> Tensor:
        return attn + self.get_bias()


def gen_relative_log_coords(win_size: Any, pretrained_win_size: Any = (0, 0), mode: str = "swin", device: Any = None,
                            dtype: Any = None) -> Tensor:  # fmt: skip
    """sign(d) log(1 + |d|) of all offsets (2h - 1, 2w - 1, 2): `swin` takes log2 of 8 at the window's edge as 1."""
    window, trained = to_2tuple(win_size), to_2tuple(pretrained_win_size)
    if mode == "cr":
        return rel_pos.log_offsets(window).to(device, dtype)
    edge = trained if trained[0] > 0 else window
    offsets = torch.stack(torch.meshgrid(*(torch.arange(1.0 - n, n) for n in window), indexing="ij"), dim=-1)
    offsets = 8 * offsets / torch.tensor([max(n - 1, 1) for n in edge])
    return (offsets.sign() * (1 + offsets.abs()).log2() / math.log2(8)).to(device, dtype)

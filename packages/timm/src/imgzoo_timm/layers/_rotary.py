"""Rotary and Fourier position of the field, by the tables of `imgzoo_layers.rotary`."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Real
from typing import Any, ClassVar

import torch
import torch.fx
from torch import Tensor, nn

from imgzoo_layers import rotary

from ._base import adapter

KINDS = {"index": "cells", "pixel": "ends", "centered": "centered"}
NORMALIZE = {"separate": "each", "max": "max", "min": "min"}
STILL = (None, None, None)
"""Places that do not move."""


def apply_rot_embed_cat(x: Tensor, emb: Tensor, half: bool = False) -> Tensor:
    """Turn queries or keys (..., N, D) by a table (N, 2 * D) of sines and cosines."""
    return rotary.rotate(x, emb, half)


def apply_rot_embed(x: Tensor, sin_emb: Tensor, cos_emb: Tensor, half: bool = False) -> Tensor:
    return rotary.rotate(x, torch.cat([sin_emb, cos_emb], dim=-1), half)


def apply_rot_embed_list(x: Any, sin_emb: Tensor, cos_emb: Tensor, half: bool = False) -> list[Tensor]:
    return [apply_rot_embed(each, sin_emb, cos_emb, half) for each in ([x] if isinstance(x, Tensor) else x)]


def rot(x: Tensor) -> Tensor:
    """A quarter turn of neighbors: (a, b) -> (-b, a)."""
    return torch.stack([-x[..., 1::2], x[..., ::2]], dim=-1).flatten(-2)


def rope_rotate_half(x: Tensor) -> Tensor:
    """The same of halves."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([-second, first], dim=-1)


def swap_shape_xy(seq: list[int]) -> list[int]:
    return [seq[1], seq[0], *seq[2:]] if len(seq) > 1 else seq


def freq_bands(num_bands: int, temperature: float = 10000.0, step: int = 2, device: Any = None) -> Tensor:
    exponents = torch.arange(0, num_bands, step, dtype=torch.int64, device=device).float() / num_bands
    return 1.0 / temperature**exponents


def pixel_freq_bands(num_bands: int, max_freq: float = 224.0, linear_bands: bool = True, device: Any = None) -> Tensor:
    return rotary.pixel_bands(4 * num_bands, max_freq, linear_bands).to(device)


def _build_bands(num_bands: int, in_pixels: bool = True, max_res: int = 224, temperature: float = 10000.0,
                 linear_bands: bool = False, device: Any = None) -> Tensor:  # fmt: skip
    if in_pixels:
        return pixel_freq_bands(num_bands, float(max_res), linear_bands, device)
    return freq_bands(num_bands, float(temperature), 1, device)


def _build_grid(feat_shape: list[int], grid_type: str = "index", ref_feat_shape: list[int] | None = None,
                grid_offset: float = 0.0, grid_indexing: str = "ij", normalize_coords: str = "separate",
                device: Any = None, dtype: torch.dtype = torch.float32, ndim: int | None = None) -> Tensor:  # fmt: skip
    """Places of a grid: (h, w, 2), rows first, or columns with `xy`."""
    for name, value, known in (("grid_type", grid_type, KINDS), ("normalize_coords", normalize_coords, NORMALIZE),
                               ("grid_indexing", grid_indexing, ("ij", "xy"))):  # fmt: skip
        if value not in known:
            raise ValueError(f"{name} is {', '.join(known)}, not {value!r}")
    if ndim is not None and len(feat_shape) != ndim:
        raise ValueError(f"Expected {ndim} spatial dimensions, not {len(feat_shape)}")
    where = rotary.coordinates(feat_shape, KINDS[grid_type], ref_feat_shape, grid_offset, NORMALIZE[normalize_coords],
                               device, dtype)  # fmt: skip
    if grid_indexing == "xy" and where.shape[-1] > 1:
        where = torch.cat([where[..., :2].flip(-1), where[..., 2:]], dim=-1)
    return where


def make_coords_dinov3(height: int, width: int, normalize_coords: str = "separate", grid_indexing: str = "ij",
                       grid_offset: float = 0.0, device: Any = "cpu",
                       dtype: torch.dtype = torch.float32) -> Tensor:  # fmt: skip
    """Places from -1 to 1: (h * w, 2)."""
    return _build_grid([height, width], "centered", None, grid_offset, grid_indexing, normalize_coords, device,
                       dtype, 2).flatten(0, 1)  # fmt: skip


def get_mixed_grid(shape: list[int], grid_indexing: str = "ij", device: Any = None,
                   dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:  # fmt: skip
    where = _build_grid(shape, grid_indexing=grid_indexing, device=device, dtype=dtype, ndim=2).flatten(0, 1)
    return where[:, 0], where[:, 1]


def get_mixed_freqs(freqs: Tensor, t_x: Tensor, t_y: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """Tables (depth, heads, N, 2 * D) of learned frequencies (2, depth, heads, D / 2)."""
    return _mixed_table(torch.stack([t_y, t_x], dim=-1), freqs, dtype)


def _mixed_table(where: Tensor, freqs: Tensor, dtype: torch.dtype | None) -> Tensor:
    wide = torch.promote_types(where.dtype, torch.promote_types(freqs.dtype, torch.float32))
    return rotary.mixed_table(where.to(wide), freqs.to(wide)).to(dtype or freqs.dtype)


def init_random_2d_freqs(head_dim: int, depth: int, num_heads: int, temperature: float = 10.0, rotate: bool = True, *,
                         device: Any = None, dtype: torch.dtype = torch.float32) -> Tensor:  # fmt: skip
    return rotary.mixed_frequencies(head_dim, depth, num_heads, temperature, rotate).to(device, dtype)


def _coord_aug_config(shift_coords: Any, jitter_coords: Any,
                      rescale_coords: Any) -> tuple[float | None, float | None, float | None, bool]:  # fmt: skip
    """How places move in training: checked numbers, and whether they do."""
    given = {"shift_coords": shift_coords, "jitter_coords": jitter_coords, "rescale_coords": rescale_coords}
    checked: list[float | None] = []
    for name, value in given.items():
        single = isinstance(value, Tensor) and value.numel() == 1 and value.dtype != torch.bool
        if value is not None and (isinstance(value, bool) or not (single or isinstance(value, Real))):
            raise TypeError(f"{name} is a number, not {value!r}")
        value = None if value is None else float(value)
        least = 0 if name == "shift_coords" else 1
        if value is not None and not (math.isfinite(value) and value >= least):
            raise ValueError(f"{name} is finite and at least {least}, not {value}")
        checked.append(value)
    return checked[0], checked[1], checked[2], any(each is not None for each in checked)


def _apply_coord_augs(coords: Tensor, shift_coords: float | None = None, jitter_coords: float | None = None,
                      rescale_coords: float | None = None) -> Tensor:  # fmt: skip
    return rotary.moved(coords, shift_coords or 0.0, jitter_coords or 0.0, rescale_coords or 0.0)


def build_fourier_pos_embed(
    feat_shape: list[int], bands: Tensor | None = None, num_bands: int = 64, max_res: int = 224,
    temperature: float = 10000.0, linear_bands: bool = False, include_grid: bool = False, in_pixels: bool = True,
    ref_feat_shape: list[int] | None = None, grid_offset: float = 0.0, grid_indexing: str = "ij", device: Any = None,
    dtype: torch.dtype = torch.float32, grid_type: str | None = None, normalize_coords: str = "separate",
    shift_coords: float | None = None, jitter_coords: float | None = None, rescale_coords: float | None = None,
) -> list[Tensor]:  # fmt: skip
    """Sines and cosines (h, w, 2, bands) of places, behind the places themselves if wanted."""
    shift, jitter, rescale, _ = _coord_aug_config(shift_coords, jitter_coords, rescale_coords)
    if bands is None:
        bands = _build_bands(num_bands, in_pixels, max_res, temperature, linear_bands, device)
    device = bands.device if device is None else device
    where = _build_grid(feat_shape, grid_type or ("pixel" if in_pixels else "index"), ref_feat_shape, grid_offset,
                        grid_indexing, normalize_coords, device,
                        torch.promote_types(bands.dtype, torch.float32))  # fmt: skip
    where = _apply_coord_augs(where, shift, jitter, rescale)[..., None]
    angles = where * bands.to(where)
    parts = [angles.sin(), angles.cos()]
    parts = [each.to(dtype or bands.dtype) for each in parts]
    return [where, *parts] if include_grid else parts


def laid_out(x: Tensor, halves: bool) -> Tensor:
    """Angles (N, D / 2) for both channels of each pair: (N, D)."""
    return torch.cat([x, x], dim=-1) if halves else x.repeat_interleave(2, dim=-1)


def build_rotary_pos_embed(
    feat_shape: list[int], bands: Tensor | None = None, dim: int = 64, max_res: int = 224, temperature: float = 10000.0,
    linear_bands: bool = False, in_pixels: bool = True, ref_feat_shape: list[int] | None = None,
    grid_offset: float = 0.0, grid_indexing: str = "ij", rotate_half: bool = False, device: Any = None,
    dtype: torch.dtype = torch.float32, grid_type: str | None = None, normalize_coords: str = "separate",
    shift_coords: float | None = None, jitter_coords: float | None = None, rescale_coords: float | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Sines and cosines for heads of `dim` channels: twice (N, D)."""
    sine, cosine = build_fourier_pos_embed(
        feat_shape, bands, dim // 4, max_res, temperature, linear_bands, False, in_pixels, ref_feat_shape, grid_offset,
        grid_indexing, device, dtype, grid_type, normalize_coords, shift_coords, jitter_coords,
        rescale_coords)  # fmt: skip
    sides = len(feat_shape)
    flat = [each.flatten(0, sides - 1).flatten(1) for each in (sine, cosine)]
    return laid_out(flat[0], rotate_half), laid_out(flat[1], rotate_half)


class FourierEmbed(nn.Module):
    """Sines and cosines of places beside the channels of a map: (B, C, H, W) -> (B, N, D), or a map."""

    bands: Tensor

    def __init__(self, max_res: int = 224, num_bands: int = 64, concat_grid: bool = True, keep_spatial: bool = False,
                 device: Any = None, dtype: Any = None):  # fmt: skip
        super().__init__()
        self.max_res, self.num_bands = max_res, num_bands
        self.concat_grid, self.keep_spatial = concat_grid, keep_spatial
        bands = pixel_freq_bands(num_bands, float(max_res), True, device)
        self.register_buffer("bands", bands.to(dtype or torch.float32), persistent=False)

    def init_non_persistent_buffers(self) -> None:
        self.bands = pixel_freq_bands(self.num_bands, float(self.max_res), True).to(self.bands)

    def forward(self, x: Tensor) -> Tensor:
        parts = build_fourier_pos_embed(list(x.shape[2:]), self.bands, include_grid=self.concat_grid, dtype=x.dtype,
                                        device=x.device)  # fmt: skip
        wave = torch.cat(parts[-2:], dim=-1).transpose(-1, -2).flatten(2)  # (h, w, 4 * bands)
        embed = torch.cat([parts[0].flatten(2), wave], dim=-1) if self.concat_grid else wave
        if self.keep_spatial:
            return torch.cat([x, embed.permute(2, 0, 1).expand(len(x), -1, -1, -1)], dim=1)
        return torch.cat([x.permute(0, 2, 3, 1), embed.expand(len(x), -1, -1, -1)], dim=-1).flatten(1, 2)


class Rotary(nn.Module):
    """What the field's classes share: buffers that stay in float32 or wider, a table kept for the grid `feat_shape`, or
    made for a grid that is handed in, and places that move in training if told."""

    kept: tuple[str, ...] = ("pos_embed",)
    """The tables of the grid `feat_shape`, in the module's type; those of a grid that is handed in are as wide as the
    frequencies."""
    halves = False

    def settle(self, feat_shape: Any, shift_coords: Any, jitter_coords: Any, rescale_coords: Any, device: Any,
               dtype: Any) -> None:  # fmt: skip
        """The end of a constructor."""
        moves = _coord_aug_config(shift_coords, jitter_coords, rescale_coords)
        self.shift_coords, self.jitter_coords, self.rescale_coords, self.aug_active = moves
        self.feat_shape = None if feat_shape is None else list(feat_shape)
        self.told = dtype or torch.get_default_dtype()
        self.fill(device)

    def computed(self) -> dict[str, Tensor | None]:
        """Buffers that tables follow from."""
        raise NotImplementedError

    def tables(self, shape: list[int], moves: tuple[Any, Any, Any]) -> tuple[Tensor, ...]:
        """What `kept` names, for another grid, moved by up to so much."""
        raise NotImplementedError

    def fill(self, device: Any) -> None:
        wide = torch.promote_types(self.told, torch.float32)
        for name, value in self.computed().items():
            dtype = wide if value is not None and value.is_floating_point() else None
            self.register_buffer(name, None if value is None else value.to(device, dtype), False)
        filled = self.kept and self.feat_shape is not None
        tables = self.tables(self.feat_shape or [], STILL) if filled else (None,) * len(self.kept)
        for name, table in zip(self.kept, tables, strict=True):
            self.register_buffer(name, None if table is None else table.to(self.told), False)

    def reset_parameters(self) -> None:
        self.init_non_persistent_buffers()

    def init_non_persistent_buffers(self) -> None:
        """Compute all buffers anew, where they are: after `to_empty`."""
        self.fill(next(iter((*self.parameters(), *self.buffers())), torch.empty(0)).device)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        unreal = any(buffer.is_meta for buffer in self.buffers())
        super()._apply(fn, recurse)
        told = [each.dtype for each in (*self.parameters(), *self.buffers()) if each.is_floating_point()]
        self.told = told[0] if told else self.told
        if unreal or any(torch.finfo(each).bits < 32 for each in told):
            self.init_non_persistent_buffers()
        return self

    def update_feat_shape(self, feat_shape: list[int]) -> None:
        """Keep the table of another grid, where one is kept."""
        if self.feat_shape is not None and list(feat_shape) != self.feat_shape:
            self.feat_shape = list(feat_shape)
            self.init_non_persistent_buffers()

    def made(self, shape: Any, dtype: torch.dtype | None = None) -> tuple[Tensor, ...]:
        """Tables of a grid, or those that are kept; moved ones in training."""
        moves = self.training and self.aug_active
        if shape is None and self.feat_shape is None:
            raise ValueError("give feat_shape to the constructor, or a shape here")
        if shape is None and not moves and self.kept:
            made = tuple(getattr(self, name) for name in self.kept)
        else:
            amounts = (self.shift_coords, self.jitter_coords, self.rescale_coords) if moves else STILL
            made = self.tables(self.feat_shape or [] if shape is None else shape, amounts)
        return made if dtype is None else tuple(each.to(dtype) for each in made)

    def get_embed(self, shape: list[int] | None = None, dtype: torch.dtype | None = None) -> Any:
        """Sines, then cosines, of a grid: (N, 2 * D)."""
        return self.joined(shape, dtype)

    def joined(self, shape: Any, dtype: torch.dtype | None = None) -> Tensor:
        made = self.made(shape, dtype)
        return made[0] if len(made) == 1 else torch.cat(made, dim=-1)

    def get_batch_embeds(self, shapes: list[Any], seq_len: int | None = None, dtype: torch.dtype | None = None) -> Any:
        """Tables of several grids, or with `seq_len` one (B, ..., seq_len, 2 * D), zeros behind the shorter ones."""
        embeds = [self.joined(shape, dtype) for shape in shapes]
        return _pad_rope_embeds(embeds, seq_len) if embeds and seq_len is not None else embeds

    def forward(self, x: Tensor) -> Tensor:
        """Turn the channels of a map (B, D, H, W) by its places."""
        shape = [x.shape[2], x.shape[3]]
        turned = apply_rot_embed_cat(x.flatten(2).mT, self.joined(shape), self.halves)
        return turned.mT.unflatten(2, shape)


def _pad_rope_embeds(embeds: list[Tensor], seq_len: int) -> Tensor:
    if any(each.shape[-2] > seq_len for each in embeds):
        raise ValueError(f"seq_len {seq_len} is shorter than a grid")
    return torch.stack([nn.functional.pad(each, (0, 0, 0, seq_len - each.shape[-2])) for each in embeds])


class RotaryEmbeddingCat(Rotary):
    """Tables of rows and columns for heads of `dim` channels."""

    bands: Tensor
    pos_embed: Tensor

    def __init__(self, dim: int, max_res: int = 224, temperature: float = 10000, in_pixels: bool = True,
                 linear_bands: bool = False, feat_shape: list[int] | None = None,
                 ref_feat_shape: list[int] | None = None, grid_offset: float = 0.0, grid_indexing: str = "ij",
                 rotate_half: bool = False, grid_type: str | None = None, normalize_coords: str = "separate",
                 device: Any = None, dtype: Any = None, shift_coords: float | None = None,
                 jitter_coords: float | None = None, rescale_coords: float | None = None):  # fmt: skip
        super().__init__()
        self.dim, self.max_res, self.temperature, self.in_pixels = dim, max_res, temperature, in_pixels
        self.linear_bands, self.grid_offset, self.grid_indexing = linear_bands, grid_offset, grid_indexing
        self.ref_feat_shape, self.rotate_half, self.halves = ref_feat_shape, rotate_half, rotate_half
        self.grid_type, self.normalize_coords = grid_type or ("pixel" if in_pixels else "index"), normalize_coords
        _build_grid([1, 1], self.grid_type, None, grid_offset, grid_indexing, normalize_coords)  # refuses what none has
        self.settle(feat_shape, shift_coords, jitter_coords, rescale_coords, device, dtype)

    def computed(self) -> dict[str, Tensor | None]:
        bands = _build_bands(self.dim // 4, self.in_pixels, self.max_res, self.temperature, self.linear_bands)
        return {"bands": bands}

    def tables(self, shape: list[int], moves: tuple[Any, Any, Any]) -> tuple[Tensor, ...]:
        sine_cosine = build_rotary_pos_embed(
            shape, self.bands, ref_feat_shape=self.ref_feat_shape, grid_offset=self.grid_offset,
            grid_indexing=self.grid_indexing, rotate_half=self.rotate_half, dtype=self.bands.dtype,
            grid_type=self.grid_type, normalize_coords=self.normalize_coords, shift_coords=moves[0],
            jitter_coords=moves[1], rescale_coords=moves[2])  # fmt: skip
        parts = sine_cosine[0], sine_cosine[1]
        return parts if len(self.kept) == 2 else (torch.cat(parts, dim=-1),)


class RotaryEmbedding(RotaryEmbeddingCat):
    """The same in two tables, sines (N, D) and cosines (N, D)."""

    kept = ("pos_embed_sin", "pos_embed_cos")

    def __init__(self, dim: int, max_res: int = 224, temperature: float = 10000, in_pixels: bool = True,
                 linear_bands: bool = False, feat_shape: list[int] | None = None,
                 ref_feat_shape: list[int] | None = None, grid_offset: float = 0.0, grid_indexing: str = "ij",
                 grid_type: str | None = None, normalize_coords: str = "separate", device: Any = None,
                 dtype: Any = None, shift_coords: float | None = None, jitter_coords: float | None = None,
                 rescale_coords: float | None = None, rotate_half: bool = False):  # fmt: skip
        super().__init__(dim, max_res, temperature, in_pixels, linear_bands, feat_shape, ref_feat_shape, grid_offset,
                         grid_indexing, rotate_half, grid_type, normalize_coords, device, dtype, shift_coords,
                         jitter_coords, rescale_coords)  # fmt: skip

    def get_embed(self, shape: list[int] | None = None, dtype: torch.dtype | None = None) -> tuple[Tensor, Tensor]:
        made = self.made(shape, dtype)
        return made[0], made[1]


class RotaryEmbeddingDinoV3(Rotary):
    """Tables of places from -1 to 1 (arXiv:2508.10104)."""

    kept = ("pos_embed_cached",)
    periods: Tensor

    def __init__(self, dim: int, temperature: float | None = 100.0, min_period: float | None = None,
                 max_period: float | None = None, feat_shape: list[int] | None = None,
                 normalize_coords: str = "separate", grid_offset: float = 0.0, grid_indexing: str = "ij",
                 rotate_half: bool = True, shift_coords: float | None = None, jitter_coords: float | None = None,
                 rescale_coords: float | None = None, device: Any = None, dtype: Any = None):  # fmt: skip
        super().__init__()
        if (min_period is None or max_period is None) and temperature is None:
            raise ValueError("give temperature, or both min_period and max_period")
        self.dim, self.temperature, self.min_period, self.max_period = dim, temperature, min_period, max_period
        self.normalize_coords, self.grid_offset, self.grid_indexing = normalize_coords, grid_offset, grid_indexing
        self.rotate_half = self.halves = rotate_half
        make_coords_dinov3(1, 1, normalize_coords, grid_indexing)  # refuses what none has
        self.settle(feat_shape, shift_coords, jitter_coords, rescale_coords, device, dtype)

    def computed(self) -> dict[str, Tensor | None]:
        if self.min_period is None or self.max_period is None:
            return {"periods": rotary.periods(self.dim // 4 * 4, self.temperature or 0.0)}
        return {"periods": rotary.periods_between(self.dim, self.min_period, self.max_period)}

    def tables(self, shape: list[int], moves: tuple[Any, Any, Any]) -> tuple[Tensor, ...]:
        where = _build_grid(shape, "centered", None, self.grid_offset, self.grid_indexing, self.normalize_coords,
                            self.periods.device, self.periods.dtype, 2).flatten(0, 1)  # fmt: skip
        angles = (2 * math.pi * _apply_coord_augs(where, *moves)[:, :, None] / self.periods).flatten(1)
        return (rotary.as_table(laid_out(angles, self.rotate_half)),)


class RotaryEmbeddingMixed(Rotary):
    """Learned frequencies of each head and depth (arXiv:2403.13298): tables (depth, heads, N, 2 * D)."""

    kept = ()
    t_x: Tensor | None
    t_y: Tensor | None

    def __init__(self, dim: int, depth: int, num_heads: int, temperature: float = 10.0,
                 feat_shape: list[int] | None = None, grid_indexing: str = "xy", device: Any = None, dtype: Any = None,
                 shift_coords: float | None = None, jitter_coords: float | None = None,
                 rescale_coords: float | None = None):  # fmt: skip
        super().__init__()
        self.dim, self.depth, self.num_heads, self.temperature = dim, depth, num_heads, temperature
        self.grid_indexing = grid_indexing
        get_mixed_grid([1, 1], grid_indexing)  # what is refused is refused before anything is drawn
        _coord_aug_config(shift_coords, jitter_coords, rescale_coords)
        self.freqs = nn.Parameter(init_random_2d_freqs(dim // num_heads, depth, num_heads, temperature, device=device,
                                                       dtype=dtype or torch.get_default_dtype()))  # fmt: skip
        self.settle(feat_shape, shift_coords, jitter_coords, rescale_coords, device, dtype)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        fresh = init_random_2d_freqs(self.dim // self.num_heads, self.depth, self.num_heads, self.temperature)
        with torch.no_grad():
            self.freqs.copy_(fresh)

    def computed(self) -> dict[str, Tensor | None]:
        where = (None, None) if self.feat_shape is None else get_mixed_grid(self.feat_shape, self.grid_indexing)
        return {"t_x": where[0], "t_y": where[1]}

    def tables(self, shape: list[int], moves: tuple[Any, Any, Any]) -> tuple[Tensor, ...]:
        wide = torch.promote_types(self.freqs.dtype, torch.float32)
        where = _build_grid(shape, grid_indexing=self.grid_indexing, device=self.freqs.device, dtype=wide,
                            ndim=2).flatten(0, 1)  # fmt: skip
        where = _apply_coord_augs(where, *moves)
        return (get_mixed_freqs(self.freqs, where[:, 0], where[:, 1], wide),)

    def made(self, shape: Any, dtype: torch.dtype | None = None) -> tuple[Tensor, ...]:
        """Tables that move are as wide as they were computed."""
        moves = self.training and self.aug_active
        return super().made(shape, dtype or (None if moves else self.freqs.dtype))

    def forward(self, x: Tensor, block_index: int = 0) -> Tensor:
        """Turn the channels of a map (B, heads * D, H, W), head by head, by the table of a depth."""
        if isinstance(block_index, int) and not 0 <= block_index < self.depth:
            raise ValueError(f"block_index is one of {self.depth} depths, not {block_index}")
        shape = [x.shape[2], x.shape[3]]
        heads = x.flatten(2).unflatten(1, (self.num_heads, self.dim // self.num_heads)).mT  # (B, heads, N, D)
        turned = apply_rot_embed_cat(heads, self.joined(shape)[block_index])
        return turned.mT.flatten(1, 2).unflatten(2, shape)

    def no_weight_decay(self) -> set[str]:
        return {"freqs"}


class RotaryEmbeddingMRope(Rotary):
    """Tables of time, rows and columns, as language models that see have them (arXiv:2511.21631)."""

    kept, halves = (), True
    inv_freq: Tensor
    axis: Tensor

    def __init__(self, dim: int, mrope_section: tuple[int, int, int] = (8, 12, 12), temperature: float = 10000.0,
                 grid_indexing: str = "ij", device: Any = None, dtype: Any = None, shift_coords: float | None = None,
                 jitter_coords: float | None = None, rescale_coords: float | None = None):  # fmt: skip
        super().__init__()
        if grid_indexing != "ij" or dim % 2:
            raise ValueError("rows come first (grid_indexing='ij') and the width is even")
        self.dim, self.mrope_section, self.temperature = dim, mrope_section, temperature
        self.grid_indexing = grid_indexing
        self.settle(None, shift_coords, jitter_coords, rescale_coords, device, dtype)

    def computed(self) -> dict[str, Tensor | None]:
        return {"inv_freq": rotary.all_frequencies(self.dim, self.temperature),
                "axis": rotary.axes_of(self.dim, self.mrope_section)}  # fmt: skip

    def tables(self, shape: list[int], moves: tuple[Any, Any, Any]) -> tuple[Tensor, ...]:
        where = _build_grid(shape, device=self.inv_freq.device, dtype=self.inv_freq.dtype, ndim=2).flatten(0, 1)
        return (rotary.axes_table(_apply_coord_augs(where, *moves), self.inv_freq, self.axis),)


class OfNetwork:
    """In front of the rotary position of a network: what clients read, set and call of it."""

    told: ClassVar[dict[str, str]] = {"rotate_half": "halves", "feat_shape": "grid", "mrope_section": "sections"}
    moving: ClassVar[tuple[str, ...]] = ("shift_coords", "jitter_coords", "rescale_coords")

    def __getattr__(self: Any, name: str) -> Any:
        if name in OfNetwork.moving:
            return self.may_move()[OfNetwork.moving.index(name)] or None
        if name == "rotate_half" and isinstance(self, (rotary.MixedRotary, rotary.MultimodalRotary)):
            return isinstance(self, rotary.MultimodalRotary)
        return getattr(self, OfNetwork.told[name]) if name in OfNetwork.told else super().__getattr__(name)  # type: ignore[misc]

    def may_move(self: Any) -> tuple[float, float, float]:
        """How far places move in training where `aug_active` is on."""
        return self.__dict__.get("moves_kept", self.moves)

    @property
    def aug_active(self: Any) -> bool:
        return any(self.moves)

    @aug_active.setter
    def aug_active(self: Any, active: bool) -> None:
        self.moves_kept = self.may_move()
        self.moves = self.moves_kept if active else (0.0, 0.0, 0.0)

    def get_embed(self: Any, shape: Any = None, dtype: torch.dtype | None = None) -> Tensor:
        """Sines, then cosines, of the network's grid or another: (N, 2 * D)."""
        table = self(None if shape is None else tuple(shape))
        return table if dtype is None else table.to(dtype)

    def get_batch_embeds(self: Any, shapes: list[Any], seq_len: int | None = None,
                         dtype: torch.dtype | None = None) -> Any:  # fmt: skip
        """Of several grids, or with `seq_len` as one."""
        embeds = [self.get_embed(shape, dtype) for shape in shapes]
        return _pad_rope_embeds(embeds, seq_len) if embeds and seq_len is not None else embeds


@adapter
class AxialOfNetwork(OfNetwork, rotary.AxialRotary):
    pass


@adapter
class CenteredOfNetwork(OfNetwork, rotary.CenteredRotary):
    pass


@adapter
class MixedOfNetwork(OfNetwork, rotary.MixedRotary):
    pass


@adapter
class MultimodalOfNetwork(OfNetwork, rotary.MultimodalRotary):
    pass


CLASSES = {"base": RotaryEmbedding, "cat": RotaryEmbeddingCat, "mixed": RotaryEmbeddingMixed,
           "dinov3": RotaryEmbeddingDinoV3, "mrope": RotaryEmbeddingMRope}  # fmt: skip


def create_rope_embed(rope_type: str = "cat", dim: int = 768, num_heads: int = 12, **kwargs: Any) -> nn.Module:
    """The class of a word, for heads of `dim / num_heads` channels."""
    if rope_type not in CLASSES:
        raise ValueError(f"rope_type is {', '.join(CLASSES)}, not {rope_type!r}")
    if rope_type in ("mixed", "mrope") and kwargs.pop("rotate_half", rope_type == "mrope") != (rope_type == "mrope"):
        raise ValueError(f"rope_type {rope_type} turns {'halves' if rope_type == 'mrope' else 'neighbors'}")
    if rope_type == "mixed":
        return RotaryEmbeddingMixed(dim=dim, num_heads=num_heads, **kwargs)
    return CLASSES[rope_type](dim=dim // num_heads, **kwargs)


def apply_keep_indices_nlc(x: Tensor, pos_embed: Tensor, keep_indices: Tensor,
                           pos_embed_has_batch: bool = False) -> Tensor:  # fmt: skip
    """The rows of a table (..., N, D) for the tokens that each image kept, (B, n) -> (B, ..., n, D)."""
    table = pos_embed if pos_embed_has_batch else pos_embed.expand(len(x), *pos_embed.shape)
    rows = keep_indices.view(len(x), *(1,) * (table.ndim - 3), -1, 1)
    return table.gather(-2, rows.expand(*table.shape[:-2], -1, table.shape[-1]))


for leaf in ("_build_grid", "_apply_coord_augs", "_mixed_table", "build_rotary_pos_embed", "make_coords_dinov3"):
    torch.fx.wrap(leaf)  # tracers see one call: tables follow the size

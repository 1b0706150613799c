"""Rotary position embedding (arXiv:2104.09864) on a grid: queries and keys are turned by angles that grow with place.

A table is (N, 2 * D): sines, then cosines, for D channels of a head. Two ways to pair the channels that turn together
exist in published weights: neighbors (0, 1), (2, 3), ... or halves (0, D/2), (1, D/2 + 1), ...
"""

import math
from collections.abc import Sequence

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from .tables import Computed, Size, Tabled


def rotate(x: Tensor, table: Tensor, halves: bool = False) -> Tensor:
    """Turn (..., N, D) by a table (..., N, 2 * D), in the wider of their types; the result is as wide as before."""
    sine, cosine = table.chunk(2, dim=-1)
    if halves:
        first, second = x.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
    else:
        pairs = x.unflatten(-1, (-1, 2))
        turned = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1).flatten(-2)
    return (x * cosine + turned * sine).to(x.dtype)


def rotate_patches(x: Tensor, table: Tensor, prefix: int = 1, halves: bool = False) -> Tensor:
    """The same for (B, H, prefix + N, D) whose first rows have no place."""
    return torch.cat([x[:, :, :prefix], rotate(x[:, :, prefix:], table, halves)], dim=2)


def coordinates(
    grid: Sequence[int], kind: str = "cells", reference: Sequence[int] | None = None, shift: float = 0.0,
    normalize: str = "each", device: torch.device | None = None, dtype: torch.dtype | None = None,
) -> Tensor:  # fmt: skip
    """Where the cells of a grid of any number of sides lie: (h, w, 2) for two. Made on the device, nothing waits.

    "cells" counts them from `shift`; "centered" puts the middles of an unshifted grid between -1 and 1 along each side,
    or along the longest ("max") or shortest one ("min"); "ends" puts the outermost at -1 and 1. With a `reference` grid
    places are stretched to that one's range.
    """
    if kind not in ("cells", "centered", "ends"):
        raise ValueError(f"unknown kind '{kind}' of places; use cells, centered or ends")
    if normalize not in ("each", "max", "min"):
        raise ValueError(f"unknown normalize '{normalize}'; use each, max or min")
    dtype = dtype or torch.float32
    if kind == "ends":
        axes = [torch.linspace(-1, 1, side, device=device, dtype=dtype) for side in grid]
    else:
        first = shift + 0.5 * (kind == "centered")
        axes = [torch.arange(side, device=device, dtype=dtype) + first for side in grid]
    if reference is not None:
        axes = [axis * (wanted / side) for axis, side, wanted in zip(axes, grid, reference)]
    if kind == "centered":
        units = list(grid) if normalize == "each" else [max(grid) if normalize == "max" else min(grid)] * len(grid)
        axes = [2 * (axis / unit) - 1 for axis, unit in zip(axes, units)]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), dim=-1)


def sides(grid: Size, shift: float = 0.0, device: torch.device | None = None) -> list[Tensor]:
    """Where rows and columns of a map's grid lie: (h,) and (w,). TorchScript, which has no sequences, reads this."""
    return [torch.arange(side, dtype=torch.float32, device=device) + shift for side in grid]


def cells(down: Tensor, across: Tensor) -> Tensor:
    """Row and column of every cell, row by row: (h * w, 2)."""
    return torch.stack(torch.meshgrid(down, across, indexing="ij"), dim=-1).flatten(0, 1)


def places(grid: Size, shift: float = 0.0, device: torch.device | None = None) -> Tensor:
    """Row and column of every cell of a grid, row by row: (h * w, 2)."""
    down, across = sides(grid, shift, device)
    return cells(down, across)


def checked_width(dim: int, share: int = 4) -> int:
    """Channels of a head, or a `ValueError` where they do not turn in pairs, as many with rows as with columns."""
    if dim % share:
        raise ValueError(f"rotary positions turn heads of a multiple of {share} channels, not of {dim}")
    return dim


def frequencies(dim: int, theta: float) -> Tensor:
    """theta^(-4i / D), one for each four channels of a head: (D / 4,). Rounded as where published weights were made."""
    return 1 / theta ** (torch.arange(0, checked_width(dim), 4, dtype=torch.float32) / dim)


def periods(dim: int, base: float) -> Tensor:
    """The same as periods, base^(4i / D): (D / 4,)."""
    return base ** (torch.arange(0, checked_width(dim), 4, dtype=torch.float32) / dim)


def as_table(angles: Tensor) -> Tensor:
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


Moves = tuple[float, float, float]
"""How far places may move in training: `shift`, `jitter` and `rescale` of `moved`."""
STILL: Moves = (0.0, 0.0, 0.0)


def checked_moves(moves: Moves) -> Moves:
    """As they are; raises `ValueError` for a shift below 0, or a factor that is neither 0 nor at least 1."""
    for name, least, value in zip(("shift", "jitter", "rescale"), (0.0, 1.0, 1.0), moves):
        if value and not least <= value < math.inf:
            raise ValueError(f"places move by a {name} of at least {least:g}, or 0 for none, not {value}")
    return moves[0], moves[1], moves[2]


def turned_by(where: Tensor, bands: Tensor, halves: bool) -> Tensor:
    """A table for places (..., 2), whose rows and columns turn half of the pairs each: (..., 2 * D)."""
    angles = (where.unsqueeze(-1) * bands).flatten(-2)
    return as_table(torch.cat([angles, angles], dim=-1) if halves else angles.repeat_interleave(2, dim=-1))


def axial_table(
    grid: Size, bands: Tensor, reference: Size | None = None, shift: float = 0.0, columns_first: bool = False,
    halves: bool = False, moves: Moves = STILL,
) -> Tensor:  # fmt: skip
    """Half of the pairs turn with the row, half with the column: (h * w, 2 * D).

    Channels are paired as neighbors, or by `halves` as language models with several axes do (arXiv:2409.12191).
    With a `reference` grid places are measured on that one, so that its range is kept at any size (EVA-02,
    arXiv:2303.11331).
    """
    down, across = sides(grid, shift, bands.device)
    if reference is not None:
        down, across = down * (reference[0] / grid[0]), across * (reference[1] / grid[1])
    where = moved(cells(down, across), moves[0], moves[1], moves[2])
    return turned_by(where.flip(1) if columns_first else where, bands, halves)


def periods_between(dim: int, shortest: float, longest: float) -> Tensor:
    """Periods in a geometric row, from one to the other: (D / 4,)."""
    return shortest * (longest / shortest) ** torch.linspace(0, 1, checked_width(dim) // 4)


def moved(where: Tensor, shift: float = 0.0, jitter: float = 0.0, rescale: float = 0.0) -> Tensor:
    """Places (..., 2) moved by numbers drawn anew in each call; 0 leaves a step out.

    Up to `shift` is added along each side, a factor between `jitter` (at least 1) and its inverse stretches each side,
    one between `rescale` and its inverse both.
    """
    if shift:
        where = where + torch.empty(where.shape[-1], device=where.device).uniform_(-shift, shift)
    for factor, count in ((jitter, where.shape[-1]), (rescale, 1)):
        if factor:
            most = math.log(factor)
            where = where * torch.empty(count, device=where.device).uniform_(-most, most).exp()
    return where


def centered_table(
    grid: Size, periods: Tensor, rescale: float = 0.0, normalize: str = "each", shift: float = 0.0, jitter: float = 0.0,
    halves: bool = True,
) -> Tensor:  # fmt: skip
    """Places from -1 to 1 (DINOv3, arXiv:2508.10104), `moved`, channels paired by halves: (h * w, 2 * D)."""
    if normalize not in ("each", "max", "min"):
        raise ValueError(f"unknown normalize '{normalize}'; use each, max or min")
    units = [grid[0], grid[1]] if normalize == "each" else [max(grid) if normalize == "max" else min(grid)] * 2
    down, across = sides(grid, 0.5, periods.device)
    where = 2 * cells(down / units[0], across / units[1]) - 1
    return turned_in(moved(where, shift, jitter, rescale), periods, halves)


def turned_in(where: Tensor, periods: Tensor, halves: bool) -> Tensor:
    """`turned_by` with periods."""
    angles = (2 * math.pi * where.unsqueeze(-1) / periods).flatten(-2)
    return as_table(torch.cat([angles, angles], dim=-1) if halves else angles.repeat_interleave(2, dim=-1))


def pixel_bands(dim: int, resolution: float, linear: bool = False) -> Tensor:
    """Frequencies up to half the `resolution`, times pi, evenly or by octaves (arXiv:2103.03206): (D / 4,)."""
    count = checked_width(dim) // 4
    if linear:
        return math.pi * torch.linspace(1, resolution / 2, count)
    return math.pi * 2 ** torch.linspace(0, math.log2(resolution) - 1, count)


def pixel_table(grid: Size, bands: Tensor) -> Tensor:
    """Places from -1 to 1, the outermost at the ends, channels paired as neighbors: (h * w, 2 * D)."""
    where = coordinates(grid, "ends", device=bands.device).flatten(0, 1)
    return as_table((where[:, :, None] * bands).flatten(1).repeat_interleave(2, dim=-1))


class GridRotary(Tabled):
    """What makes tables of grids. Places move in training, if they do."""

    moves: Moves

    def stir(self, where: Tensor) -> Tensor:
        """Places (..., 2), moved in training."""
        return moved(where, *self.moves) if self.training else where

    def of_patches(self, coordinates: Tensor, sizes: Tensor) -> Tensor:
        """A table for patches of images of any grids, rows and columns (B, N, 2) and their counts (B, 2):
        (B, 1, N, 2 * D), or (depth, B, heads, N, 2 * D)."""
        raise NotImplementedError


class AxialRotary(GridRotary):
    """The table of `axial_table` for heads of `dim` channels: that of the model's grid, or of one that is handed in."""

    bands: Tensor
    pos_embed: Tensor
    tables = {
        "bands": Computed(frequencies, "dim", "theta", exact=True),
        "pos_embed": Computed(axial_table, "grid", "bands", "reference", "shift", "columns_first", "halves"),
    }

    def __init__(self, dim: int, grid: Size, theta: float = 10000.0, reference: Size | None = None, shift: float = 0.0,
                 columns_first: bool = False, halves: bool = False, moves: Moves = STILL):  # fmt: skip
        super().__init__()
        self.moves = checked_moves(moves)
        self.moving = any(moves)
        self.dim, self.grid, self.theta, self.halves = dim, grid, theta, halves
        self.reference = (reference[0], reference[1]) if reference is not None else None
        self.shift, self.columns_first = shift, columns_first
        self.init_non_persistent_buffers()

    def forward(self, grid: Size | None = None) -> Tensor:
        moving = self.moving and self.training
        if grid is None and not moving:
            return self.pos_embed
        where = self.grid if grid is None else grid
        moves = self.moves if moving else (0.0, 0.0, 0.0)
        return axial_table(where, self.bands, self.reference, self.shift, self.columns_first, self.halves, moves)

    def of_patches(self, coordinates: Tensor, sizes: Tensor) -> Tensor:
        where = coordinates.to(self.bands) + self.shift
        if self.reference is not None:
            where = where * (torch.tensor(self.reference).to(self.bands) / sizes)[:, None]
        where = self.stir(where)
        return turned_by(where.flip(-1) if self.columns_first else where, self.bands, self.halves)[:, None]


def apart_table(grid: Size, bands: Tensor) -> Tensor:
    """An axis for each half of the channels, columns first, paired by halves within it: (h * w, 2, D).

    It turns heads that are seen as (..., N, 2, D / 2).
    """
    angles = places(grid, device=bands.device).flip(1)[:, :, None] * bands
    return as_table(angles.repeat(1, 1, 2))


class AnyGridRotary(Tabled):
    """The table for heads of `dim` channels and the grid that is handed in: `axial_table` by halves, or `apart`."""

    bands: Tensor
    tables = {"bands": Computed(frequencies, "dim", "theta", exact=True)}

    def __init__(self, dim: int, theta: float = 10000.0, apart: bool = False):
        super().__init__()
        self.dim, self.theta, self.apart = dim, theta, apart
        self.init_non_persistent_buffers()

    def forward(self, grid: Size) -> Tensor:
        return apart_table(grid, self.bands) if self.apart else axial_table(grid, self.bands, halves=True)


def periods_of(dim: int, base: float, shortest: float, longest: float) -> Tensor:
    return periods_between(dim, shortest, longest) if shortest else periods(dim, base)


class CenteredRotary(GridRotary):
    """The table of `centered_table` for heads of `dim` channels, for the model's grid or one that is handed in.

    Periods follow from `base`, or go from `shortest` to `longest`. Places move in training only.
    """

    periods: Tensor
    tables = {"periods": Computed(periods_of, "dim", "base", "shortest", "longest", exact=True)}

    def __init__(self, dim: int, grid: Size, base: float = 100.0, rescale: float = 0.0, normalize: str = "each",
                 shift: float = 0.0, jitter: float = 0.0, halves: bool = True, shortest: float = 0.0,
                 longest: float = 0.0):  # fmt: skip
        super().__init__()
        self.dim, self.grid, self.base, self.halves, self.normalize = dim, grid, base, halves, normalize
        self.moves = checked_moves((shift, jitter, rescale))
        self.shortest, self.longest = shortest, longest
        if bool(shortest) != bool(longest):
            raise ValueError("periods need both ends, shortest and longest, or neither")
        self.init_non_persistent_buffers()

    def forward(self, grid: Size | None = None) -> Tensor:
        where = self.grid if grid is None else grid
        moves = self.moves if self.training else (0.0, 0.0, 0.0)
        return centered_table(where, self.periods, moves[2], self.normalize, moves[0], moves[1], self.halves)

    def of_patches(self, coordinates: Tensor, sizes: Tensor) -> Tensor:
        units = sizes if self.normalize == "each" else getattr(sizes, f"a{self.normalize}")(1, keepdim=True)
        where = 2 * ((coordinates + 0.5).to(self.periods) / units[:, None]) - 1
        return turned_in(self.stir(where), self.periods, self.halves)[:, None]


class PixelRotary(Tabled):
    """The table of `pixel_table` for heads of `dim` channels, for the model's grid or one that is handed in."""

    bands: Tensor
    tables = {"bands": Computed(pixel_bands, "dim", "resolution", "linear", exact=True)}

    def __init__(self, dim: int, grid: Size, resolution: int = 224, linear: bool = False):
        super().__init__()
        self.dim, self.grid, self.resolution, self.linear = dim, grid, resolution, linear
        self.init_non_persistent_buffers()

    def forward(self, grid: Size | None = None) -> Tensor:
        return pixel_table(self.grid if grid is None else grid, self.bands)


class MixedRotary(GridRotary):
    """Learned frequencies of each head and depth, rows and columns mixed (RoPE-ViT, arXiv:2403.13298, eq. 7).

    `freqs` is (2, depth, heads, D / 2): what columns and rows add to the angles, in the other order if `rows_first`.
    -> (depth, heads, N, 2 * D).
    """

    places: Tensor
    tables = {"places": Computed(places, "grid", exact=True)}  # type: ignore[has-type]

    def __init__(self, dim: int, depth: int, heads: int, grid: Size, theta: float = 10.0, moves: Moves = STILL,
                 rows_first: bool = False):  # fmt: skip
        super().__init__()
        self.grid, self.moves, self.rows_first = grid, checked_moves(moves), rows_first
        self.freqs = nn.Parameter(torch.empty(2, depth, heads, dim // 2))
        self.init_non_persistent_buffers()
        with torch.no_grad():
            self.freqs.copy_(mixed_frequencies(dim, depth, heads, theta))

    def forward(self, grid: Size | None = None) -> Tensor:
        where = self.places if grid is None else places(grid, device=self.places.device).to(self.places)
        moves = self.moves if self.training else (0.0, 0.0, 0.0)
        where = moved(where, moves[0], moves[1], moves[2])
        return mixed_table(where.flip(1) if self.rows_first else where, self.freqs)

    def of_patches(self, coordinates: Tensor, sizes: Tensor) -> Tensor:
        where = self.stir(coordinates.to(self.places))[:, None]
        return mixed_table(where.flip(-1) if self.rows_first else where, self.freqs[:, :, None])


def mixed_table(where: Tensor, freqs: Tensor) -> Tensor:
    """Places (N, 2), row and column, that turn by what columns and rows add: (2, ..., D / 2) -> (..., N, 2 * D)."""
    angles = where[..., 1:] * freqs[0][..., None, :] + where[..., :1] * freqs[1][..., None, :]
    return as_table(angles.repeat_interleave(2, dim=-1))


def mixed_frequencies(dim: int, depth: int, heads: int, theta: float = 10.0, random: bool = True) -> Tensor:
    """Each head begins at a direction, a random one, the second half of its channels at a right angle to the first:
    (2, depth, heads, D / 2)."""
    bands = frequencies(dim, theta)
    direction = torch.rand(depth, heads, 1) * 2 * math.pi if random else torch.zeros(depth, heads, 1)
    turned = [direction, direction + math.pi / 2]
    return torch.stack([torch.cat([bands * part(each) for each in turned], dim=-1) for part in (torch.cos, torch.sin)])


def axes_of(dim: int, sections: tuple[int, int, int]) -> Tensor:
    """The axis (time, row, column) that each of D / 2 frequencies turns with, taken in turns: (D / 2,)."""
    axes = torch.zeros(dim // 2, dtype=torch.long)
    for axis in (1, 2):
        axes[axis : 3 * sections[axis] : 3] = axis
    return axes


def sections_table(grid: Size, bands: Tensor, axes: Tensor, moves: Moves = STILL) -> Tensor:
    """Each frequency turns with its axis, the time of an image being 0; channels paired by halves: (h * w, 2 * D)."""
    return axes_table(moved(places(grid, device=bands.device), moves[0], moves[1], moves[2]), bands, axes)


def axes_table(where: Tensor, bands: Tensor, axes: Tensor) -> Tensor:
    """The same of places (..., 2)."""
    angles = F.pad(where, (1, 0)).index_select(-1, axes) * bands
    return as_table(torch.cat([angles, angles], dim=-1))


def all_frequencies(dim: int, theta: float) -> Tensor:
    """theta^(-2i / D), one for each two channels of a head: (D / 2,)."""
    return 1 / theta ** (torch.arange(0, dim, 2, dtype=torch.float32) / dim)


class MultimodalRotary(GridRotary):
    """The table of language models that see, for heads of `dim` channels: time, rows and columns have `sections` of the
    D / 2 frequencies, taken in turns (Qwen3-VL, arXiv:2511.21631). What they leave over is of time, and what is beyond
    the last frequency is left out. It is that of the model's grid, or of one that is handed in."""

    bands: Tensor
    axes: Tensor
    tables = {
        "bands": Computed(all_frequencies, "dim", "theta", exact=True),
        "axes": Computed(axes_of, "dim", "sections"),
    }

    def __init__(self, dim: int, sections: Sequence[int] = (8, 12, 12), theta: float = 10000.0,
                 grid: Size = (1, 1), moves: Moves = STILL):  # fmt: skip
        super().__init__()
        self.grid, self.moves = grid, checked_moves(moves)
        checked_width(dim, 2)
        if len(sections) != 3 or min(sections) < 0:
            raise ValueError(f"sections of time, rows and columns are 3 numbers of frequencies, not {sections}")
        self.dim, self.sections, self.theta = dim, (sections[0], sections[1], sections[2]), theta
        self.init_non_persistent_buffers()

    def forward(self, grid: Size | None = None) -> Tensor:
        moves = self.moves if self.training else (0.0, 0.0, 0.0)
        return sections_table(self.grid if grid is None else grid, self.bands, self.axes, moves)

    def of_patches(self, coordinates: Tensor, sizes: Tensor) -> Tensor:
        return axes_table(self.stir(coordinates.to(self.bands)), self.bands, self.axes)[:, None]


def rotary_of(
    kind: str, dim: int, depth: int, heads: int, grid: Size, theta: float = 10000.0, reference: Size | None = None,
    shift: float = 0.0, columns_first: bool = False, halves: bool = False, sections: Sequence[int] | None = None,
    moves: Moves = STILL,
) -> GridRotary:  # fmt: skip
    """The rotary positions of a network by their name: "axial", "mixed", "dinov3" or "mrope"."""
    if kind == "axial":
        return AxialRotary(dim, grid, theta, reference, shift, columns_first, halves, moves)
    if kind == "dinov3":
        if columns_first:
            raise ValueError("dinov3 rope has rows before columns: leave rope_columns_first out")
        return CenteredRotary(dim, grid, theta, moves[2], "each", moves[0], moves[1], halves)
    if kind == "mixed":
        if halves:
            raise ValueError("mixed rope turns neighboring channels: leave rope_halves out")
        return MixedRotary(dim, depth, heads, grid, theta, moves, not columns_first)
    if kind == "mrope":
        return MultimodalRotary(dim, sections or (8, 12, 12), theta, grid, moves)
    raise ValueError(f"rope is 'axial', 'mixed', 'dinov3', 'mrope' or None, not '{kind}'")


def rows_of(table: Tensor, kept: Tensor) -> Tensor:
    """The rows of the patches that each image kept (B, n): (N, 2D) -> (B, 1, n, 2D), or one a depth and head."""
    rows = table[..., kept, :]
    return rows.unsqueeze(1) if table.ndim == 2 else rows.transpose(1, 2)


for leaf in ("places", "axial_table", "apart_table", "centered_table", "pixel_table", "sections_table", "moved"):
    torch.fx.wrap(leaf)  # tracers see one call: tables follow the size

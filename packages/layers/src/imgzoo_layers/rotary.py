"""Rotary position embedding (arXiv:2104.09864) on a grid: queries and keys are turned by angles that grow with place.

A table is (N, 2 * D): sines, then cosines, for D channels of a head. Two ways to pair the channels that turn together
exist in published weights: neighbours (0, 1), (2, 3), ... or halves (0, D/2), (1, D/2 + 1), ...
"""

import math

import torch
import torch.fx
from torch import Tensor, nn

from .tables import Computed, Size, Tabled


def rotate(x: Tensor, table: Tensor, halves: bool = False) -> Tensor:
    """Turn (..., N, D) by a table (..., N, 2 * D)."""
    sine, cosine = table.to(x.dtype).chunk(2, dim=-1)
    if halves:
        first, second = x.chunk(2, dim=-1)
        turned = torch.cat([-second, first], dim=-1)
    else:
        pairs = x.unflatten(-1, (-1, 2))
        turned = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1).flatten(-2)
    return x * cosine + turned * sine


def rotate_patches(x: Tensor, table: Tensor, prefix: int = 1, halves: bool = False) -> Tensor:
    """The same for (B, H, prefix + N, D) whose first rows have no place."""
    return torch.cat([x[:, :, :prefix], rotate(x[:, :, prefix:], table, halves)], dim=2)


def axial_angles(places: Tensor, bands: Tensor) -> Tensor:
    """Places (N, 2), down and across, and frequencies (K,) -> angles (N, 2K), rows' first."""
    return (places[:, :, None] * bands).flatten(1)


def places(grid: Size, shift: float = 0.0) -> Tensor:
    """Row and column of every cell of a grid, row by row: (h * w, 2)."""
    down, across = torch.arange(grid[0], dtype=torch.float32), torch.arange(grid[1], dtype=torch.float32)
    return torch.stack(torch.meshgrid(down + shift, across + shift, indexing="ij"), dim=-1).flatten(0, 1)


def axial_table(grid: Size, dim: int, theta: float, reference: Size | None, shift: float) -> Tensor:
    """A quarter of the channels turns with the row, a quarter with the column, at frequencies theta^(-4i / D).

    With a `reference` grid places are measured on that one, so that its range is kept at any size (EVA-02,
    arXiv:2303.11331).
    """
    bands = theta ** -(torch.arange(0, dim // 2, 2, dtype=torch.float32) / (dim // 2))
    where = places(grid, shift)
    if reference is not None:
        where = where * torch.tensor([reference[0] / grid[0], reference[1] / grid[1]])
    angles = axial_angles(where, bands).repeat_interleave(2, dim=-1)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


def centered_table(grid: Size, dim: int, base: float) -> Tensor:
    """Places from -1 to 1 along each side, channels paired by halves (DINOv3, arXiv:2508.10104, section 3.2)."""
    where = 2 * (places(grid, 0.5) / torch.tensor([float(grid[0]), float(grid[1])])) - 1
    periods = base ** (torch.arange(dim // 4, dtype=torch.float32) / (dim // 4))
    angles = axial_angles(where, 2 * math.pi / periods).repeat(1, 2)
    return torch.cat([angles.sin(), angles.cos()], dim=-1)


class AxialRotary(Tabled):
    """The table of `axial_table`, for the grid of the model or one that is handed in."""

    pos_embed: Tensor
    tables = {"pos_embed": Computed(axial_table, "grid", "dim", "theta", "reference", "shift")}

    def __init__(self, dim: int, grid: Size, theta: float = 10000.0, reference: Size | None = None, shift: float = 0.0):
        super().__init__()
        self.dim, self.grid, self.theta, self.reference, self.shift = dim, grid, theta, reference, shift
        self.init_non_persistent_buffers()

    def forward(self, grid: Size | None = None) -> Tensor:
        if grid is None:
            return self.pos_embed
        return axial_table(grid, self.dim, self.theta, self.reference, self.shift).to(self.pos_embed)


class CenteredRotary(Tabled):
    """The table of `centered_table`, for the grid of the model or one that is handed in."""

    pos_embed: Tensor
    tables = {"pos_embed": Computed(centered_table, "grid", "dim", "base")}

    def __init__(self, dim: int, grid: Size, base: float = 100.0):
        super().__init__()
        self.dim, self.grid, self.base = dim, grid, base
        self.init_non_persistent_buffers()

    def forward(self, grid: Size | None = None) -> Tensor:
        if grid is None:
            return self.pos_embed
        return centered_table(grid, self.dim, self.base).to(self.pos_embed)


class MixedRotary(Tabled):
    """Learned frequencies of each head and depth, rows and columns mixed (RoPE-ViT, arXiv:2403.13298, eq. 7).

    `freqs` is (2, depth, heads * D / 2): what rows and columns add to the angles. -> (depth, heads, N, 2 * D).
    """

    places: Tensor
    tables = {"places": Computed(places, "grid")}

    def __init__(self, dim: int, depth: int, heads: int, grid: Size, theta: float = 10.0):
        super().__init__()
        self.depth, self.heads, self.grid = depth, heads, grid
        self.freqs = nn.Parameter(torch.empty(2, depth, heads * dim // 2))
        self.init_frequencies(dim, theta)
        self.init_non_persistent_buffers()

    def init_frequencies(self, dim: int, theta: float) -> None:
        """Each head begins at a random direction, with its quarter turned by a right angle."""
        magnitude = theta ** -(torch.arange(0, dim, 4, dtype=torch.float32) / dim)
        direction = torch.rand(self.depth, self.heads, 1) * 2 * math.pi
        across = [magnitude * (direction + turn).cos() for turn in (0.0, math.pi / 2)]
        down = [magnitude * (direction + turn).sin() for turn in (0.0, math.pi / 2)]
        both = [torch.cat(part, dim=-1).flatten(1) for part in (across, down)]
        with torch.no_grad():
            self.freqs.copy_(torch.stack(both))

    def forward(self, grid: Size | None = None) -> Tensor:
        where = self.places if grid is None else places(grid).to(self.places)
        angles = where[:, 1:] * self.freqs[0][:, None] + where[:, :1] * self.freqs[1][:, None]  # (depth, N, H * D/2)
        angles = angles.unflatten(2, (self.heads, -1)).transpose(1, 2).repeat_interleave(2, dim=-1)
        return torch.cat([angles.sin(), angles.cos()], dim=-1)


for leaf in ("places", "axial_table", "centered_table"):
    torch.fx.wrap(leaf)  # tracers see one call: tables follow the size

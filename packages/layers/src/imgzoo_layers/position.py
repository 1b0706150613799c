"""Position: tables on a grid and their resizing, and position by convolution."""

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F


class ConvPosition(nn.Module):
    """A depthwise convolution over the patches, added to them (arXiv:2102.10882): (B, prefix + N, C) -> the same."""

    def __init__(self, dim: int, kernel: int = 3, prefix: int = 0):
        super().__init__()
        self.num_prefix_tokens = prefix
        self.proj = nn.Conv2d(dim, dim, kernel, 1, kernel // 2, groups=dim)

    def forward(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        image = x[:, self.num_prefix_tokens :].transpose(1, 2).unflatten(2, size)
        image = (self.proj(image) + image).flatten(2).transpose(1, 2)
        return torch.cat([x[:, : self.num_prefix_tokens], image], dim=1)


def resize_grid(
    table: Tensor, size: tuple[int, int], old: tuple[int, int], prefix: int = 0, mode: str = "bicubic"
) -> Tensor:
    """Resize a position table (1, prefix + h*w, C) from grid `old` to `size`; prefix rows stay as they are."""
    return grid_resized(table, size, old, prefix, mode)


def grid_resized(table: Tensor, size: tuple[int, int], old: tuple[int, int], prefix: int, mode: str) -> Tensor:
    if size == old:
        return table
    head, grid = table[:, :prefix], table[:, prefix:]
    grid = grid.unflatten(1, old).permute(0, 3, 1, 2).float()
    grid = F.interpolate(grid, size=size, mode=mode, antialias=True)
    grid = grid.permute(0, 2, 3, 1).flatten(1, 2).to(table.dtype)
    return torch.cat([head, grid], dim=1)


def resize_map(table: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a position map (1, C, h, w)."""
    return map_resized(table, size)


def map_resized(table: Tensor, size: tuple[int, int]) -> Tensor:
    if (table.shape[2], table.shape[3]) == size:
        return table
    return F.interpolate(table.float(), size=size, mode="bicubic", antialias=True).to(table.dtype)


def resize_map_last(table: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize a position map with channels last, (1, h, w, C)."""
    return map_resized(table.permute(0, 3, 1, 2), size).permute(0, 2, 3, 1)


def resize_offsets(table: Tensor, sides: list[int], align_corners: bool = True) -> Tensor:
    """Resize a table by distance along one side n or two, (2n - 1, C) or (2h - 1, 2w - 1, C).

    With `align_corners` the farthest stay the farthest, else each row stands for an equal part of the span.
    """
    return offsets_resized(table, sides, align_corners)


def offsets_resized(table: Tensor, sides: list[int], align_corners: bool) -> Tensor:
    sizes = [2 * side - 1 for side in sides]
    if list(table.shape[:-1]) == sizes:
        return table
    mode = "linear" if len(sides) == 1 else "bilinear"
    grid = F.interpolate(table.movedim(-1, 0)[None].float(), sizes, mode=mode, align_corners=align_corners)
    return grid[0].movedim(0, -1).to(table.dtype)


torch.fx.wrap("grid_resized")  # tracers need not know whether the size is another
torch.fx.wrap("map_resized")
torch.fx.wrap("offsets_resized")

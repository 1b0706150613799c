"""Position tables on a grid, and their resizing."""

import torch
import torch.fx
from torch import Tensor
from torch.nn import functional as F


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
    if (table.shape[2], table.shape[3]) == size:
        return table
    return F.interpolate(table.float(), size=size, mode="bicubic", antialias=True).to(table.dtype)


torch.fx.wrap("grid_resized")  # tracers need not know whether the size is another

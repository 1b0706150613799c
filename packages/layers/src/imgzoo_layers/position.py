"""Position tables on a grid, and their resizing."""

import torch
from torch import Tensor
from torch.nn import functional as F


def resize_grid(
    table: Tensor, size: tuple[int, int], old: tuple[int, int], prefix: int = 0, mode: str = "bicubic"
) -> Tensor:
    """Resize a position table (1, prefix + h*w, C) from grid `old` to `size`; prefix rows stay as they are."""
    if size == old:
        return table
    head, grid = table[:, :prefix], table[:, prefix:]
    grid = grid.unflatten(1, old).permute(0, 3, 1, 2).float()
    grid = F.interpolate(grid, size=size, mode=mode, antialias=True)
    grid = grid.permute(0, 2, 3, 1).flatten(1, 2).to(table.dtype)
    return torch.cat([head, grid], dim=1)

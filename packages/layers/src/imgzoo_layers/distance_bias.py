"""A bias of attention by the distance between two positions, down and across (LeViT, arXiv:2104.01136, section 4.2)."""

import torch
from torch import Tensor
from torch.nn import functional as F

from .tables import Size, Table, square


class DistanceTable(Table):
    """A bias (heads, h * w), an entry for each distance down and across within a map."""

    def resize(self, table: Tensor, old: Size, new: Size) -> Tensor:
        grid = F.interpolate(table.float().unflatten(1, old)[None], size=new, mode="bicubic", antialias=True)
        return grid[0].flatten(1).to(table.dtype)

    def size_of(self, table: Tensor, own: Tensor, size: Size) -> Size | None:
        return square(table.shape[1])


def distance_index(size: Size, stride: int = 1) -> Tensor:
    """Column of the table for each pair of positions, queries `stride` apart: (queries, h * w)."""
    down, across = torch.meshgrid(torch.arange(size[0]), torch.arange(size[1]), indexing="ij")
    down = down[::stride, ::stride].reshape(-1, 1) - down.flatten()
    across = across[::stride, ::stride].reshape(-1, 1) - across.flatten()
    return down.abs() * size[1] + across.abs()


def distance_bias(biases: Tensor, index: Tensor) -> Tensor:
    """What is added to the scores (heads, queries, keys): of a table the columns that `distance_index` gives."""
    return biases.index_select(1, index.flatten()).unflatten(1, index.shape)

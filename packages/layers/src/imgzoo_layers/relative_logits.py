"""What a query adds to attention by how far away a key lies, rows and columns apart (arXiv:1904.09925)."""

import torch
from torch import Tensor, nn

from .tables import OffsetTable, Tabled


class RelativeLogits(Tabled):
    """Queries (..., h, w, d) at the first places of a grid of keys -> logits (..., h, w, H, W).

    A table each for rows and columns, (2H - 1, d) and (2W - 1, d), is read at the distance from query to key.
    """

    tables = {"height_rel": OffsetTable(axis=0), "width_rel": OffsetTable(axis=1)}

    def __init__(self, grid: tuple[int, int], dim: int):
        super().__init__()
        self.grid = grid
        self.height_rel = nn.Parameter(torch.empty(2 * grid[0] - 1, dim))
        self.width_rel = nn.Parameter(torch.empty(2 * grid[1] - 1, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for table in (self.height_rel, self.width_rel):
            nn.init.normal_(table, std=table.shape[1] ** -0.5)

    def forward(self, q: Tensor) -> Tensor:
        rows = distances(q.shape[-3], self.grid[0], q.device)
        columns = distances(q.shape[-2], self.grid[1], q.device)
        by_row = torch.einsum("...hwd,hkd->...hwk", q, self.height_rel[rows])
        by_column = torch.einsum("...hwd,wkd->...hwk", q, self.width_rel[columns])
        return by_row.unsqueeze(-1) + by_column.unsqueeze(-2)


def distances(queries: int, keys: int, device: torch.device) -> Tensor:
    """Rows of the table for each query and key, (queries, keys): key - query, counted from zero."""
    return torch.arange(keys, device=device)[None] - torch.arange(queries, device=device)[:, None] + keys - 1

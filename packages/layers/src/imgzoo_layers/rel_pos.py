"""Biases by the offset between two positions of a window, beside the plain table in `window`."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .init import trunc_normal_
from .mlp import Mlp
from .tables import BiasTable, BiasTableTf, Computed, Size, Tabled
from .window import relative_index


def relative_index_with_class(window: Size) -> Tensor:
    """Rows of a bias table whose last three are class to patch, patch to class and class to class: (1 + N, 1 + N)."""
    offsets = (2 * window[0] - 1) * (2 * window[1] - 1)
    index = F.pad(relative_index(window), (1, 0, 1, 0), value=offsets + 1)
    index[0] = offsets
    index[0, 0] = offsets + 2
    return index


def flat_relative_index(window: Size, prefix: int = 0) -> Tensor:
    return (relative_index_with_class(window) if prefix else relative_index(window)).flatten()


class RelPosBias(Tabled):
    """A learned bias for each head and offset between positions of a window (arXiv:2103.14030): -> (1, heads, N, N).

    With `prefix` 1 a class token stands before them, with three rows of its own.
    """

    relative_position_index: Tensor
    tables = {
        "relative_position_bias_table": BiasTable(),
        "relative_position_index": Computed(flat_relative_index, "window", "prefix"),
    }
    sized_by = "window"

    def __init__(self, window: Size, heads: int, prefix: int = 0):
        if prefix not in (0, 1):
            raise ValueError(f"prefix is 0 or 1, a class token, not {prefix}")
        super().__init__()
        self.window, self.prefix = window, prefix
        offsets = (2 * window[0] - 1) * (2 * window[1] - 1) + 3 * prefix
        self.relative_position_bias_table = nn.Parameter(torch.empty(offsets, heads))
        trunc_normal_(self.relative_position_bias_table, std=0.02)
        self.init_non_persistent_buffers()

    def forward(self) -> Tensor:
        area = self.window[0] * self.window[1] + self.prefix
        bias = self.relative_position_bias_table[self.relative_position_index]
        return bias.view(area, area, -1).permute(2, 0, 1).contiguous().unsqueeze(0)


def offset_lookup(length: int) -> Tensor:
    """One-hot rows of a table of offsets, from each position to each: (n, n, 2n - 1)."""
    places = torch.arange(length)
    offsets = places - places[:, None] + length - 1
    return (offsets[..., None] == torch.arange(2 * length - 1)).float()


def height_lookup(window: Size) -> Tensor:
    return offset_lookup(window[0])


def width_lookup(window: Size) -> Tensor:
    return offset_lookup(window[1])


class RelPosBiasTf(Tabled):
    """As `RelPosBias`, the table kept as (heads, 2h - 1, 2w - 1) by offset from query to key, as in TensorFlow."""

    relative_position_index: Tensor
    tables = {
        "relative_position_bias_table": BiasTableTf(),
        "height_lookup": Computed(height_lookup, "window"),
        "width_lookup": Computed(width_lookup, "window"),
    }
    sized_by = "window"

    def __init__(self, window: Size, heads: int):
        super().__init__()
        self.window = window
        shape = (heads, 2 * window[0] - 1, 2 * window[1] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.empty(shape))
        nn.init.normal_(self.relative_position_bias_table, std=0.02)
        self.init_non_persistent_buffers()

    def forward(self) -> Tensor:
        area = self.window[0] * self.window[1]
        rows = torch.einsum("nhw,ixh->nixw", self.relative_position_bias_table, self.height_lookup)
        bias = torch.einsum("nixw,jyw->nijxy", rows, self.width_lookup)
        return bias.reshape(1, -1, area, area)


def log_offsets(window: Size) -> Tensor:
    """sign(d) log(1 + |d|) of all offsets down and across: (2h - 1, 2w - 1, 2)."""
    down = torch.arange(1.0 - window[0], window[0])
    across = torch.arange(1.0 - window[1], window[1])
    offsets = torch.stack(torch.meshgrid(down, across, indexing="ij"), dim=-1)
    return offsets.sign() * offsets.abs().log1p()


class RelPosMlp(Tabled):
    """The bias as a small network of the offset on a log scale, for windows of any size (arXiv:2111.09883)."""

    relative_position_index: Tensor
    tables = {
        "relative_position_index": Computed(flat_relative_index, "window"),
        "rel_coords_log": Computed(log_offsets, "window"),
    }
    sized_by = "window"

    def __init__(self, window: Size, heads: int, hidden: int = 512):
        super().__init__()
        self.window = window
        self.mlp = Mlp(2, hidden, heads, act="relu")
        self.mlp.drop1.p = 0.125
        self.init_non_persistent_buffers()

    def forward(self) -> Tensor:
        area = self.window[0] * self.window[1]
        bias = self.mlp(self.rel_coords_log).flatten(0, 1)[self.relative_position_index]
        return bias.view(area, area, -1).permute(2, 0, 1).contiguous().unsqueeze(0)

"""Biases by the offset between two positions of a window, beside the plain table in `window`."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .init import trunc_normal_
from .mlp import Mlp
from .window import Size, relative_index, resize_bias_table


def relative_index_with_class(window: Size) -> Tensor:
    """Rows of a bias table whose last three are class to patch, patch to class and class to class: (1 + N, 1 + N)."""
    offsets = (2 * window[0] - 1) * (2 * window[1] - 1)
    index = F.pad(relative_index(window), (1, 0, 1, 0), value=offsets + 1)
    index[0] = offsets
    index[0, 0] = offsets + 2
    return index


def resize_bias_table_with_class(table: Tensor, old: Size, new: Size) -> Tensor:
    """As `resize_bias_table` for the offsets; the three rows of the class token stay."""
    return torch.cat([resize_bias_table(table[:-3], old, new), table[-3:]])


class RelPosBias(nn.Module):
    """A learned bias for each head and offset between positions of a window (arXiv:2103.14030): -> (1, heads, N, N)."""

    def __init__(self, window: Size, heads: int):
        super().__init__()
        self.window = window
        offsets = (2 * window[0] - 1) * (2 * window[1] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.empty(offsets, heads))
        self.register_buffer("relative_position_index", relative_index(window).flatten(), persistent=False)
        trunc_normal_(self.relative_position_bias_table, std=0.02)

    @torch.jit.ignore
    def fitted(self, table: Tensor) -> Tensor:
        """A table for a square window of any size, resized to this one."""
        side = (int(table.shape[0] ** 0.5) + 1) // 2
        return resize_bias_table(table, (side, side), self.window)

    @torch.jit.ignore
    def set_window(self, window: Size) -> None:
        table = resize_bias_table(self.relative_position_bias_table.detach(), self.window, window)
        self.relative_position_bias_table = nn.Parameter(table)
        self.relative_position_index = relative_index(window).flatten().to(table.device)
        self.window = window

    def forward(self) -> Tensor:
        area = self.window[0] * self.window[1]
        bias = self.relative_position_bias_table[self.relative_position_index]
        return bias.view(area, area, -1).permute(2, 0, 1).unsqueeze(0)


class RelPosBiasTf(nn.Module):
    """As `RelPosBias`, the table kept as (heads, 2h - 1, 2w - 1) by offset from query to key, as in TensorFlow."""

    def __init__(self, window: Size, heads: int):
        super().__init__()
        self.window = window
        shape = (heads, 2 * window[0] - 1, 2 * window[1] - 1)
        self.relative_position_bias_table = nn.Parameter(torch.empty(shape))
        self.register_buffer("height_lookup", offset_lookup(window[0]), persistent=False)
        self.register_buffer("width_lookup", offset_lookup(window[1]), persistent=False)
        nn.init.normal_(self.relative_position_bias_table, std=0.02)

    @torch.jit.ignore
    def fitted(self, table: Tensor) -> Tensor:
        """A table for any window, resized to this one."""
        size = (2 * self.window[0] - 1, 2 * self.window[1] - 1)
        if tuple(table.shape[1:]) == size:
            return table
        return F.interpolate(table.float()[None], size=size, mode="bicubic", align_corners=False)[0].to(table.dtype)

    @torch.jit.ignore
    def set_window(self, window: Size) -> None:
        self.window = window
        table = self.fitted(self.relative_position_bias_table.detach())
        self.relative_position_bias_table = nn.Parameter(table)
        self.height_lookup = offset_lookup(window[0]).to(table)
        self.width_lookup = offset_lookup(window[1]).to(table)

    def forward(self) -> Tensor:
        area = self.window[0] * self.window[1]
        rows = torch.einsum("nhw,ixh->nixw", self.relative_position_bias_table, self.height_lookup)
        bias = torch.einsum("nixw,jyw->nijxy", rows, self.width_lookup)
        return bias.reshape(1, -1, area, area)


def offset_lookup(length: int) -> Tensor:
    """One-hot rows of a table of offsets, from each position to each: (n, n, 2n - 1)."""
    places = torch.arange(length)
    offsets = places - places[:, None] + length - 1
    return (offsets[..., None] == torch.arange(2 * length - 1)).float()


class RelPosMlp(nn.Module):
    """The bias as a small network of the offset on a log scale, for windows of any size (arXiv:2111.09883)."""

    def __init__(self, window: Size, heads: int, hidden: int = 512):
        super().__init__()
        self.window = window
        self.mlp = Mlp(2, hidden, heads, act="relu")
        self.mlp.drop1.p = 0.125
        self.register_buffer("relative_position_index", relative_index(window).flatten(), persistent=False)
        self.register_buffer("rel_coords_log", log_offsets(window), persistent=False)

    @torch.jit.ignore
    def set_window(self, window: Size) -> None:
        self.window = window
        self.relative_position_index = relative_index(window).flatten().to(self.rel_coords_log.device)
        self.rel_coords_log = log_offsets(window).to(self.rel_coords_log)

    def forward(self) -> Tensor:
        area = self.window[0] * self.window[1]
        bias = self.mlp(self.rel_coords_log).flatten(0, 1)[self.relative_position_index]
        return bias.view(area, area, -1).permute(2, 0, 1).unsqueeze(0)


def log_offsets(window: Size) -> Tensor:
    """sign(d) log(1 + |d|) of all offsets down and across: (2h - 1, 2w - 1, 2)."""
    down = torch.arange(1.0 - window[0], window[0])
    across = torch.arange(1.0 - window[1], window[1])
    offsets = torch.stack(torch.meshgrid(down, across, indexing="ij"), dim=-1)
    return offsets.sign() * offsets.abs().log1p()

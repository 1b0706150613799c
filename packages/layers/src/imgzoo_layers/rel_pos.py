"""Biases by the offset between two positions of a window, beside the plain table in `window`."""

import torch
from torch import Tensor
from torch.nn import functional as F

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

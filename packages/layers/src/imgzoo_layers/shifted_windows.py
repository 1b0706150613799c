"""Windows of a map that shift from block to block (arXiv:2103.14030): the part that blocks of all Swins share."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .padding import pad_to_multiple
from .tables import Computed, Size, Tabled
from .window import from_windows, shift_mask, to_windows


def mask_of(resolution: Size, window: Size, shift: Size, dynamic: bool) -> Tensor | None:
    """The mask of a shifted block whose map has one size."""
    if shift == (0, 0) or dynamic:
        return None
    height, width = (-(r // -w) * w for r, w in zip(resolution, window))
    return shift_mask(height, width, window, shift, torch.empty(0))


class ShiftedWindows(Tabled):
    """A block that attends in windows of its map, or in windows shifted by half; it registers `attn`, and calls
    `init_non_persistent_buffers` last."""

    attn_mask: Tensor | None
    tables = {"attn_mask": Computed(mask_of, "resolution", "window", "shift", "dynamic")}
    if TYPE_CHECKING:
        attn: Any

    def __init__(self, resolution: Size, window: Size, shifted: bool, always_partition: bool = False,
                 dynamic: bool = False):  # fmt: skip
        super().__init__()
        self.shifted, self.always_partition, self.dynamic = shifted, always_partition, dynamic
        self.wanted = window
        self.set_size(resolution)

    def set_size(self, resolution: Size) -> None:
        """Choose window and shift for a map of this size; a window never exceeds the map."""
        wanted, self.resolution = self.wanted, resolution
        if self.always_partition:
            self.window, halved = wanted, wanted
        else:
            self.window = (min(wanted[0], resolution[0]), min(wanted[1], resolution[1]))
            halved = (wanted[0] if resolution[0] > wanted[0] else 0, wanted[1] if resolution[1] > wanted[1] else 0)
        self.shift = (halved[0] // 2, halved[1] // 2) if self.shifted else (0, 0)

    def attend(self, x: Tensor) -> Tensor:
        height, width = x.shape[1], x.shape[2]
        shifted = self.shift[0] > 0 or self.shift[1] > 0
        if shifted:  # torch.roll copies even by zero
            x = torch.roll(x, shifts=(-self.shift[0], -self.shift[1]), dims=(1, 2))
        x = pad_to_multiple(x, self.window)
        high, wide = x.shape[1], x.shape[2]
        mask = self.attn_mask
        if shifted and self.dynamic:
            mask = shift_mask(high, wide, self.window, self.shift, x)
        x = self.attn(to_windows(x, self.window), mask)
        x = from_windows(x, self.window, high, wide)[:, :height, :width]
        if shifted:
            x = torch.roll(x, shifts=(self.shift[0], self.shift[1]), dims=(1, 2))
        return x

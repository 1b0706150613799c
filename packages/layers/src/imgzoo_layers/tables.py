"""Tables that follow the size of the image, declared as data.

A module says in `tables` which of its parameters and buffers are such tables and of which kind; each kind knows the
attribute of the module that holds its size. Whoever changes sizes (the base of all networks) then resizes and rebuilds
them all alike.
"""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
import torch.fx
from torch import Tensor, nn

from .patch_embed import resize_patch_kernel
from .position import resize_grid, resize_map, resize_map_last, resize_offsets

Size = tuple[int, int]


class Table:
    """A parameter with a row for each place of a grid; `size` names the attribute of the module that holds the grid."""

    computed: ClassVar[bool] = False
    noun: ClassVar[str] = "grid"

    def __init__(self, size: str = "grid"):
        self.size = size

    def resize(self, table: Tensor, old: Size, new: Size) -> Tensor:
        """The table for another size."""
        raise NotImplementedError

    def size_of(self, table: Tensor, own: Tensor, size: Size) -> Size | None:
        """The (square) size a foreign table is made for, told by its shape; `own` is for `size`. None if none fits."""
        raise NotImplementedError

    def place(self, owner: nn.Module, name: str, table: Tensor, size: Size) -> None:
        """Put a resized table where the old one was, frozen if that was."""
        setattr(owner, name, nn.Parameter(table, getattr(owner, name).requires_grad))


class GridTable(Table):
    """Rows (1, prefix + h * w, C) or (prefix + h * w, C), a row a patch; prefix rows stay as they are."""

    def resize(self, table: Tensor, old: Size, new: Size) -> Tensor:
        if table.ndim == 2:
            return self.resize(table[None], old, new)[0]
        return resize_grid(table, new, old, table.shape[1] - old[0] * old[1])

    def size_of(self, table: Tensor, own: Tensor, size: Size) -> Size | None:
        prefix = own.shape[-2] - size[0] * size[1]
        return square(table.shape[-2] - prefix)


class MapTable(Table):
    """A map (1, C, h, w)."""

    def resize(self, table: Tensor, old: Size, new: Size) -> Tensor:
        return resize_map(table, new)

    def size_of(self, table: Tensor, own: Tensor, size: Size) -> Size | None:
        return table.shape[-2], table.shape[-1]


class LastTable(MapTable):
    """A map with channels last, (1, h, w, C)."""

    def resize(self, table: Tensor, old: Size, new: Size) -> Tensor:
        return resize_map_last(table, new).contiguous()

    def size_of(self, table: Tensor, own: Tensor, size: Size) -> Size | None:
        return table.shape[1], table.shape[2]


class BiasTable(Table):
    """A bias by offset in a window, ((2h - 1)(2w - 1) + rest, heads); rows of a class token, the rest, stay.

    Resized as BEiT's (arXiv:2106.08254): near offsets keep their values, far ones lie ever farther apart.
    """

    noun = "window"

    def __init__(self, size: str = "window"):
        super().__init__(size)

    def resize(self, table: Tensor, old: Size, new: Size) -> Tensor:
        area = (2 * old[0] - 1) * (2 * old[1] - 1)
        grid = spread_table(table[:area].T.unflatten(1, (2 * old[0] - 1, 2 * old[1] - 1)), old, new)
        return torch.cat([grid.flatten(1).T, table[area:]]).contiguous()

    def size_of(self, table: Tensor, own: Tensor, size: Size) -> Size | None:
        rest = own.shape[0] - (2 * size[0] - 1) * (2 * size[1] - 1)
        side = square(table.shape[0] - rest)
        return ((side[0] + 1) // 2, (side[1] + 1) // 2) if side and side[0] % 2 else None


class BiasTableTf(Table):
    """The same as TensorFlow keeps it: (heads, 2h - 1, 2w - 1)."""

    noun = "window"

    def __init__(self, size: str = "window"):
        super().__init__(size)

    def resize(self, table: Tensor, old: Size, new: Size) -> Tensor:
        return spread_table(table, old, new)

    def size_of(self, table: Tensor, own: Tensor, size: Size) -> Size | None:
        return (table.shape[1] + 1) // 2, (table.shape[2] + 1) // 2


class OffsetTable(Table):
    """Rows (2n - 1, C) by offset along one axis of the grid, or (2h - 1, 2w - 1, C) along both.

    With `align_corners` the farthest offsets stay the farthest, else each row stands for an equal part of the span.
    """

    def __init__(self, size: str = "grid", axis: int | None = None, align_corners: bool = True):
        super().__init__(size)
        self.axis = axis
        self.align_corners = align_corners

    def resize(self, table: Tensor, old: Size, new: Size) -> Tensor:
        sides = new if self.axis is None else new[self.axis : self.axis + 1]
        return resize_offsets(table, [*sides], self.align_corners).contiguous()

    def size_of(self, table: Tensor, own: Tensor, size: Size) -> Size | None:
        sides = [(side + 1) // 2 for side in table.shape[:-1]]
        return sides[0], sides[-1]


class PatchKernel(Table):
    """Kernels (D, C, h, w) of a convolution that cuts patches without overlap (arXiv:2212.08013)."""

    noun = "patch"

    def __init__(self, size: str = "patch_size"):
        super().__init__(size)

    def resize(self, table: Tensor, old: Size, new: Size) -> Tensor:
        return resize_patch_kernel(table, new)

    def size_of(self, table: Tensor, own: Tensor, size: Size) -> Size | None:
        return (table.shape[-2], table.shape[-1]) if table.ndim == 4 else None

    def place(self, owner: Any, name: str, table: Tensor, size: Size) -> None:
        super().place(owner, name, table, size)
        owner.kernel_size = owner.stride = size


class Computed:
    """A buffer that `make` computes from attributes of the module; None is no buffer. State dicts lack it, unless it is
    `stored`, as in published weights that hold their index. An `exact` one, from which others follow, stays in float32
    or wider in a module of any type."""

    computed: ClassVar[bool] = True

    def __init__(self, make: Callable[..., Tensor | None], *attributes: str, stored: bool = False, exact: bool = False):
        self.make = make
        self.attributes = attributes
        self.stored = stored
        self.exact = exact

    def value(self, module: nn.Module) -> Tensor | None:
        """The buffer for the module as it is now."""
        return self.make(*(getattr(module, attribute) for attribute in self.attributes))

    def fill(self, module: nn.Module, name: str) -> None:
        """Compute the buffer anew, on the device and in the type of the one that is there, or of the parameters."""
        like = module._buffers.get(name)
        like = next(module.parameters(), None) if like is None else like
        new = self.value(module)
        if like is not None and new is not None:
            dtype = torch.promote_types(like.dtype, torch.float32) if self.exact else like.dtype
            new = new.to(like.device, dtype if new.is_floating_point() else None)
        module.register_buffer(name, new, persistent=self.stored)


class Tabled(nn.Module):
    """A module with tables. Its constructor ends with `init_non_persistent_buffers`, if it computes any."""

    tables: ClassVar[Mapping[str, Any]] = {}
    sized_by: ClassVar[str] = "grid"
    """The attribute that holds the size of the map."""

    def set_size(self, size: Size) -> None:
        """Take maps of another size; whoever calls this lets the tables follow."""
        setattr(self, self.sized_by, size)

    def init_non_persistent_buffers(self) -> None:
        """Compute the buffers that follow from attributes: after `to_empty`, or after a change of sizes."""
        for name, kind in self.tables.items():
            if kind.computed:
                kind.fill(self, name)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> Any:
        unreal = any(buffer is not None and buffer.is_meta for buffer in self._buffers.values())
        super()._apply(fn, recurse)
        if unreal:  # nobody else can have filled what no state dict holds
            self.init_non_persistent_buffers()
        for name, kind in self.tables.items():
            buffer = self._buffers.get(name) if kind.computed and kind.exact else None
            if buffer is not None and buffer.is_floating_point() and torch.finfo(buffer.dtype).bits < 32:
                kind.fill(self, name)
        return self


def check_grid(x: Tensor, grid: Size) -> Tensor:
    """The map (B, C, H, W) as it is, after a check that it has the size that tables are made for."""
    return grid_checked(x, grid)


def grid_checked(x: Tensor, grid: Size) -> Tensor:
    if x.shape[2] != grid[0] or x.shape[3] != grid[1]:
        raise ValueError("the image has another size than the model: use set_input_size or img_size")
    return x


torch.fx.wrap("grid_checked")


def spread_table(table: Tensor, old: Size, new: Size) -> Tensor:
    """Values by offset in a window (heads, 2h - 1, 2w - 1) for another window."""
    down, across = (spread(*sides).float().to(table.device) for sides in zip(old, new, strict=True))
    return (down @ table.float() @ across.T).to(table.dtype)


def spread(old: int, new: int) -> Tensor:
    """Weights (2 new - 1, 2 old - 1) of a linear interpolation between offsets of a window of another side.

    The old offsets stand where the steps between them, the first of which is 1, grow by a ratio so that the farthest
    comes to `new` - 1; the ratio is at least 1.01.
    """
    if old == 1:
        return torch.ones(2 * new - 1, 1, dtype=torch.float64, device="cpu")
    low, high, ratio = 1.01, 1.5, 1.0
    while high - low > 1e-6:
        ratio = (low + high) / 2
        low, high = (low, ratio) if sum(ratio**i for i in range(old - 1)) > new - 1 else (ratio, high)
    far = torch.tensor([ratio**i for i in range(old - 1)], dtype=torch.float64, device="cpu").cumsum(0)
    places = torch.cat([-far.flip(0), far.new_zeros(1), far])
    wanted = torch.arange(1 - new, new, dtype=torch.float64, device="cpu")
    right = torch.bucketize(wanted, places).clamp(1, len(places) - 1)
    share = ((wanted - places[right - 1]) / (places[right] - places[right - 1])).clamp(0, 1)
    weights = places.new_zeros(len(wanted), len(places))
    weights.scatter_(1, right[:, None], share[:, None])
    return weights.scatter_(1, right[:, None] - 1, 1 - share[:, None])


def square(area: int) -> Size | None:
    """The sides of a square of that area, None where it is none."""
    side = int(max(area, 0) ** 0.5)
    return (side, side) if side and side * side == area else None

"""Tables that follow the size: each kind told its size by its shape, resized, and computed again."""

import pytest
import torch
from torch import nn

from imgzoo_layers.position import ConvPosition, resize_grid, resize_map
from imgzoo_layers.tables import (
    BiasTable,
    BiasTableTf,
    Computed,
    GridTable,
    MapTable,
    OffsetTable,
    PatchKernel,
    Tabled,
    check_grid,
    square,
)

KINDS = {
    "grid": (GridTable(), torch.rand(1, 2 + 4 * 4, 6), (4, 4), (6, 6), (1, 2 + 36, 6)),
    "rows": (GridTable(), torch.rand(1 + 4 * 4, 6), (4, 4), (6, 6), (1 + 36, 6)),
    "map": (MapTable(), torch.rand(1, 6, 4, 4), (4, 4), (6, 5), (1, 6, 6, 5)),
    "bias": (BiasTable(), torch.rand(7 * 7 + 3, 2), (4, 4), (6, 6), (11 * 11 + 3, 2)),
    "bias of tf": (BiasTableTf(), torch.rand(2, 7, 7), (4, 4), (6, 5), (2, 11, 9)),
    "offsets": (OffsetTable(), torch.rand(7, 7, 3), (4, 4), (6, 5), (11, 9, 3)),
    "rows of offsets": (OffsetTable(axis=0), torch.rand(7, 3), (4, 4), (6, 5), (11, 3)),
    "kernel": (PatchKernel(), torch.rand(6, 3, 4, 4), (4, 4), (6, 5), (6, 3, 6, 5)),
}


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_is_resized_and_told_by_its_shape(name):
    kind, table, old, new, shape = KINDS[name]
    resized = kind.resize(table, old, new)
    assert resized.shape == shape and resized.dtype == table.dtype
    assert kind.size_of(table, table, old) == old
    if new[0] == new[1]:
        assert kind.size_of(resized, table, old) == new
    even = kind.resize(torch.ones_like(table), old, new)
    if name != "kernel":
        torch.testing.assert_close(even, torch.ones(shape), rtol=1e-4, atol=1e-4)  # a constant stays


def test_the_prefix_of_a_table_is_not_resized():
    kind, table, old, new, _ = KINDS["grid"]
    assert torch.equal(kind.resize(table, old, new)[:, :2], table[:, :2])
    kind, table, old, new, _ = KINDS["bias"]
    assert torch.equal(kind.resize(table, old, new)[-3:], table[-3:])
    assert resize_grid(table[None], old, old) is not None and resize_map(torch.ones(1, 2, 3, 3), (3, 3)).shape[2] == 3


def test_tables_stay_frozen():
    owner = nn.Module()
    owner.table = nn.Parameter(torch.rand(1, 16, 2), requires_grad=False)
    kind = GridTable()
    kind.place(owner, "table", kind.resize(owner.table.detach(), (4, 4), (2, 2)), (2, 2))
    assert owner.table.shape == (1, 4, 2) and not owner.table.requires_grad
    conv = nn.Conv2d(3, 6, 4, 4)
    PatchKernel().place(conv, "weight", torch.rand(6, 3, 2, 2), (2, 2))
    assert conv.kernel_size == conv.stride == (2, 2) and conv(torch.rand(1, 3, 4, 4)).shape == (1, 6, 2, 2)


class Counting(Tabled):
    """Holds a row of numbers as long as its grid is high."""

    numbers: torch.Tensor
    tables = {"numbers": Computed(lambda grid: torch.arange(grid[0] * 1.0), "grid")}

    def __init__(self, grid):
        super().__init__()
        self.grid = grid
        self.init_non_persistent_buffers()


def test_computed_buffers_follow_the_size_and_come_back():
    module = Counting((3, 2))
    module.set_size((5, 2))
    module.init_non_persistent_buffers()
    assert module.numbers.tolist() == [0, 1, 2, 3, 4] and not module.state_dict()
    with torch.device("meta"):
        away = Counting((3, 2))
    assert away.numbers.is_meta and away.to_empty(device="cpu").numbers.tolist() == [0, 1, 2]
    assert module.double().numbers.dtype == torch.float64


def test_maps_of_another_size_are_refused():
    x = torch.rand(1, 2, 3, 4)
    assert check_grid(x, (3, 4)) is x
    with pytest.raises(ValueError, match="use set_input_size"):
        check_grid(x, (4, 3))
    assert square(49) == (7, 7) and square(48) is None and square(0) is None


def test_position_by_convolution():
    position, x = ConvPosition(6, prefix=1), torch.rand(2, 1 + 12, 6)
    y = position(x, (3, 4))
    image = x[:, 1:].transpose(1, 2).unflatten(2, (3, 4))
    torch.testing.assert_close(y[:, 1:], (position.proj(image) + image).flatten(2).transpose(1, 2))
    assert torch.equal(y[:, :1], x[:, :1])

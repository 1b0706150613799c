"""Biases by offset equal what a loop over all pairs of positions gives."""

import math

import pytest
import torch

from imgzoo_layers.rel_pos import RelPosBias, RelPosBiasTf, RelPosMlp, relative_index_with_class
from imgzoo_layers.tables import BiasTable, spread

WINDOW = (3, 4)
PLACES = [(y, x) for y in range(WINDOW[0]) for x in range(WINDOW[1])]
HEADS = 2


def test_index_with_class_token():
    height, width = WINDOW
    index = relative_index_with_class(WINDOW)
    last = (2 * height - 1) * (2 * width - 1)
    places = [None, *PLACES]
    for i, a in enumerate(places):
        for j, b in enumerate(places):
            if a is None and b is None:
                expected = last + 2
            elif a is None or b is None:
                expected = last if a is None else last + 1
            else:
                expected = (a[0] - b[0] + height - 1) * (2 * width - 1) + a[1] - b[1] + width - 1
            assert index[i, j] == expected


def test_rows_of_the_class_token_are_not_resized():
    table = torch.randn(5 * 7 + 3, HEADS)
    resized = BiasTable().resize(table, WINDOW, (5, 2))
    assert resized.shape == (9 * 3 + 3, HEADS)
    assert torch.equal(resized[-3:], table[-3:])


def by_offset(module, down: int, across: int) -> torch.Tensor:
    """The bias of all heads for a query that lies so far down and across from its key, straight from the formulas."""
    height, width = WINDOW
    if isinstance(module, RelPosBias):
        return module.relative_position_bias_table[(down + height - 1) * (2 * width - 1) + across + width - 1]
    if isinstance(module, RelPosBiasTf):
        return module.relative_position_bias_table[:, height - 1 - down, width - 1 - across]
    logs = [math.copysign(math.log(1 + abs(d)), d) for d in (down, across)]
    return module.mlp(torch.tensor(logs))


@pytest.mark.parametrize("kind", [RelPosBias, RelPosBiasTf, RelPosMlp])
@torch.no_grad()
def test_bias_of_every_pair(kind):
    torch.manual_seed(0)
    module = kind(WINDOW, HEADS).eval()
    bias = module()
    assert bias.shape == (1, HEADS, len(PLACES), len(PLACES))
    for i, query in enumerate(PLACES):
        for j, key in enumerate(PLACES):
            expected = by_offset(module, query[0] - key[0], query[1] - key[1])
            torch.testing.assert_close(bias[0, :, i, j], expected)


@torch.no_grad()
def test_bias_of_a_class_token():
    module = RelPosBias(WINDOW, HEADS, prefix=1)
    bias, table = module(), module.relative_position_bias_table
    plain = RelPosBias(WINDOW, HEADS)
    plain.relative_position_bias_table.copy_(table[:-3])
    assert torch.equal(bias[:, :, 1:, 1:], plain())
    rows = ((bias[0, :, 0, 1:], table[-3]), (bias[0, :, 1:, 0], table[-2]), (bias[0, :, 0, :1], table[-1]))
    assert all(torch.equal(part, row[:, None].expand_as(part)) for part, row in rows)
    with pytest.raises(ValueError, match="prefix is 0 or 1"):
        RelPosBias(WINDOW, HEADS, prefix=2)


@pytest.mark.parametrize("kind", [RelPosBias, RelPosBiasTf])
@torch.no_grad()
def test_another_window(kind):
    """A table that is constant stays so at any size; a table in a file tells the window it is made for."""
    module = kind((4, 4), HEADS)
    module.relative_position_bias_table.fill_(0.5)
    table, rows = module.relative_position_bias_table, module.tables["relative_position_bias_table"]
    wider = kind((6, 5), HEADS)
    resized = rows.resize(table, (4, 4), (6, 5))
    assert rows.size_of(table, wider.relative_position_bias_table, (6, 5)) == (4, 4)
    wider.relative_position_bias_table.copy_(resized)
    torch.testing.assert_close(wider(), torch.full((1, HEADS, 30, 30), 0.5))


@torch.no_grad()
def test_position_network_knows_any_window():
    module = RelPosMlp((2, 2), HEADS).eval()
    small = module()
    module.set_size((3, 3))
    module.init_non_persistent_buffers()
    torch.testing.assert_close(module()[0, :, 0, 1], small[0, :, 0, 1])


@pytest.mark.parametrize("kind", [RelPosBias, RelPosBiasTf, RelPosMlp])
def test_buffers_come_back_after_the_meta_device(kind):
    real = kind(WINDOW, HEADS)
    with torch.device("meta"):
        made = kind(WINDOW, HEADS)
    made.to_empty(device="cpu")
    for name, buffer in real.named_buffers():
        assert torch.equal(made.get_buffer(name), buffer)


def test_near_offsets_keep_their_values_in_another_window():
    for old, new in ((7, 10), (14, 18), (5, 4)):
        weights = spread(old, new)
        assert torch.allclose(weights.sum(1), torch.ones(2 * new - 1, dtype=torch.float64))
        assert torch.equal(weights[new - 2 : new + 1, old - 2 : old + 1], torch.eye(3, dtype=torch.float64))
        torch.testing.assert_close(weights.flip(0, 1), weights)
    grown = spread(7, 10)
    assert grown[-1, -1] == pytest.approx(1, abs=1e-3), "the farthest offset is still the farthest"
    assert torch.equal(spread(1, 3), torch.ones(5, 1, dtype=torch.float64))

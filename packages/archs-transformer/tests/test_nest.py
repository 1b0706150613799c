"""NesT's positions belong to one map, whatever blocks it is cut into."""

import pytest
import torch

import imgzoo
from imgzoo.errors import UsageError
from imgzoo_archs_transformer.nest import BlockTable, cut, joined

SMALL = dict(embed_dims=(8, 16, 32), depths=(1, 1, 1), num_heads=(1, 2, 4), num_classes=5)


def test_cutting_is_undone():
    x = torch.randn(2, 3, 8, 12)
    assert cut(x, 4).shape == (2, 16, 6, 3)
    assert torch.equal(cut(x, 4)[:, 1], x[:, :, :2, 3:6].flatten(2).transpose(1, 2))
    assert torch.equal(joined(cut(x, 4), (8, 12), 4), x)


def test_positions_are_resized_across_blocks():
    """A slope over the map stays one: cells of the new map lie on the old line, also where blocks meet."""
    slope = torch.linspace(0, 1, 16).expand(1, 1, 16, 16)
    new = joined(BlockTable().resize(cut(slope, 4), (16, 16), (32, 32)), (32, 32), 4)[0, 0, 0]
    inside = new[4:-4].diff()
    torch.testing.assert_close(inside, torch.full_like(inside, 1 / 30), rtol=0, atol=1e-3)


def test_a_checkpoint_of_another_size_loads(tmp_path):
    torch.manual_seed(0)
    model = imgzoo.create_model("nest_tiny", img_size=64, **SMALL).eval()
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    larger = imgzoo.create_model("nest_tiny", img_size=96, pretrained=tmp_path / "weights.pth", **SMALL).eval()
    model.set_input_size(96)
    x = torch.randn(1, 3, 96, 96)
    with torch.no_grad():
        torch.testing.assert_close(larger(x), model(x))


def test_sizes_that_do_not_divide_are_refused():
    with pytest.raises(UsageError, match="multiples of 16"):
        imgzoo.create_model("nest_tiny", img_size=200, **SMALL)
    model = imgzoo.create_model("nest_tiny", img_size=64, **SMALL)
    with pytest.raises(UsageError, match="multiples of 16"):
        model.set_input_size(72)
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 5)

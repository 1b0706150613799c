"""Windows, grids and shifts of maps."""

import pytest
import torch

from imgzoo_layers.shifted_windows import ShiftedWindows
from imgzoo_layers.window import (
    LocalAttention,
    WindowAttention,
    attend_biased,
    from_grid,
    from_windows,
    relative_index,
    shift_mask,
    to_grid,
    to_windows,
)

X = torch.arange(2 * 4 * 6 * 3.0).view(2, 4, 6, 3)


def test_windows_and_back():
    windows = to_windows(X, (2, 3))
    assert windows.shape == (8, 6, 3)
    assert torch.equal(windows[3].view(2, 3, 3), X[0, 2:, 3:])
    assert torch.equal(from_windows(windows, (2, 3), 4, 6), X)


def test_grids_and_back():
    grids = to_grid(X, (2, 3))
    assert grids.shape == (8, 6, 3)
    assert torch.equal(grids[3].view(2, 3, 3), X[0, 1::2, 1::2])
    assert torch.equal(from_grid(grids, (2, 3), 4, 6), X)


def test_index_counts_offsets():
    index = relative_index((2, 3))
    assert index[0, 5] == 0 and index[5, 0] == 14 and (index.diagonal() == 7).all()
    assert index[0, 1] == index[4, 5] and index[0, 3] == index[2, 5]


def test_mask_parts_what_never_met():
    mask = shift_mask(4, 4, (2, 2), (1, 1), torch.empty(0))
    assert mask.shape == (4, 4, 4) and mask[0].abs().max() == 0  # the first window lies whole in the map
    assert (mask[3] == torch.full((4, 4), -100.0).fill_diagonal_(0)).all()
    assert torch.equal(mask[1], torch.tensor([[0, 1, 0, 1], [1, 0, 1, 0]] * 2) * -100.0)


@torch.no_grad()
def test_attention_in_windows_by_its_formula():
    torch.manual_seed(0)
    attn = WindowAttention(8, 2, (2, 3)).double()
    torch.nn.init.normal_(attn.relative_position_bias_table)
    x, mask = torch.randn(4, 6, 8).double(), torch.randn(2, 6, 6).double()
    q, k, v = attn.qkv(x).view(4, 6, 3, 2, 4).permute(2, 0, 3, 1, 4)
    bias = attn.relative_position_bias_table[attn.relative_position_index].permute(2, 0, 1)
    scores = q @ k.transpose(2, 3) / 2 + bias + mask.repeat(2, 1, 1)[:, None]
    expected = attn.proj((scores.softmax(3) @ v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(attn(x, mask), expected)
    for training in (True, False):
        both = attend_biased(q, k, v, (bias + mask[:, None]), 0.0, training)
        torch.testing.assert_close(both, scores.softmax(3) @ v)


@torch.no_grad()
def test_local_attention_sees_one_window_and_zeros_beyond_the_map():
    torch.manual_seed(0)
    attn = LocalAttention(8, 2, 4).double()
    x = torch.randn(2, 6, 7, 8).double()
    corner = torch.nn.functional.pad(x[:, 4:, 4:], (0, 0, 0, 1, 0, 2))  # the last window, two rows and a column short
    q, k, v = attn.qkv(corner).view(2, 16, 3, 2, 4).permute(2, 0, 3, 1, 4)
    expected = attn.proj(((q @ k.transpose(2, 3) / 2).softmax(3) @ v).transpose(1, 2).flatten(2)).view(2, 4, 4, 8)
    y = attn(x)
    assert y.shape == x.shape
    torch.testing.assert_close(y[:, 4:, 4:], expected[:, :2, :3])


class Averaging(ShiftedWindows):
    """Attention that gives every position of a window the mean of those it may see."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.attn = self.mean
        self.init_non_persistent_buffers()

    @staticmethod
    def mean(windows, mask):
        weights = torch.zeros(1, windows.shape[1], windows.shape[1]) if mask is None else mask
        return weights.softmax(2).repeat(len(windows) // len(weights), 1, 1) @ windows


@pytest.mark.parametrize("dynamic", [False, True])
def test_shifted_windows_see_their_neighbors_only(dynamic):
    x = torch.zeros(1, 8, 8, 1)
    x[0, 3, 4] = 1
    still = Averaging((8, 8), (4, 4), shifted=False, dynamic=dynamic).attend(x)
    moved = Averaging((8, 8), (4, 4), shifted=True, dynamic=dynamic).attend(x)
    assert still.nonzero()[:, 1].unique().tolist() == [0, 1, 2, 3] and still.nonzero()[:, 2].unique().tolist() == [
        4,
        5,
        6,
        7,
    ]
    assert moved.nonzero()[:, 1].unique().tolist() == [2, 3, 4, 5] == moved.nonzero()[:, 2].unique().tolist()
    corner = torch.zeros(1, 8, 8, 1)
    corner[0, 0, 0] = 1
    seen = Averaging((8, 8), (4, 4), shifted=True, dynamic=dynamic).attend(corner)
    assert (seen > 1e-6).nonzero()[:, 1:3].unique().tolist() == [0, 1]  # not what the shift brought from the other side


def test_a_window_never_exceeds_the_map():
    block = Averaging((4, 8), (7, 7), shifted=True)
    assert block.window == (4, 7) and block.shift == (0, 3)
    assert block.attend(torch.rand(1, 4, 8, 2)).shape == (1, 4, 8, 2)
    assert Averaging((4, 8), (7, 7), shifted=True, always_partition=True).window == (7, 7)
    block.set_size((14, 14))
    block.init_non_persistent_buffers()
    assert block.window == (7, 7) and block.shift == (3, 3) and block.attn_mask.shape == (4, 49, 49)

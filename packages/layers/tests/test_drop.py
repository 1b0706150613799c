"""Dropping: what is lost on average, that the mean stays, and that evaluation leaves everything."""

import pytest
import torch

from imgzoo_layers.drop import (
    DropBlock2d,
    DropPath,
    PatchDropout,
    drop_block_2d,
    drop_path,
    drop_path_of,
    drop_path_rates,
    dropout_of,
)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def test_paths_are_dropped_for_whole_samples():
    y = DropPath(0.25).train()(torch.ones(4000, 2, 3))
    kept = y[:, 0, 0] != 0
    assert torch.equal(y, torch.where(kept[:, None, None], 4 / 3, 0.0).expand_as(y))
    assert kept.float().mean().item() == pytest.approx(0.75, abs=0.03)
    assert drop_path(torch.ones(99, 1), 0.5, True, scale_by_keep=False).unique().tolist() == [0.0, 1.0]


def test_paths_stay_in_evaluation_and_at_rate_zero():
    x = torch.randn(4, 3)
    assert DropPath(0.9).eval()(x) is x and drop_path(x, 0.0, True) is x
    assert isinstance(drop_path_of(0.0), torch.nn.Identity) and isinstance(drop_path_of(0.1), DropPath)
    assert isinstance(dropout_of(0.0), torch.nn.Identity) and dropout_of(0.1).p == 0.1
    assert drop_path(x, 1.0, True).abs().max() == 0


def test_rates_grow_over_all_blocks():
    assert drop_path_rates(0.3, (1, 3)) == [[0.0], pytest.approx([0.1, 0.2, 0.3])]
    assert drop_path_rates(0.3, 1) == [[0.0]] and drop_path_rates(0.0, 2) == [[0.0, 0.0]]


@pytest.mark.parametrize("couple_channels", [True, False])
def test_squares_of_the_rate_are_lost(couple_channels):
    x = torch.ones(64, 4, 40, 40)
    y = DropBlock2d(0.1, 5, couple_channels=couple_channels).train()(x)
    lost = (y == 0).float()
    assert lost.mean().item() == pytest.approx(0.1, abs=0.02)
    assert y.mean().item() == pytest.approx(1, abs=1e-3)  # the rest is rescaled
    assert torch.equal(lost[:, 0], lost[:, 1]) == couple_channels
    assert not torch.equal(lost[0], lost[1])
    inside = -torch.nn.functional.max_pool2d(-torch.nn.functional.pad(lost, [4] * 4), 5, 1)
    covered = torch.nn.functional.max_pool2d(inside, 5, 1)
    assert torch.equal(covered[..., 4:-4, 4:-4], lost[..., 4:-4, 4:-4])  # every lost place lies in a lost square


def test_squares_unscaled_and_with_noise():
    x = torch.ones(8, 3, 20, 20)
    assert drop_block_2d(x, 0.2, 3, scale_by_keep=False).unique().tolist() == [0.0, 1.0]
    y = drop_block_2d(x, 0.2, 3, noise=True)
    noise = y[y != 1]
    assert len(noise) > 100 and abs(noise.mean().item()) < 0.2 and abs(noise.std().item() - 1) < 0.2


def test_squares_stay_in_evaluation_and_senseless_ones_are_refused():
    x = torch.randn(1, 2, 4, 4)
    assert DropBlock2d(0.9).eval()(x) is x and DropBlock2d(0.0).train()(x) is x
    assert drop_block_2d(x, 0.1, 9).shape == x.shape  # larger than the map
    for rate, block in ((-0.1, 3), (1.1, 3), (0.1, 0)):
        with pytest.raises(ValueError, match="DropBlock"):
            DropBlock2d(rate, block)


@pytest.mark.parametrize("ordered", [True, False])
def test_patches_are_left_out_but_not_the_prefix(ordered):
    x = torch.arange(20.0).expand(3, 20)[..., None]
    y = PatchDropout(0.5, num_prefix_tokens=2, ordered=ordered).train()(x)
    assert y.shape == (3, 11, 1) and torch.equal(y[:, :2], x[:, :2])
    assert all(len(row.unique()) == 11 for row in y) and not torch.equal(y[0], y[1])
    assert (y[:, 2:].diff(dim=1) > 0).all() == ordered
    assert PatchDropout(0.99, 0).train()(x).shape == (3, 1, 1)
    y, kept = PatchDropout(0.5, 2, ordered).train().thin(x)
    assert kept is not None and torch.equal(y[:, 2:, 0], kept + 2.0)
    valid = torch.arange(18).expand(3, 18) < 9
    assert (PatchDropout(0.5, 2, ordered).train().thin(x, valid)[1] < 9).all()
    assert PatchDropout(0.5).eval()(x) is x and PatchDropout(0.0).train().thin(x)[1] is None
    with pytest.raises(ValueError, match="in \\[0, 1\\)"):
        PatchDropout(1.0)


@pytest.mark.parametrize("rate", [-0.1, 1.5, float("nan")])
@pytest.mark.parametrize("layer", [DropPath, DropBlock2d, PatchDropout])
def test_a_rate_is_a_probability(layer, rate):
    with pytest.raises(ValueError, match=r"rate|probability"):
        layer(rate)

"""Rotary tables: what they say of places, and that rotations by them know offsets only."""

import math

import pytest
import torch

from imgzoo_layers.rotary import (
    AnyGridRotary,
    AxialRotary,
    CenteredRotary,
    MixedRotary,
    MultimodalRotary,
    PixelRotary,
    axial_table,
    coordinates,
    frequencies,
    mixed_frequencies,
    moved,
    rotate,
    rotate_patches,
)

GRID, DIM = (3, 5), 32
KINDS = {
    "axial": (lambda: AxialRotary(DIM, GRID), False),
    "reference": (lambda: AxialRotary(DIM, GRID, reference=(4, 4), shift=0.5, columns_first=True), False),
    "pixels": (lambda: PixelRotary(DIM, GRID, 16), False),
    "pixels evenly": (lambda: PixelRotary(DIM, GRID, 16, linear=True), False),
    "centered": (lambda: CenteredRotary(DIM, GRID), True),
    "centered pairs": (
        lambda: CenteredRotary(DIM, GRID, normalize="max", halves=False, shortest=0.5, longest=9.0),
        False,
    ),
    "any grid": (lambda: AnyGridRotary(DIM), True),
    "multimodal": (lambda: MultimodalRotary(DIM, (4, 6, 6)), True),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_table_has_a_row_for_each_place(kind):
    rope = KINDS[kind][0]().eval()
    table = rope(GRID)
    assert table.shape == (15, 2 * DIM)
    sine, cosine = table.chunk(2, dim=1)
    torch.testing.assert_close(sine**2 + cosine**2, torch.ones_like(sine))
    assert len(table.unique(dim=0)) == 15
    assert not rope.state_dict() and rope((1, 4)).shape == (4, 2 * DIM)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_know_offsets_only(kind):
    """Of a regular grid: every pair of neighbors in a row has one score."""
    make, halves = KINDS[kind]
    table, (q, k) = (
        make().eval()(GRID).double(),
        torch.randn(2, DIM, generator=torch.Generator().manual_seed(0)).double(),
    )
    scores = (rotate(q.expand(15, -1), table, halves) @ rotate(k.expand(15, -1), table, halves).T).view(3, 5, 3, 5)
    for row, column in ((1, 1), (2, 3), (0, 2)):
        torch.testing.assert_close(scores[row, column, row, column + 1], scores[0, 0, 0, 1], atol=2e-5, rtol=1e-4)
    for column in (1, 4):
        torch.testing.assert_close(scores[1, column, 2, column], scores[0, 0, 1, 0], atol=2e-5, rtol=1e-4)
    assert (scores[0, 0, 0, 1] - scores[0, 0, 0, 2]).abs() > 1e-3
    turned = rotate(q.expand(15, -1), table, halves)
    torch.testing.assert_close(turned.norm(dim=1), q.norm().expand(15))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in ("any grid", "multimodal")])
def test_a_module_follows_its_grid(kind):
    rope = KINDS[kind][0]().eval()
    rope.set_size((6, 4))
    rope.init_non_persistent_buffers()
    torch.testing.assert_close(rope(), rope((6, 4)))
    assert rope().shape[0] == 24


def test_the_prefix_has_no_place():
    table, x = AxialRotary(DIM, GRID)(), torch.randn(2, 4, 2 + 15, DIM)
    y = rotate_patches(x, table, prefix=2)
    assert torch.equal(y[:, :, :2], x[:, :, :2])
    torch.testing.assert_close(y[:, :, 2:], rotate(x[:, :, 2:], table))


def test_axial_angles():
    bands = frequencies(DIM, 100.0)
    torch.testing.assert_close(bands, torch.tensor([100 ** (-4 * i / DIM) for i in range(DIM // 4)]))
    sine = axial_table(GRID, bands)[:, :DIM].view(3, 5, 2, DIM // 4, 2)
    torch.testing.assert_close(sine[2, 3, 0, :, 0], (2 * bands).sin())
    torch.testing.assert_close(sine[2, 3, 1, :, 1], (3 * bands).sin())
    far = axial_table((6, 10), bands, reference=GRID)  # the same range at twice the size
    torch.testing.assert_close(far.view(6, 10, -1)[4, 6], axial_table(GRID, bands).view(3, 5, -1)[2, 3])


def test_an_axis_for_each_half():
    table = AnyGridRotary(DIM, apart=True)(GRID)
    assert table.shape == (15, 2, DIM)
    x = torch.randn(2, 4, 15, 2, DIM // 2)
    assert rotate(x, table, halves=True).shape == x.shape


@pytest.mark.parametrize("moved", ["shift", "jitter", "rescale"])
def test_places_move_in_training_only(moved):
    rope, still = CenteredRotary(DIM, GRID, **{moved: 1.5}), CenteredRotary(DIM, GRID)
    assert not torch.equal(rope.train()(), rope())
    assert torch.equal(rope.eval()(), still())


def test_mixed_frequencies_are_learned_for_each_depth_and_head():
    rope = MixedRotary(DIM, depth=2, heads=4, grid=GRID)
    assert list(rope.state_dict()) == ["freqs"] and rope().shape == (2, 4, 15, 2 * DIM)
    lengths = rope.freqs.norm(dim=0)[0, 0]  # a direction each, of the bands' length
    torch.testing.assert_close(lengths[: DIM // 4], frequencies(DIM, 10.0))
    angle = rope.freqs[0, 1, 2] * 4 + rope.freqs[1, 1, 2] * 2
    torch.testing.assert_close(rope()[1, 2, 14, :DIM:2], angle.sin())
    rope().sum().backward()
    assert rope.freqs.grad.abs().sum() > 0
    torch.testing.assert_close(rope((2, 2))[:, :, 3], rope()[:, :, 6])


def test_axes_take_turns():
    rope = MultimodalRotary(DIM, (10, 2, 4))
    assert rope.axes.tolist() == [0, 1, 2, 0, 1, 2, 0, 0, 2, 0, 0, 2, 0, 0, 0, 0]
    sine = rope(GRID).view(3, 5, 2, DIM)[2, 3, 0, : DIM // 2]
    torch.testing.assert_close(sine[1], math.sin(2 * rope.bands[1]) * torch.ones(()))
    assert sine[rope.axes == 0].abs().max() == 0
    assert MultimodalRotary(DIM).axes.tolist() == [0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1, 2, 0]  # a third each
    for sections in ((8, 8), (4, 4, 4, 4), (8, 12, -4)):
        with pytest.raises(ValueError, match="time, rows and columns are 3 numbers"):
            MultimodalRotary(DIM, sections)


@pytest.mark.parametrize("make", [
    lambda: AxialRotary(10, GRID), lambda: PixelRotary(10, GRID), lambda: CenteredRotary(10, GRID),
    lambda: CenteredRotary(10, GRID, shortest=0.5, longest=9.0), lambda: AnyGridRotary(10),
    lambda: MixedRotary(10, 1, 2, GRID), lambda: MultimodalRotary(15, (3, 2, 2)),
])  # fmt: skip
def test_heads_that_cannot_turn_are_refused_when_they_are_made(make):
    with pytest.raises(ValueError, match=r"turn heads of a multiple of [24] channels, not of 1[05]"):
        make()


def test_senseless_options_are_refused():
    with pytest.raises(ValueError, match="both ends"):
        CenteredRotary(DIM, GRID, shortest=0.5)
    with pytest.raises(ValueError, match="use each, max or min"):
        CenteredRotary(DIM, GRID, normalize="mean")()
    with pytest.raises(ValueError, match="use cells, centered or ends"):
        coordinates(GRID, "pixels")


@pytest.mark.parametrize("kind", [*KINDS, "mixed"])
def test_frequencies_stay_exact_in_a_model_of_half_the_width(kind):
    """Rounded to 8 bits they would be off by turns at the far end of a grid."""
    make = (lambda: MixedRotary(DIM, 2, 4, GRID)) if kind == "mixed" else KINDS[kind][0]
    rope, wide = make().eval(), make().eval()
    if kind == "mixed":
        with torch.no_grad():
            rope.freqs.copy_(rope.freqs.bfloat16())
        wide.load_state_dict(rope.state_dict())
    rope.bfloat16()
    for name, buffer in rope.named_buffers():
        assert name == "pos_embed" or buffer.dtype != torch.bfloat16, name
    torch.testing.assert_close(rope((40, 40)).float(), wide((40, 40)), atol=1e-5, rtol=1e-5)
    rope.init_non_persistent_buffers()
    assert rope.double()((40, 40)).dtype == torch.float64


def test_halves_are_turned_in_the_wider_type():
    x, table = torch.randn(2, 15, DIM).bfloat16(), axial_table(GRID, frequencies(DIM, 1e4))
    turned = rotate(x, table)
    assert turned.dtype == torch.bfloat16
    assert torch.equal(turned, rotate(x.float(), table).bfloat16())


def test_places_of_grids():
    assert coordinates((2, 3)).tolist() == [[[0, 0], [0, 1], [0, 2]], [[1, 0], [1, 1], [1, 2]]]
    assert coordinates((2, 3), reference=(4, 3), shift=0.5)[1, 1].tolist() == [3, 1.5]
    ends = coordinates((3, 2, 5), "ends")
    assert ends.shape == (3, 2, 5, 3) and ends[0, 0, 0].tolist() == [-1, -1, -1] and ends[2, 1, 2].tolist() == [1, 1, 0]
    assert coordinates((3, 2), "ends", reference=(6, 2))[0, 0].tolist() == [-2, -1]
    for normalize, edge in (("each", (0.5, 0.75)), ("max", (-0.25, 0.75)), ("min", (0.5, 2.5))):
        torch.testing.assert_close(coordinates((2, 4), "centered", normalize=normalize)[1, 3], torch.tensor(edge))
    assert coordinates((2, 2), dtype=torch.float64).dtype == torch.float64


def test_moves_stay_within_their_bounds():
    where = coordinates((2, 3), "centered")
    for _ in range(20):
        assert (moved(where, shift=0.3) - where).abs().max() <= 0.3
        ratio = moved(where, jitter=2.0)[1, 2] / where[1, 2]
        assert (ratio >= 0.5).all() and (ratio <= 2).all() and ratio[0] != ratio[1]
        ratio = moved(where, rescale=2.0)[1, 2] / where[1, 2]
        torch.testing.assert_close(ratio[0], ratio[1])
    assert moved(where) is where


def test_directions_are_random_unless_told():
    flat = mixed_frequencies(DIM, 2, 3, random=False)
    torch.testing.assert_close(flat[0, 1, 2, : DIM // 4], frequencies(DIM, 10.0))
    assert flat[1, :, :, : DIM // 4].abs().max() < 1e-6
    assert not torch.equal(mixed_frequencies(DIM, 2, 3)[:, 0], mixed_frequencies(DIM, 2, 3)[:, 1])

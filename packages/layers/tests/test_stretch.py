"""Tables stretched to many sizes at once."""

import itertools

import pytest
import torch
from torch.nn import functional as F

from imgzoo_layers.stretch import stretch_weights

CASES = [
    (mode, antialias, align)
    for mode, antialias, align in itertools.product(("linear", "bicubic"), (False, True), (False, True))
]


@pytest.mark.parametrize("length", [1, 3, 16])
@pytest.mark.parametrize(("mode", "antialias", "align"), CASES)
def test_weights_are_those_of_interpolate(mode, antialias, align, length):
    torch.manual_seed(0)
    table = torch.randn(1, 4, length, length)
    for size in (1, 2, 3, 7, 16, 21, 40):
        places = torch.arange(size)[None]
        weights = stretch_weights(places, torch.tensor([size]), length, mode, antialias, align)[0]
        torch.testing.assert_close(weights.sum(-1), torch.ones(size))
        ours = weights @ table[0] @ weights.T
        how = {"linear": "bilinear"}.get(mode, mode)
        theirs = F.interpolate(table, (size, size), mode=how, antialias=antialias, align_corners=align)[0]
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-5)


def test_each_row_has_a_size_of_its_own():
    places = torch.tensor([[0, 1, 2], [0, 4, 1]])
    both = stretch_weights(places, torch.tensor([3, 5]), 8)
    for row, size in enumerate((3, 5)):
        alone = stretch_weights(places[row : row + 1], torch.tensor([size]), 8)
        torch.testing.assert_close(both[row], alone[0])

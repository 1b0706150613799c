"""Places and channels."""

import torch

from imgzoo_layers.space_to_depth import DepthToSpace, SpaceToDepth


def test_squares_stand_side_by_side_and_come_back():
    x = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    y = SpaceToDepth(2)(x)
    assert y.shape == (2, 12, 2, 3)
    assert y[0, :, 0, 0].tolist() == [x[0, c, i, j].item() for i in (0, 1) for j in (0, 1) for c in (0, 1, 2)]
    assert torch.equal(DepthToSpace(2)(y), x)

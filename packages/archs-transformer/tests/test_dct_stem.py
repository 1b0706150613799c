"""The transform in front of CSATv2 gives the coefficients that its formula says."""

import math

import torch

from imgzoo_archs_transformer.dct_stem import Dct2d, cosines, zigzag

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def test_frequencies_are_orthonormal_and_ordered():
    torch.testing.assert_close(cosines() @ cosines().T, torch.eye(8), rtol=0, atol=1e-6)
    order = [tuple(place) for place in zigzag().T.tolist()]
    assert order[:6] == [(0, 0), (0, 1), (1, 0), (2, 0), (1, 1), (0, 2)]
    assert sorted(order) == [(i, j) for i in range(8) for j in range(8)]


def test_coefficients_of_a_block():
    """Written out for one block: JPEG's colors, sums of cosines, normalized by the statistics."""
    rgb = torch.rand(3, 8, 8, dtype=torch.float64)
    red, green, blue = 255 * rgb
    luma = 0.299 * red + 0.587 * green + 0.114 * blue
    planes = [luma, 128 + 0.564 * (blue - luma), 128 + 0.713 * (red - luma)]
    transform = Dct2d(3)
    found = transform((rgb.float() - MEAN[:, None, None]).div(STD[:, None, None])[None])[0, :, 0, 0].view(3, 64)
    found = found * transform.statistics[1].view(3, 64) + transform.statistics[0].view(3, 64)
    for plane, coefficients in zip(planes, found, strict=True):
        for number, (u, v) in enumerate([(0, 0), (0, 1), (1, 0), (2, 0)]):
            scale = (0.5 if u else 8**-0.5) * (0.5 if v else 8**-0.5)
            expected = scale * sum(
                plane[y, x].item() * math.cos((2 * y + 1) * u * math.pi / 16) * math.cos((2 * x + 1) * v * math.pi / 16)
                for y in range(8)
                for x in range(8)
            )
            assert abs(coefficients[number].item() - expected) < 1e-3

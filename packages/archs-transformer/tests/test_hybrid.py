"""Hybrids: what a patch of the backbone's map is."""

import pytest
import torch

import imgzoo
from imgzoo.errors import UsageError

STEM = {"depth": 1, "num_classes": 3, "img_size": 64}


@pytest.mark.parametrize("patch_size, grid", [(8, (2, 2)), (4, (4, 4)), (1, (16, 16)), ((2, 4), (8, 4))])
def test_patches_are_of_the_map(patch_size, grid):
    """The map of the stem has a quarter of the image's side."""
    model = imgzoo.create_model("vit_tiny_r_s16_p8_224", **STEM, patch_size=patch_size).eval()
    assert model.grid == grid
    assert model.patch_embed(torch.zeros(1, 3, 64, 64)).shape[1] == grid[0] * grid[1]
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_a_row_says_its_patches():
    plain, said = (imgzoo.create_model("vit_tiny_r_s16_p8_224", **STEM, **more) for more in ({}, {"patch_size": 8}))
    assert plain.patch_embed.proj.kernel_size == said.patch_embed.proj.kernel_size == (8, 8)
    assert plain.patch_size == (32, 32)  # in pixels


def test_a_stem_that_makes_patches_has_no_others():
    with pytest.raises(UsageError, match="patch_size is 1, not 16"):
        imgzoo.create_model("vit_base_mci_224", device="meta", patch_size=16)

"""From images to patches, with kernels of other sizes, and from the maps of a network."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from imgzoo_layers.norm import LayerNorm
from imgzoo_layers.patch_embed import FlexiPatchEmbed, HybridEmbed, PatchEmbed, kernel_map, resize_patch_kernel

X = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))


def test_patches_row_by_row():
    embed = PatchEmbed((8, 8), 3, 10, norm=LayerNorm)
    y = embed(X)
    assert y.shape == (2, 6, 10) and PatchEmbed((8, 8), 3, 10, bias=False).proj.bias is None
    patch = X[:, :, 8:, 8:16].flatten(1) @ embed.proj.weight.flatten(1).T + embed.proj.bias
    torch.testing.assert_close(y[:, 4], embed.norm(patch))


@pytest.mark.parametrize("size", [(4, 4), (12, 20), (16, 16)])
def test_a_resized_kernel_sees_the_same_in_a_resized_patch(size):
    """Of larger patches exactly (arXiv:2212.08013, eq. 3), as far as a smaller patch can hold it otherwise."""
    kernel, patch = torch.randn(10, 3, 8, 8), torch.randn(5, 3, 8, 8)
    resized = F.interpolate(patch, size=size, mode="bicubic", antialias=True)
    found = (
        resized.flatten(1) @ resize_patch_kernel(kernel, size).flatten(1).T,
        patch.flatten(1) @ kernel.flatten(1).T,
    )
    if min(size) >= 8:
        torch.testing.assert_close(*found, rtol=1e-3, atol=1e-3)
    assert resize_patch_kernel(kernel, size).shape == (10, 3, *size)
    assert kernel_map((8, 8), size).shape == (64, size[0] * size[1])
    assert resize_patch_kernel(kernel, (8, 8)) is kernel


@pytest.mark.parametrize("size", [(8, 8), (4, 4), (16, 12)])
def test_a_call_names_its_patch_size(size):
    embed = FlexiPatchEmbed((8, 8), 3, 10)
    fixed = PatchEmbed(size, 3, 10)
    fixed.proj.weight = nn.Parameter(resize_patch_kernel(embed.proj.weight.detach(), size))
    fixed.proj.bias = embed.proj.bias
    y = embed(X, size)
    torch.testing.assert_close(y, fixed(X), rtol=1e-4, atol=1e-5)
    cut = X.unfold(2, size[0], size[0]).unfold(3, size[1], size[1]).permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
    torch.testing.assert_close(embed.of_patches(cut, size), y, rtol=1e-4, atol=1e-5)
    y.sum().backward()
    assert embed.proj.weight.grad.abs().sum() > 0
    torch.testing.assert_close(embed(X), embed(X, (8, 8)))


@pytest.mark.parametrize("levels", [False, True])
def test_maps_of_a_network_as_patches(levels):
    class Trunk(nn.Conv2d):
        def forward(self, x):
            y = super().forward(x)
            return [x, y] if levels else y

    embed = HybridEmbed(Trunk(3, 6, 4, 4), 6, 10, patch_size=2)
    assert embed(X).shape == (2, 6, 10) and embed.map_of(X).shape == (2, 10, 2, 3)
    plain = HybridEmbed(Trunk(3, 6, 4, 4), 6, 6, proj=False)
    assert plain(X).shape == (2, 24, 6)
    with pytest.raises(ValueError, match="without projection"):
        HybridEmbed(Trunk(3, 6, 4, 4), 6, 10, proj=False)

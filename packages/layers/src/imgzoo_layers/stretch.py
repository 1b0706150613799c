"""A table of positions stretched to many sizes at once: interpolation as a sum with weights, no loop over sizes."""

import torch
from torch import Tensor


def stretch_weights(
    places: Tensor, sizes: Tensor, length: int, mode: str = "bicubic", antialias: bool = False,
    align_corners: bool = False
) -> Tensor:  # fmt: skip
    """What `F.interpolate` gives each entry of a table of `length` at each place: (B, N), (B,) -> (B, N, length).

    Place i of image b is place i of the table stretched to `sizes[b]`. `mode` is `linear` or `bicubic`; sums of weights
    are 1. The products over two axes are bilinear and bicubic interpolation.
    """
    places, sizes = places.float(), sizes.float()[:, None]
    entries = torch.arange(length, device=places.device, dtype=torch.float32)
    scale = length / sizes
    if align_corners:
        scale = (length - 1) / (sizes - 1).clamp(min=1) * (sizes > 1)
    if antialias:
        wide = scale.clamp(min=1)
        center = scale * (places + 0.5)
        support = (2 if mode == "bicubic" else 1) * wide
        first = (center - support + 0.5).trunc().clamp(min=0)[..., None]
        last = (center + support + 0.5).trunc().clamp(max=length)[..., None]
        distance = (entries - center[..., None] + 0.5) / wide[..., None]
        weights = kernel(distance.abs(), mode, -0.5) * ((entries >= first) & (entries < last))
        return weights / weights.sum(-1, keepdim=True)
    source = places * scale if align_corners else (places + 0.5) * scale - 0.5
    if mode == "linear":
        source = source.clamp(min=0)
    low = source.floor()
    weights = torch.zeros(*places.shape, length, device=places.device)
    for tap in (-1, 0, 1, 2) if mode == "bicubic" else (0, 1):
        here = (low + tap).clamp(0, length - 1)
        share = kernel((low + tap - source).abs(), mode, -0.75)
        weights = weights + share[..., None] * (here[..., None] == entries)
    return weights


def kernel(distance: Tensor, mode: str, a: float) -> Tensor:
    """Keys' cubic kernel with parameter `a` (IEEE TASSP 29, 1981), or the triangle, of absolute distances."""
    if mode == "linear":
        return (1 - distance).clamp(min=0)
    near = ((a + 2) * distance - (a + 3)) * distance * distance + 1
    far = ((distance - 5) * distance + 8) * distance * a - 4 * a
    return torch.where(distance <= 1, near, torch.where(distance < 2, far, torch.zeros_like(far)))

"""From image to patch tokens, and the resizing of patch kernels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .norm import Norm


class PatchEmbed(nn.Module):
    """Cut the image into patches and project each: (B, C, H, W) -> (B, H/p * W/p, dim), row by row."""

    def __init__(
        self, patch_size: tuple[int, int], in_chans: int, dim: int, norm: Norm | None = None, bias: bool = True
    ):
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, patch_size, patch_size, bias=bias)
        self.norm = norm(dim) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).flatten(2).transpose(1, 2))


def resize_patch_kernel(kernel: Tensor, size: tuple[int, int]) -> Tensor:
    """Patch kernels (D, C, h, w) for another patch size, by the pseudo-inverse of resizing (arXiv:2212.08013)."""
    old = (kernel.shape[-2], kernel.shape[-1])
    if old == size:
        return kernel
    basis = torch.eye(old[0] * old[1], dtype=torch.float32).reshape(-1, 1, *old)
    resize = F.interpolate(basis, size=size, mode="bicubic", antialias=True).flatten(1).T  # (new, old)
    inverse = torch.linalg.pinv(resize.T)
    return (kernel.float().flatten(2).cpu() @ inverse.T).unflatten(2, size).to(kernel)

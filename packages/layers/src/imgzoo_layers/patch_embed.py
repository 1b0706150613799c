"""From image to patch tokens, and the resizing of patch kernels."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .norm import Norm
from .util import pair


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
    return (kernel.float().flatten(2).cpu() @ kernel_map(old, size)).unflatten(2, size).to(kernel)


def kernel_map(old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """What makes kernels of another size of flat ones, so that a resized patch gives the same: (h * w, h' * w')."""
    basis = torch.eye(old[0] * old[1], dtype=torch.float32).reshape(-1, 1, *old)
    resize = F.interpolate(basis, size=new, mode="bicubic", antialias=True).flatten(1)  # (old, new)
    return torch.linalg.pinv(resize).T


class FlexiKernel:
    """Mixed into what has patch kernels: they follow the patch size that a call names (FlexiViT, arXiv:2212.08013)."""

    maps: dict[tuple[int, int], Tensor]

    def flexed(self, kernel: Tensor, size: tuple[int, int]) -> Tensor:
        """Kernels (D, C, h, w) for another patch size; maps between sizes are computed once, gradients reach them."""
        old = (kernel.shape[2], kernel.shape[3])
        if size == old:
            return kernel
        if size not in self.maps:
            self.maps[size] = kernel_map(old, size)
        self.maps[size] = self.maps[size].to(kernel.device)
        return (kernel.float().flatten(2) @ self.maps[size]).unflatten(2, size).to(kernel.dtype)


class FlexiPatchEmbed(FlexiKernel, PatchEmbed):
    """A patch embedding whose kernel follows the patch size that a call names (FlexiViT, arXiv:2212.08013).

    (B, C, H, W) -> (B, H/p * W/p, dim). Maps between sizes are computed once and kept; gradients reach the kernel.
    """

    def __init__(
        self, patch_size: tuple[int, int], in_chans: int, dim: int, norm: Norm | None = None, bias: bool = True
    ):
        super().__init__(patch_size, in_chans, dim, norm, bias)
        self.maps = {}

    def kernel(self, size: tuple[int, int]) -> Tensor:
        """The kernel (dim, C, h, w) for another patch size."""
        return self.flexed(self.proj.weight, size)

    def forward(self, x: Tensor, patch_size: tuple[int, int] | None = None) -> Tensor:
        if patch_size is None:
            return super().forward(x)
        x = F.conv2d(x, self.kernel(patch_size), self.proj.bias, patch_size)
        return self.norm(x.flatten(2).transpose(1, 2))

    def of_patches(self, patches: Tensor, patch_size: tuple[int, int]) -> Tensor:
        """The same of patches (B, N, h * w * C) that are cut already, channels last -> (B, N, dim)."""
        kernel = self.kernel(patch_size).permute(0, 2, 3, 1).flatten(1)
        return self.norm(F.linear(patches, kernel, self.proj.bias))


class HybridEmbed(nn.Module):
    """A network's last map as patches: (B, C, H, W) -> (B, N, dim), of the map's positions or of `patch_size` blocks.

    The `backbone` returns a map (B, chans, h, w), or a list of maps whose last is taken. With `proj` off its channels
    are the width already.
    """

    def __init__(self, backbone: nn.Module, chans: int, dim: int = 768, patch_size: int | tuple[int, int] = 1,
                 bias: bool = True, proj: bool = True):  # fmt: skip
        super().__init__()
        size = pair(patch_size)
        if not proj and (chans != dim or size != (1, 1)):
            raise ValueError(
                f"without projection the {chans} channels of the map are the width, not {dim}, in patches of 1"
            )
        self.backbone = backbone
        self.proj = nn.Conv2d(chans, dim, size, size, bias=bias) if proj else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.map_of(x).flatten(2).transpose(1, 2)

    def map_of(self, x: Tensor) -> Tensor:
        """The same as a map (B, dim, h, w)."""
        levels = self.backbone(x)
        return self.proj(levels[-1] if isinstance(levels, (list, tuple)) else levels)

"""From image to patches, and the resizing of patch kernels and position tables."""

import logging
import math
from enum import Enum
from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model.tables import check_divides, check_size
from imgzoo_layers import patch_embed as native
from imgzoo_layers.tables import Size

from ._base import adapter, made, placed
from ._helpers import to_2tuple

log = logging.getLogger(__name__)
torch.fx.wrap("check_size")
torch.fx.wrap("check_divides")


class Format(str, Enum):  # noqa: UP042  (as the field has it: formatting shows the member)
    NCHW = "NCHW"
    NHWC = "NHWC"
    NCL = "NCL"
    NLC = "NLC"


def laid_out(x: Tensor, fmt: str) -> Tensor:
    """(B, C, H, W) in another format, by its name."""
    if fmt == "NHWC":
        return x.permute(0, 2, 3, 1)
    if fmt == "NLC":
        return x.flatten(2).transpose(1, 2)
    return x.flatten(2) if fmt == "NCL" else x


def nchw_to(x: Tensor, fmt: Format) -> Tensor:
    """(B, C, H, W) in another format."""
    return laid_out(x, Format(fmt).value)


def nhwc_to(x: Tensor, fmt: Format) -> Tensor:
    """(B, H, W, C) in another format."""
    if fmt == Format.NCHW:
        return x.permute(0, 3, 1, 2)
    if fmt == Format.NLC:
        return x.flatten(1, 2)
    return x.flatten(1, 2).transpose(1, 2) if fmt == Format.NCL else x


def get_spatial_dim(fmt: Format) -> tuple[int, ...]:
    return {Format.NLC: (1,), Format.NCL: (2,), Format.NHWC: (1, 2)}.get(Format(fmt), (2, 3))


def get_channel_dim(fmt: Format) -> int:
    return {Format.NHWC: 3, Format.NLC: 2}.get(Format(fmt), 1)


def resized(proj: Any, size: Size) -> nn.Conv2d:
    """The convolution of patches for patches of another size."""
    new = nn.Conv2d(proj.in_channels, proj.out_channels, size, size, bias=proj.bias is not None)
    kernel = native.resize_patch_kernel(proj.weight.detach(), size)
    new.weight = nn.Parameter(kernel, requires_grad=proj.weight.requires_grad)
    new.bias = proj.bias
    return new.train(proj.training)


@adapter
@placed
class PatchEmbed(native.PatchEmbed):
    """(B, C, H, W) -> (B, N, D), or a map in `output_fmt`."""

    img_size: Size | None = None
    grid_size: Size | None = None
    num_patches: int | None = None
    flatten = True
    output_fmt = Format.NCHW
    strict_img_size = False
    dynamic_img_pad = False
    checks = False
    """Whether images are looked at here; a network that adopted this module has done so."""

    def __init__(self, img_size: int | Size | None = 224, patch_size: int = 16, in_chans: int = 3,
                 embed_dim: int = 768, norm_layer: Any = None, flatten: bool = True, output_fmt: str | None = None,
                 bias: bool = True, strict_img_size: bool = True, dynamic_img_pad: bool = False):  # fmt: skip
        super().__init__(to_2tuple(patch_size), in_chans, embed_dim, None, bias)
        self.norm = made(norm_layer, embed_dim)
        self.measure(img_size, to_2tuple(patch_size), strict_img_size, dynamic_img_pad)
        self.checks = True
        self.flatten = flatten if output_fmt is None else False
        self.output_fmt = Format.NCHW if output_fmt is None else Format(output_fmt)

    def measure(self, img_size: Any, patch_size: Size, strict: bool = True, pad: bool = False) -> None:
        """Take the sizes that clients read."""
        self.patch_size, self.strict_img_size, self.dynamic_img_pad = patch_size, strict, pad
        self.flatten, self.output_fmt = True, Format.NCHW
        self.img_size = None if img_size is None else to_2tuple(img_size)
        self.grid_size = None if self.img_size is None else self.dynamic_feat_size(self.img_size)
        self.num_patches = None if self.grid_size is None else self.grid_size[0] * self.grid_size[1]

    def feat_ratio(self, as_scalar: bool = True) -> Any:
        return max(self.patch_size) if as_scalar else self.patch_size

    def dynamic_feat_size(self, img_size: Size) -> Size:
        """The grid of an image."""
        high, wide = self.patch_size
        if self.dynamic_img_pad:
            return math.ceil(img_size[0] / high), math.ceil(img_size[1] / wide)
        return img_size[0] // high, img_size[1] // wide

    def set_input_size(self, img_size: Any = None, patch_size: Any = None) -> None:
        """Take another image size, or another patch size, to which the kernels are resized."""
        size = self.patch_size if patch_size is None else to_2tuple(patch_size)
        if size != self.patch_size:
            self.proj = resized(self.proj, size)
        self.measure(self.img_size if img_size is None else img_size, size, self.strict_img_size, self.dynamic_img_pad)

    def forward(self, x: Tensor) -> Tensor:
        if not self.checks:
            return self.embedded(x)
        size = self.img_size
        if size is not None and self.strict_img_size:
            x = check_size(x, size)
        elif size is not None and not self.dynamic_img_pad:
            x = check_divides(x, self.patch_size)
        if self.dynamic_img_pad:
            x = F.pad(x, [0, -x.shape[-1] % self.patch_size[1], 0, -x.shape[-2] % self.patch_size[0]])
        return self.embedded(x)

    def embedded(self, x: Tensor) -> Tensor:
        """The same, of an image that is known to fit."""
        x = self.proj(x)
        x = x.flatten(2).transpose(1, 2) if self.flatten else laid_out(x, self.output_fmt)
        return self.norm(x)


class PatchEmbedWithSize(PatchEmbed):
    """The same, with the grid beside it."""

    def __init__(self, img_size: int | Size | None = 224, patch_size: int = 16, in_chans: int = 3,
                 embed_dim: int = 768, norm_layer: Any = None, flatten: bool = True, output_fmt: str | None = None,
                 bias: bool = True, device: Any = None, dtype: Any = None):  # fmt: skip
        super().__init__(img_size, patch_size, in_chans, embed_dim, norm_layer, flatten, output_fmt, bias,
                         device=device, dtype=dtype)  # fmt: skip

    def forward(self, x: Tensor) -> Any:
        x = self.proj(x)
        grid = list(x.shape[-2:])
        x = x.flatten(2).transpose(1, 2) if self.flatten else nchw_to(x, self.output_fmt)
        return self.norm(x), grid


@placed
class HybridEmbed(native.HybridEmbed):
    """A network's last map as patches: (B, C, H, W) -> (B, N, D), or a map in `output_fmt`."""

    img_size: Size
    patch_size: Size
    in_chans: int
    feature_size: Size
    feature_ratio: Size

    def __init__(self, backbone: nn.Module, img_size: Any = 224, patch_size: Any = 1, feature_size: Any = None,
                 feature_ratio: Any = None, in_chans: int = 3, embed_dim: int = 768, bias: bool = True,
                 proj: bool = True, flatten: bool = True, output_fmt: str | None = None, strict_img_size: bool = True,
                 dynamic_img_pad: bool = False):  # fmt: skip
        self.__dict__.update(img_size=to_2tuple(img_size), patch_size=to_2tuple(patch_size), in_chans=in_chans)
        chans, size = self.measured(backbone, feature_size)
        super().__init__(backbone, chans, embed_dim, to_2tuple(patch_size), bias, proj)
        self.feature_dim, self.feature_size = chans, size
        self.feature_ratio = to_2tuple(feature_ratio or tuple(a // b for a, b in zip(self.img_size, size)))
        self.flatten, self.output_fmt = flatten and output_fmt is None, Format(output_fmt or "NCHW")
        self.strict_img_size, self.dynamic_img_pad = strict_img_size, dynamic_img_pad
        self.settle()

    def measured(self, backbone: Any, feature_size: Any) -> tuple[int, Size]:
        """Channels and size of the map that the network gives of an image of `img_size`."""
        info = getattr(backbone, "feature_info", None)
        if feature_size is not None:
            width = info.channels()[-1] if info is not None else backbone.num_features
            return width, to_2tuple(feature_size)
        modes = [(module, module.training) for module in backbone.modules()]
        like = next(backbone.parameters(), torch.empty(0))
        with torch.no_grad():
            blank = torch.zeros(1, self.in_chans, *self.img_size, device=like.device, dtype=like.dtype)
            last = self.seen(backbone.eval(), blank)
        for module, mode in modes:
            module.training = mode
        return last.shape[1], (last.shape[2], last.shape[3])

    def settle(self) -> None:
        self.grid_size = self.feature_size[0] // self.patch_size[0], self.feature_size[1] // self.patch_size[1]
        self.num_patches = self.grid_size[0] * self.grid_size[1]

    def feat_ratio(self, as_scalar: bool = True) -> Any:
        total = self.feature_ratio[0] * self.patch_size[0], self.feature_ratio[1] * self.patch_size[1]
        return max(total) if as_scalar else total

    def dynamic_feat_size(self, img_size: Size) -> Size:
        """The grid of an image."""
        high, wide = self.feat_ratio(as_scalar=False)
        if self.dynamic_img_pad:
            return math.ceil(img_size[0] / high), math.ceil(img_size[1] / wide)
        return img_size[0] // high, img_size[1] // wide

    def set_input_size(self, img_size: Any = None, patch_size: Any = None, feature_size: Any = None,
                       feature_ratio: Any = None, in_chans: int | None = None) -> None:  # fmt: skip
        """Take images of another size, or patches to which the kernels are resized; channels stay the network's."""
        if in_chans not in (None, self.in_chans):
            raise ValueError("channels are those of creation here: make the network with in_chans")
        size = self.patch_size if patch_size is None else to_2tuple(patch_size)
        if size != self.patch_size:
            if not isinstance(self.proj, nn.Conv2d):
                raise ValueError("patch_size resizes a projection, and there is none (proj=False)")
            self.proj, self.patch_size = resized(self.proj, size), size
        side = self.img_size if img_size is None else to_2tuple(img_size)
        if side != self.img_size or feature_size is not None:
            self.img_size = side
            self.feature_size = self.measured(self.backbone, feature_size)[1]
            ratio = tuple(a // b for a, b in zip(self.img_size, self.feature_size))
            self.feature_ratio = to_2tuple(feature_ratio or ratio)
        elif feature_ratio is not None:
            self.feature_ratio = to_2tuple(feature_ratio)
        self.settle()

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.backbone.set_grad_checkpointing(enable=enable)  # type: ignore[operator]

    def seen(self, backbone: Any, x: Tensor) -> Tensor:
        """The last map of the network."""
        maps = backbone(x)
        return maps[-1] if isinstance(maps, (list, tuple)) else maps

    def mapped(self, x: Tensor) -> Tensor:
        x = self.seen(self.backbone, x)
        if self.dynamic_img_pad:
            x = F.pad(x, [0, -x.shape[-1] % self.patch_size[1], 0, -x.shape[-2] % self.patch_size[0]])
        return self.proj(x)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mapped(x)
        return x.flatten(2).transpose(1, 2) if self.flatten else nchw_to(x, self.output_fmt)


class HybridEmbedWithSize(HybridEmbed):
    """The same, with the grid beside it."""

    def __init__(self, backbone: nn.Module, img_size: Any = 224, patch_size: Any = 1, feature_size: Any = None,
                 feature_ratio: Any = None, in_chans: int = 3, embed_dim: int = 768, bias: bool = True,
                 proj: bool = True, device: Any = None, dtype: Any = None):  # fmt: skip
        super().__init__(backbone, img_size, patch_size, feature_size, feature_ratio, in_chans, embed_dim, bias, proj,
                         device=device, dtype=dtype)  # fmt: skip

    def forward(self, x: Tensor) -> Any:
        x = self.mapped(x)
        return x.flatten(2).transpose(1, 2), x.shape[-2:]


def resample_patch_embed(patch_embed: Tensor, new_size: list[int], interpolation: str = "bicubic",
                         antialias: bool = True, verbose: bool = False) -> Tensor:  # fmt: skip
    """Patch kernels (D, C, h, w) for another patch size, by the pseudo-inverse of resizing (arXiv:2212.08013)."""
    if verbose:
        log.info("patch kernels %s resized to %s", tuple(patch_embed.shape[-2:]), tuple(new_size))
    if interpolation == "bicubic" and antialias:
        return native.resize_patch_kernel(patch_embed, (new_size[0], new_size[1]))
    old, new = (patch_embed.shape[-2], patch_embed.shape[-1]), (new_size[0], new_size[1])
    made = patch_embed.float().flatten(2) @ resizing(old, new, interpolation, antialias)
    return made.unflatten(2, new).to(patch_embed.dtype)


def resizing(old: Size, new: Size, interpolation: str, antialias: bool) -> Tensor:
    """What makes flat kernels of one size those of another, by the inverse of resizing: (h * w, h' * w')."""
    basis = torch.eye(old[0] * old[1]).reshape(-1, 1, *old)
    return torch.linalg.pinv(F.interpolate(basis, new, mode=interpolation, antialias=antialias).flatten(1)).T


def resample_abs_pos_embed(posemb: Tensor, new_size: list[int], old_size: list[int] | None = None,
                           num_prefix_tokens: int = 1, interpolation: str = "bicubic", antialias: bool = True,
                           verbose: bool = False, align_corners: bool | None = None) -> Tensor:  # fmt: skip
    """A position table (1, prefix + h * w, C) for another grid; without `old_size` the old one is square."""
    new = (new_size[0], new_size[1])
    rows = posemb.shape[1] - num_prefix_tokens
    side = math.isqrt(rows)
    old = (side, side) if old_size is None else (old_size[0], old_size[1])
    if new == old:
        return posemb
    if verbose:
        log.info("positions %s resized to %s", old, new)
    prefix, grid = posemb[:, :num_prefix_tokens], posemb[:, num_prefix_tokens:]
    grid = grid.float().unflatten(1, old).permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=new, mode=interpolation, antialias=antialias, align_corners=align_corners)
    return torch.cat([prefix, grid.permute(0, 2, 3, 1).flatten(1, 2).to(posemb.dtype)], dim=1)


def resample_abs_pos_embed_nhwc(posemb: Tensor, new_size: list[int], interpolation: str = "bicubic",
                                antialias: bool = True, verbose: bool = False) -> Tensor:  # fmt: skip
    """A position map (1, h, w, C) for another grid."""
    if tuple(posemb.shape[-3:-1]) == tuple(new_size):
        return posemb
    if verbose:
        log.info("positions %s resized to %s", tuple(posemb.shape[-3:-1]), tuple(new_size))
    grid = posemb.float().permute(0, 3, 1, 2)
    grid = F.interpolate(grid, size=tuple(new_size), mode=interpolation, antialias=antialias)
    return grid.permute(0, 2, 3, 1).to(posemb.dtype)


class PatchEmbedInterpolator(nn.Module):
    """Embeds patches of any size by the kernels of one, which are resized (arXiv:2212.08013); maps are kept."""

    def __init__(self, base_patch_size: tuple[int, int], in_chans: int = 3, embed_dim: int = 768,
                 interpolation: str = "bicubic", antialias: bool = True, channels_last: bool = True,
                 device: Any = None):  # fmt: skip
        super().__init__()
        self.base_patch_size: Size = (base_patch_size[0], base_patch_size[1])
        self.in_chans, self.embed_dim = in_chans, embed_dim
        self.interpolation, self.antialias, self.channels_last = interpolation, antialias, channels_last
        self.maps: dict[Size, Tensor] = {}

    def map_to(self, size: Size) -> Tensor:
        """What makes flat kernels (..., h * w) those of another size."""
        if size not in self.maps:
            self.maps[size] = resizing(self.base_patch_size, size, self.interpolation, self.antialias)
        return self.maps[size]

    def prewarm(self, target_patch_sizes: Any, device: Any = None) -> None:
        """Compute the maps of sizes ahead."""
        for size in target_patch_sizes:
            if to_2tuple(size) != self.base_patch_size:
                self.maps[to_2tuple(size)] = self.map_to(to_2tuple(size)).to(device)

    def resample_linear_weight(self, weight: Tensor, target_patch_size: Size) -> Tensor:
        """Kernels (D, h * w * C), or (D, C * h * w) unless channels are last."""
        if self.channels_last:
            kernel = weight.unflatten(1, (*self.base_patch_size, self.in_chans)).permute(0, 3, 1, 2)
            return self.resample_conv_weight(kernel, target_patch_size).permute(0, 2, 3, 1).flatten(1)
        return self.resample_conv_weight(weight.unflatten(1, (self.in_chans, *self.base_patch_size)),
                                         target_patch_size).flatten(1)  # fmt: skip

    def resample_conv_weight(self, weight: Tensor, target_patch_size: Size) -> Tensor:
        """Kernels (D, C, h, w)."""
        size = to_2tuple(target_patch_size)
        if size == self.base_patch_size:
            return weight
        kernel = weight.float().flatten(2) @ self.map_to(size).to(weight.device)
        return kernel.unflatten(2, size).to(weight.dtype)

    def forward(self, patches: Tensor, proj_weight: Tensor, proj_bias: Tensor | None = None,
                patch_size: Size | None = None, is_linear: bool = True) -> Tensor:  # fmt: skip
        """Patches (B, N, h, w, C), or (B, N, C, h, w) -> (B, N, D); an image (B, C, H, W) unless `is_linear`."""
        size = self.base_patch_size if patch_size is None else to_2tuple(patch_size)
        if not is_linear:
            return F.conv2d(patches, self.resample_conv_weight(proj_weight, size), proj_bias, size)
        if size != self.base_patch_size and patches.ndim != 5:
            raise ValueError("patches of another size are (B, N, h, w, C), or (B, N, C, h, w), not flat")
        flat = patches.flatten(2) if patches.ndim == 5 else patches
        return F.linear(flat, self.resample_linear_weight(proj_weight, size), proj_bias)

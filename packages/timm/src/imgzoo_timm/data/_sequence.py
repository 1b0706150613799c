"""Images as sequences of patches, each image in its own shape: sizes for a length, crops to them, and patches."""

from __future__ import annotations

import math
import random
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import functional as F

from imgzoo.errors import UsageError
from imgzoo_data.transforms.sequences import fit_grid
from imgzoo_timm.layers._helpers import to_2tuple

from ._padding import RandomCropOrPad
from ._transforms import RANDOM, CenterCropOrPad, interp_mode_to_str, random_box, str_to_interp_mode

Size = tuple[int, int]


def get_image_size_for_seq(image_hw: Size, patch_size: Any = 16, max_seq_len: int = 1024,
                           divisible_by_patch: bool = True, max_ratio: float | None = None,
                           eps: float = 1e-5) -> tuple[float, Size]:  # fmt: skip
    """The largest scale at which an image, rounded up to whole patches, has at most `max_seq_len`, and that size."""
    patch = to_2tuple(patch_size)
    if not divisible_by_patch:
        raise UsageError("sizes of sequences are whole patches here: leave divisible_by_patch true")
    if max_seq_len < 1:
        raise UsageError(f"a sequence has at least one patch: max_seq_len is {max_seq_len}")
    sides = [side / each for side, each in zip(image_hw, patch)]
    grid = fit_grid(sides[0], sides[1], 1, max_seq_len)
    ratio = min(count / side for count, side in zip(grid, sides))
    if max_ratio is not None and ratio > max_ratio:
        ratio, grid = max_ratio, fit_within(sides, max_ratio, max_seq_len)
    return ratio, (grid[0] * patch[0], grid[1] * patch[1])


def fit_within(sides: Any, ratio: float, length: int) -> Size:
    """Rows and columns of an image of `sides` patches at a scale; of the largest that fits where those are too many."""
    rows, columns = (max(1, math.ceil(side * ratio - 1e-6)) for side in sides)
    return (rows, columns) if rows * columns <= length else fit_grid(sides[0], sides[1], 1, length)


def modes_of(interpolation: Any) -> Any:
    """One way of resampling, or several to draw from."""
    if interpolation == "random":
        return RANDOM
    return str_to_interp_mode(interpolation) if isinstance(interpolation, str) else interpolation


def picked(modes: Any) -> Any:
    return random.choice(modes) if isinstance(modes, (tuple, list)) else modes


class ResizeToSequence(nn.Module):
    """The whole image, at the largest size whose patches fit."""

    def __init__(self, patch_size: int, max_seq_len: int = 1024, divisible_by_patch: bool = True,
                 max_ratio: float | None = None, interpolation: Any = "bicubic") -> None:  # fmt: skip
        super().__init__()
        self.patch_size, self.max_seq_len, self.divisible_by_patch = patch_size, max_seq_len, divisible_by_patch
        self.max_ratio, self.interpolation = max_ratio, modes_of(interpolation)

    def forward(self, img: Any) -> Any:
        width, height = F.get_image_size(img)
        size = get_image_size_for_seq((height, width), self.patch_size, self.max_seq_len, self.divisible_by_patch,
                                      self.max_ratio)[1]  # fmt: skip
        return F.resize(img, list(size), picked(self.interpolation), antialias=True)


class ResizeKeepRatioToSequence(nn.Module):
    """The same, smaller or in another aspect at random; the patches fit always."""

    def __init__(self, patch_size: Any = 16, max_sequence_len: int = 1024, divisible_by_patch: bool = True,
                 longest: float = 0.0, interpolation: Any = "bilinear", random_scale_prob: float = 0.0,
                 random_scale_range: Any = (0.85, 1.05), random_scale_area: bool = False,
                 random_aspect_prob: float = 0.0, random_aspect_range: Any = (0.9, 1.11),
                 max_ratio: float | None = None):  # fmt: skip
        super().__init__()
        self.patch_size, self.max_sequence_len, self.divisible_by_patch = (
            patch_size,
            max_sequence_len,
            divisible_by_patch,
        )
        self.longest, self.interpolation, self.max_ratio = longest, modes_of(interpolation), max_ratio
        self.random_scale_prob, self.random_scale_range = random_scale_prob, random_scale_range
        self.random_scale_area = random_scale_area
        self.random_aspect_prob, self.random_aspect_range = random_aspect_prob, random_aspect_range

    @staticmethod
    def get_params(img: Any, patch_size: Any, max_sequence_len: int, divisible_by_patch: bool, longest: float,
                   random_scale_prob: float = 0.0, random_scale_range: Any = (1.0, 1.33),
                   random_scale_area: bool = False, random_aspect_prob: float = 0.0,
                   random_aspect_range: Any = (0.9, 1.11), max_ratio: float | None = None) -> list[int]:  # fmt: skip
        """Height and width to resize to."""
        width, height = F.get_image_size(img)
        ratio, _ = get_image_size_for_seq((height, width), patch_size, max_sequence_len, divisible_by_patch,
                                          max_ratio)  # fmt: skip
        if random_scale_prob > 0 and random.random() < random_scale_prob:
            factor = random.uniform(*random_scale_range)
            ratio *= math.sqrt(factor) if random_scale_area else factor
        aspect = 1.0
        if random_aspect_prob > 0 and random.random() < random_aspect_prob:
            aspect = math.sqrt(math.exp(random.uniform(*map(math.log, random_aspect_range))))
        patch = to_2tuple(patch_size)
        grid = fit_within((height / patch[0] / aspect, width / patch[1] * aspect), ratio, max_sequence_len)
        return [grid[0] * patch[0], grid[1] * patch[1]]

    def forward(self, img: Any) -> Any:
        size = self.get_params(img, self.patch_size, self.max_sequence_len, self.divisible_by_patch, self.longest,
                               self.random_scale_prob, self.random_scale_range, self.random_scale_area,
                               self.random_aspect_prob, self.random_aspect_range, self.max_ratio)  # fmt: skip
        return F.resize(img, size, picked(self.interpolation), antialias=True)


class CenterCropToSequence(nn.Module):
    """The middle of an image, cut or padded to the largest size of its aspect whose patches fit."""

    def __init__(self, patch_size: int, max_seq_len: int, divisible_by_patch: bool = True, fill: Any = 0,
                 padding_mode: str = "constant"):  # fmt: skip
        super().__init__()
        self.patch_size, self.max_seq_len, self.divisible_by_patch = patch_size, max_seq_len, divisible_by_patch
        self.fill, self.padding_mode = fill, padding_mode

    def forward(self, img: Any) -> Any:
        width, height = F.get_image_size(img)
        size = get_image_size_for_seq((height, width), self.patch_size, self.max_seq_len, self.divisible_by_patch)[1]
        return CenterCropOrPad(size, self.fill, self.padding_mode)(img)


class RandomCropToSequence(nn.Module):
    """The same anywhere in the image."""

    def __init__(self, patch_size: int, max_sequence_len: int, divisible_by_patch: bool = True, fill: Any = 0,
                 padding_mode: str = "constant"):  # fmt: skip
        super().__init__()
        self.patch_size, self.max_sequence_len, self.divisible_by_patch = (
            patch_size,
            max_sequence_len,
            divisible_by_patch,
        )
        self.fill, self.padding_mode = fill, padding_mode

    @staticmethod
    def get_params(img: Any, target_size: Size) -> tuple[int, int]:
        """Top and left."""
        return RandomCropOrPad.get_params(img, target_size)

    def forward(self, img: Any) -> Any:
        width, height = F.get_image_size(img)
        size = get_image_size_for_seq((height, width), self.patch_size, self.max_sequence_len,
                                      self.divisible_by_patch)[1]  # fmt: skip
        return RandomCropOrPad(size, self.fill, self.padding_mode)(img)


class RandomResizedCropToSequence(nn.Module):
    """A random area of a random aspect, at the largest size whose patches fit, or a random part of that size."""

    def __init__(self, patch_size: Any = 16, max_seq_len: int = 1024, scale: Any = (0.08, 1.0),
                 ratio: Any = (0.8, 1.25), interpolation: Any = "bicubic",
                 divisible_by_patch: bool = True, max_ratio: float | None = None,
                 final_scale_range: Any = None, attempts: int = 10):  # fmt: skip
        super().__init__()
        self.patch_h, self.patch_w = to_2tuple(patch_size)
        self.max_seq_len, self.scale, self.ratio = max_seq_len, scale, ratio
        self.divisible_by_patch, self.max_ratio = divisible_by_patch, max_ratio
        self.final_scale_range, self.attempts = final_scale_range, attempts
        self.interpolation = modes_of(interpolation)

    @staticmethod
    def get_params(img: Any, scale: Any, ratio: Any, crop_attempts: int = 10, patch_h: int = 16, patch_w: int = 16,
                   max_seq_len: int = 1024, divisible_by_patch: bool = True, max_ratio: float | None = None,
                   final_scale_range: Any = None, interpolation: Any = RANDOM) -> tuple[Any, Size, Any]:  # fmt: skip
        """Top, left, height and width of a crop; the size to resize it to; how."""
        box = random_box(img, scale, ratio, crop_attempts)
        factor, size = get_image_size_for_seq(box[2:], (patch_h, patch_w), max_seq_len, divisible_by_patch, max_ratio)
        if final_scale_range is not None:
            factor *= random.uniform(*final_scale_range)
            grid = fit_within((box[2] / patch_h, box[3] / patch_w), factor, max_seq_len)
            size = (grid[0] * patch_h, grid[1] * patch_w)
        return box, size, picked(interpolation)

    def forward(self, img: Any) -> Any:
        box, size, mode = self.get_params(
            img, self.scale, self.ratio, self.attempts, self.patch_h, self.patch_w, self.max_seq_len,
            self.divisible_by_patch, self.max_ratio, self.final_scale_range, self.interpolation)  # fmt: skip
        return F.resized_crop(img, box[0], box[1], box[2], box[3], list(size), mode, antialias=True)

    def extra_repr(self) -> str:
        modes = self.interpolation if isinstance(self.interpolation, (tuple, list)) else (self.interpolation,)
        return (f"patch_size={(self.patch_h, self.patch_w)}, max_seq_len={self.max_seq_len}, scale={self.scale}, "
                f"ratio={self.ratio}, interpolation={' '.join(map(interp_mode_to_str, modes))}")  # fmt: skip


def batch_patchify(x: Tensor, patch_size: Size, pad: bool = True,
                   channels_last: bool = True) -> tuple[Tensor, tuple[int, int]]:  # fmt: skip
    """(B, C, H, W) -> patches (B, N, P * Q * C), or of (C, P, Q) without `channels_last`, and their rows and columns.

    Sides that are no whole patches are padded with zeros below and to the right.
    """
    high, wide = to_2tuple(patch_size)
    down, right = -x.shape[2] % high, -x.shape[3] % wide
    if (down or right) and not pad:
        raise UsageError(f"an image of {tuple(x.shape[2:])} is not made of whole patches of {(high, wide)}: let it pad")
    x = nn.functional.pad(x, (0, right, 0, down))
    cut = x.unflatten(3, (-1, wide)).unflatten(2, (-1, high))  # (B, C, rows, P, columns, Q)
    order = (0, 2, 4, 3, 5, 1) if channels_last else (0, 2, 4, 1, 3, 5)
    return cut.permute(order).flatten(3).flatten(1, 2), (cut.shape[2], cut.shape[4])


def patchify_image(img: Tensor, patch_size: Size, pad: bool = True, include_info: bool = True,
                   flatten_patches: bool = True, channels_last: bool = True) -> Any:  # fmt: skip
    """(C, H, W) -> patches (N, P * Q * C) or, not flat, (N, P, Q, C), with their rows and columns (N, 2) and (N,) True.

    Sides that are no whole patches are padded with zeros below and to the right.
    """
    high, wide = to_2tuple(patch_size)
    (patches,), (rows, columns) = batch_patchify(img[None], (high, wide), pad, channels_last)
    if not flatten_patches:
        patches = patches.unflatten(1, (high, wide, -1) if channels_last else (-1, high, wide))
    if not include_info:
        return patches
    coord = torch.cartesian_prod(torch.arange(rows), torch.arange(columns))
    return patches, coord, torch.ones(rows * columns, dtype=torch.bool)


class Patchify(nn.Module):
    """A tensor (C, H, W) or a Pillow image as the table `patches`, `patch_coord`, `patch_valid`."""

    def __init__(self, patch_size: Any, flatten_patches: bool = True, channels_last: bool = True):
        super().__init__()
        self.patch_size, self.flatten_patches, self.channels_last = (
            to_2tuple(patch_size),
            flatten_patches,
            channels_last,
        )

    def forward(self, img: Any) -> dict[str, Tensor]:
        img = img if isinstance(img, Tensor) else F.to_tensor(img)
        parts = patchify_image(img, self.patch_size, flatten_patches=self.flatten_patches,
                               channels_last=self.channels_last)  # fmt: skip
        return dict(zip(("patches", "patch_coord", "patch_valid"), parts))

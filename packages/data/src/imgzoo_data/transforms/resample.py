"""Cut, resize and pad in one go: a `Crop` says what to take, `resample` takes it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

_PILLOW = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_TORCH = ("bilinear", "bicubic")


class Crop(NamedTuple):
    """Take `box` of the source, resize it to `resize`, cut `target` out of that at `offset`, padding what lies
    outside.
    """

    box: tuple[int, int, int, int]
    """(top, left, height, width) in source pixels."""
    resize: tuple[int, int]
    interpolation: str
    target: tuple[int, int] | None = None
    """(height, width); None is all of the resized image."""
    offset: tuple[int, int] = (0, 0)
    """(top, left) in resized pixels; negative where the target begins outside."""
    fill: tuple[int, ...] | None = (0,)
    """Value of each channel outside the image; None reflects the image."""

    def shrink(self) -> int:
        """By how much (1, 2, 4, 8) the source may be shrunk first and still be at least as large as the result."""
        least = min(self.box[2] / self.resize[0], self.box[3] / self.resize[1])
        return next((factor for factor in (8, 4, 2) if least >= factor), 1)

    def shrunk(self, factor: int, height: int, width: int) -> Crop:
        """The same crop of a source that was shrunk to (height, width)."""
        if factor == 1:
            return self
        top, left, h, w = self.box
        bottom, right = min(height, -(-(top + h) // factor)), min(width, -(-(left + w) // factor))
        top, left = top // factor, left // factor
        return self._replace(box=(top, left, bottom - top, right - left))


def resample(array: np.ndarray, crop: Crop, engine: str = "torch") -> torch.Tensor:
    """(H, W, C) uint8 -> (C, h, w) uint8.

    `engine` "torch" is torch's antialiased kernel, "pillow" is Pillow's, "near" is torch's where it is within one
    gray level of Pillow's (no enlargement) and Pillow's elsewhere. Filters that torch lacks always go to Pillow.
    """
    top, left, height, width = crop.box
    if crop.resize == (height, width) and crop.interpolation != "nearest":
        pixels = _planes(array[top : top + height, left : left + width])
    elif _use_torch(crop, engine):
        region = np.ascontiguousarray(array[top : top + height, left : left + width])
        region = torch.from_numpy(region if region.flags.writeable else region.copy())
        pixels = interpolate(region.permute(2, 0, 1)[None], crop.resize, mode=crop.interpolation, antialias=True)[0]
    elif engine == "near" and crop.interpolation == "bicubic" and array.shape[2] == 3 and crop.fill and _reduces(crop):
        return _resample_mixed(array, crop)
    else:
        return _resample_pillow(array, crop)
    if crop.target is None:
        return pixels
    return window(pixels, crop.offset, crop.target, crop.fill)


def _use_torch(crop: Crop, engine: str) -> bool:
    if crop.interpolation not in _TORCH or engine == "pillow":
        return False
    # from a reduction by two on bicubic weights are small, and rounding them stays within a level (parity tests hold
    # it)
    return engine == "torch" or _reduces(crop, 1 if crop.interpolation == "bilinear" else 2)


def _reduces(crop: Crop, factor: int = 1) -> bool:
    return factor * crop.resize[0] <= crop.box[2] and factor * crop.resize[1] <= crop.box[3]


def _resample_mixed(array: np.ndarray, crop: Crop) -> torch.Tensor:
    """Pillow resizes the rows (the columns that are seen), torch the columns: within one gray level, and faster than
    Pillow.

    Torch's coefficients are rounded more coarsely; in both directions one bicubic pixel in a million is two levels off.
    """
    top, left, height, width = crop.box
    target = crop.target or crop.resize
    first, last = max(0, crop.offset[1]), min(crop.resize[1], crop.offset[1] + target[1])
    scale = width / crop.resize[1]
    box = (first * scale, 0, min(width, last * scale), height)
    rows = Image.fromarray(np.ascontiguousarray(array[top : top + height, left : left + width]))
    rows = np.array(rows.resize((last - first, height), _PILLOW[crop.interpolation], box=box))
    rows = torch.from_numpy(rows).permute(2, 0, 1)[None]
    size = (crop.resize[0], last - first)
    pixels = interpolate(rows, size, mode=crop.interpolation, antialias=True)[0]
    return window(pixels, (crop.offset[0], min(0, crop.offset[1])), target, crop.fill)


def _planes(array: np.ndarray) -> torch.Tensor:
    """A copy of (H, W, C) as a tensor (C, H, W)."""
    return torch.from_numpy(np.array(array.transpose(2, 0, 1), order="C"))


def _resample_pillow(array: np.ndarray, crop: Crop) -> torch.Tensor:
    """Resize only what the target shows: Pillow's box argument gives the pixels that a full resize and a cut would."""
    top, left, height, width = crop.box
    rows, columns = crop.resize
    target = crop.target or crop.resize
    first = (max(0, crop.offset[0]), max(0, crop.offset[1]))
    last = (min(rows, crop.offset[0] + target[0]), min(columns, crop.offset[1] + target[1]))
    seen = (last[0] - first[0], last[1] - first[1])
    region = np.ascontiguousarray(array[top : top + height, left : left + width])
    scale = (height / rows, width / columns)
    box = (first[1] * scale[1], first[0] * scale[0], min(width, last[1] * scale[1]), min(height, last[0] * scale[0]))
    method = _PILLOW[crop.interpolation]
    channels = region.shape[2]
    if channels == 3:
        resized = np.array(Image.fromarray(region).resize((seen[1], seen[0]), method, box=box))
    else:
        planes = (Image.fromarray(np.ascontiguousarray(region[:, :, c])) for c in range(channels))
        resized = np.stack([np.asarray(plane.resize((seen[1], seen[0]), method, box=box)) for plane in planes], axis=2)
    pixels = _planes(resized)
    if seen == target:
        return pixels
    if (
        crop.fill is None
    ):  # reflection needs what lies beyond the visible part only when padding, then all of it is visible
        return window(pixels, (crop.offset[0] - first[0], crop.offset[1] - first[1]), target, None)
    return window(pixels, (min(crop.offset[0], 0), min(crop.offset[1], 0)), target, crop.fill)


def window(
    pixels: torch.Tensor, offset: tuple[int, int], target: tuple[int, int], fill: tuple[int, ...] | None
) -> torch.Tensor:
    """Cut (C, h, w) at `offset` out of (C, H, W); outside is `fill` (one value, or one a channel), or a reflection if
    None.
    """
    channels, rows, columns = pixels.shape
    top, left = offset
    if top >= 0 and top + target[0] <= rows and left >= 0 and left + target[1] <= columns:
        return pixels[:, top : top + target[0], left : left + target[1]]
    if fill is None:
        return pixels[:, _reflected(top, target[0], rows)][:, :, _reflected(left, target[1], columns)]
    values = fill if len(fill) == channels else (fill[0],) * channels
    result = torch.tensor(values, dtype=torch.uint8)[:, None, None].expand(channels, *target).contiguous()
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(rows, top + target[0]), min(columns, left + target[1])
    if y1 > y0 and x1 > x0:
        result[:, y0 - top : y1 - top, x0 - left : x1 - left] = pixels[:, y0:y1, x0:x1]
    return result


def _reflected(first: int, count: int, size: int) -> torch.Tensor:
    """Source positions of a run that may leave 0..size-1, reflected at the borders without repeating them."""
    if size == 1:
        return torch.zeros(count, dtype=torch.long)
    period = 2 * (size - 1)
    places = torch.arange(first, first + count).remainder(period)
    return torch.where(places < size, places, period - places)

"""Cut, resize and pad in one go: a `Crop` says what to take, `resample` takes it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch.nn.functional import interpolate

from . import compiled

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

    `engine` "torch" is torch's antialiased kernel where it has the filter; "pillow" is Pillow; "exact" gives Pillow's
    pixels, faster where it can.
    """
    top, left, height, width = crop.box
    region = array[top : top + height, left : left + width]
    if crop.resize == (height, width) and crop.interpolation != "nearest":
        pixels = _planes(region)
    elif engine == "torch" and crop.interpolation in _TORCH:
        region = np.ascontiguousarray(region)
        region = torch.from_numpy(region if region.flags.writeable else region.copy())
        pixels = interpolate(region.permute(2, 0, 1)[None], crop.resize, mode=crop.interpolation, antialias=True)[0]
    else:
        return _resample_seen(region, crop, engine)
    if crop.target is None:
        return pixels
    return window(pixels, crop.offset, crop.target, crop.fill)


def _resample_seen(region: np.ndarray, crop: Crop, engine: str) -> torch.Tensor:
    """Resize only what the target shows."""
    rows, columns = crop.resize
    target = crop.target or crop.resize
    start = (max(0, crop.offset[0]), max(0, crop.offset[1]))
    stop = (min(rows, crop.offset[0] + target[0]), min(columns, crop.offset[1] + target[1]))
    pixels = None if engine == "pillow" else compiled.resize(region, crop.resize, start, stop, crop.interpolation)
    if pixels is None:
        pixels = _resize_pillow(region, crop)[:, start[0] : stop[0], start[1] : stop[1]]
    return window(pixels, (min(0, crop.offset[0]), min(0, crop.offset[1])), target, crop.fill)


def _planes(array: np.ndarray) -> torch.Tensor:
    """A copy of (H, W, C) as a tensor (C, H, W)."""
    return torch.from_numpy(np.array(array.transpose(2, 0, 1), order="C"))


def _resize_pillow(region: np.ndarray, crop: Crop) -> torch.Tensor:
    """The whole region resized: Pillow's `box` rounds otherwise, and may resize in another order."""
    size, method = (crop.resize[1], crop.resize[0]), _PILLOW[crop.interpolation]
    region = np.ascontiguousarray(region)
    if region.shape[2] == 3:
        return _planes(np.array(Image.fromarray(region).resize(size, method)))
    planes = (Image.fromarray(np.ascontiguousarray(region[:, :, c])) for c in range(region.shape[2]))
    return torch.from_numpy(np.stack([np.array(plane.resize(size, method)) for plane in planes]))


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
    result = torch.tensor(values, dtype=torch.uint8, device="cpu")[:, None, None].expand(channels, *target).contiguous()
    y0, x0 = max(0, top), max(0, left)
    y1, x1 = min(rows, top + target[0]), min(columns, left + target[1])
    if y1 > y0 and x1 > x0:
        result[:, y0 - top : y1 - top, x0 - left : x1 - left] = pixels[:, y0:y1, x0:x1]
    return result


def _reflected(first: int, count: int, size: int) -> torch.Tensor:
    """Source positions of a run that may leave 0..size-1, reflected at the borders without repeating them."""
    if size == 1:
        return torch.zeros(count, dtype=torch.long, device="cpu")
    period = 2 * (size - 1)
    places = torch.arange(first, first + count, device="cpu").remainder(period)
    return torch.where(places < size, places, period - places)

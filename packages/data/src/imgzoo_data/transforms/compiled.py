"""Pillow's resize, compiled: the same two passes (along the rows, then the columns) with the same fixed-point weights.

Only what is seen is computed, and the result lies in planes, as networks want it. See `imgzoo.native` for where the
code is compiled; without a compiler `resize` says so by returning None, and Pillow does the work.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from imgzoo.native import code, library
from imgzoo_data.scratch import Scratch

BITS = 22  # of a weight's fraction, as in resize.c
SOURCE = code(__file__, "resize.c")
SHIPPED = Path(__file__).parents[1] / "compiled"
"""Where a wheel has it compiled."""
WIDTHS = range(6, 1 << 16)  # pixels: what is read past the end of a row must lie in the next; working memory has limits


def _box(x: np.ndarray) -> np.ndarray:
    return ((x > -0.5) & (x <= 0.5)).astype(np.float64)


def _bilinear(x: np.ndarray) -> np.ndarray:
    return np.maximum(0.0, 1 - np.abs(x))


def _bicubic(x: np.ndarray) -> np.ndarray:
    x = np.abs(x)
    near, far = (1.5 * x - 2.5) * x * x + 1, ((2.5 - 0.5 * x) * x - 4) * x + 2
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def _lanczos(x: np.ndarray) -> np.ndarray:
    return np.where((x >= -3) & (x < 3), np.sinc(x) * np.sinc(x / 3), 0.0)


FILTERS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], float]] = {  # the function, and where it ends
    "box": (_box, 0.5),
    "bilinear": (_bilinear, 1.0),
    "bicubic": (_bicubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}


class Taps(NamedTuple):
    """What each output position reads of a row: `count` pixels from `first`, times `weights` (positions, most)."""

    first: np.ndarray
    count: np.ndarray
    weights: np.ndarray


@functools.lru_cache(256)
def taps(size: int, length: int, start: int, stop: int, interpolation: str) -> Taps:
    """The taps of positions `start` to `stop` of a row of `size` pixels that is resized to `length`."""
    function, support = FILTERS[interpolation]
    scale = size / length
    wide = max(scale, 1.0)
    center = (np.arange(start, stop) + 0.5) * scale
    first = np.maximum((center - support * wide + 0.5).astype(np.int64), 0)
    count = np.minimum((center + support * wide + 0.5).astype(np.int64), size) - first
    place = np.arange(int(count.max()))
    exact = function((place + first[:, None] - center[:, None] + 0.5) * (1 / wide))
    exact = np.where(place < count[:, None], exact, 0.0)
    exact *= (1 << BITS) / exact.sum(1, keepdims=True)
    weights = np.trunc(exact + np.where(exact < 0, -0.5, 0.5)).astype(np.int32)
    return Taps(first.astype(np.int32), count.astype(np.int32), weights)


_scratch = Scratch()


@functools.cache
def _compiled() -> Any:
    found = library(SOURCE, SHIPPED)
    if found is None:
        return None
    pointer, number = ctypes.c_void_p, ctypes.c_long
    found.resize.argtypes = [
        *(pointer, number, number, number, number, pointer),
        *(number, number, pointer, pointer, pointer),
        *(number, number, pointer, pointer, pointer, pointer),
    ]
    found.resize.restype = None
    return found.resize


def columns_first(source: tuple[int, int], size: tuple[int, int]) -> bool:
    """Whether Pillow (since 13) resizes the columns before the rows, from one (height, width) to another."""
    return size[0] < source[0] and 2 * (source[1] - size[1]) < source[0] - size[0]


def resize(
    array: np.ndarray, size: tuple[int, int], start: tuple[int, int], stop: tuple[int, int], interpolation: str
) -> torch.Tensor | None:
    """The part from `start` to `stop` of `array` (H, W, 3) uint8 resized to `size` (height, width): (3, h, w) uint8.

    None where it is not for this loop: without a compiler, for other filters and numbers of channels, and where Pillow
    resizes the columns first, which rounds otherwise.
    """
    height, width, channels = array.shape
    ours = channels == 3 and width in WIDTHS and interpolation in FILTERS
    function = _compiled() if ours and not columns_first((height, width), size) else None
    if function is None:
        return None
    if array.strides[1:] != (3, 1) or array.strides[0] < 0:
        array = np.ascontiguousarray(array)
    x = taps(width, size[1], start[1], stop[1], interpolation)
    y = taps(height, size[0], start[0], stop[0], interpolation)
    top, bottom = int(y.first.min()), int((y.first + y.count).max())
    rows, columns = stop[0] - start[0], stop[1] - start[1]
    result = torch.empty((3, rows, columns), dtype=torch.uint8, device="cpu")
    room = _scratch.of(3 * width + 128 + 64 * (width + 4) + (bottom - top) * 4 * (columns + 8)).ctypes.data
    across = (columns, x.weights.shape[1], *(part.ctypes.data for part in x))
    down = (rows, y.weights.shape[1], *(part.ctypes.data for part in y))
    function(array.ctypes.data, array.strides[0], width, top, bottom, room, *across, *down, result.data_ptr())
    return result

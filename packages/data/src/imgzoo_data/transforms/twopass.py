"""Pillow's resize, compiled: the same two passes (along the rows, then the columns) with the same fixed-point weights.

Only what is seen is computed, and the result lies in planes, as networks want it. See `imgzoo.native` for where the
code is compiled; without a compiler `resize` says so by returning None, and Pillow does the work.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch

from imgzoo.native import library
from imgzoo_data.scratch import Scratch

BITS = 22  # of a weight's fraction
SOURCE = (
    f"#define BITS {BITS}"
    + r"""
#include <stdint.h>
#include <string.h>
#define ROWS 4    /* resized at once */
#define WIDE 8    /* pixels of a column step; scratch rows are padded to it */
#define HALF (1 << (BITS - 1))
typedef int v4 __attribute__((vector_size(16), may_alias));
typedef int v8 __attribute__((vector_size(32), may_alias));
typedef uint8_t b4 __attribute__((vector_size(4)));
typedef uint8_t b8 __attribute__((vector_size(8)));
typedef uint8_t b16 __attribute__((vector_size(16)));

static inline b8 levels(v8 x) {
    x >>= BITS;
    x &= ~(x >> 31);
    v8 over = x > 255;
    return __builtin_convertvector((x & ~over) | (over & 255), b8);
}

/* four pixels of three bytes each, widened to four integers a pixel, `ROWS` apart */
static inline void widen(const uint8_t *in, v4 *out) {
    b16 x;
    memcpy(&x, in, 16);
    x = __builtin_shufflevector(x, x, 0, 1, 2, 2, 3, 4, 5, 5, 6, 7, 8, 8, 9, 10, 11, 11);
    b4 pixel[4];
    memcpy(pixel, &x, 16);
    for (int k = 0; k < 4; k++) out[ROWS * k] = __builtin_convertvector(pixel[k], v4);
}

static void along_rows(const uint8_t *const *in, uint8_t *const *out, v4 *wide, long columns, long taps,
                       const int *first, const int *count, const int *weights) {
    const long from = first[0], to = first[columns - 1] + count[columns - 1];
    for (int r = 0; r < ROWS; r++)
        for (long x = from; x < to; x += 4) widen(in[r] + 3 * x, wide + ROWS * (x - from) + r);
    for (long x = 0; x < columns; x++) {
        const int *w = weights + x * taps, n = count[x];
        const v8 *p = (const v8 *)(wide + ROWS * (first[x] - from));
        v8 a = (v8){} + HALF, b = a;
        for (int k = 0; k < n; k++) { a += p[2 * k] * w[k]; b += p[2 * k + 1] * w[k]; }
        const b8 two[2] = {levels(a), levels(b)};
        for (int r = 0; r < ROWS; r++) memcpy(out[r] + 4 * x, (const uint8_t *)two + 4 * r, 4);
    }
}

static void along_columns(const uint8_t *in, long stride, uint8_t *out, long plane, long columns, int n, const int *w) {
    for (long x = 0; x < columns; x += WIDE) {
        int sum[4 * WIDE];
        uint8_t done[4 * WIDE];
        for (int i = 0; i < 4 * WIDE; i++) sum[i] = HALF;
        for (int k = 0; k < n; k++)
            for (int i = 0; i < 4 * WIDE; i++) sum[i] += in[k * stride + 4 * x + i] * w[k];
        for (int i = 0; i < 4 * WIDE; i++) { int s = sum[i] >> BITS; done[i] = s < 0 ? 0 : s > 255 ? 255 : s; }
        const int here = columns - x < WIDE ? columns - x : WIDE;
        for (int c = 0; c < 3; c++)
            for (int i = 0; i < here; i++) out[c * plane + x + i] = done[4 * i + c];
    }
}

/* `scratch` holds, each on a multiple of 64 bytes: a padded copy of the last row, widened pixels, resized rows */
void resize(const uint8_t *in, long stride, long width, long top, long bottom, uint8_t *scratch,
            long columns, long xtaps, const int *xfirst, const int *xcount, const int *xweights,
            long rows, long ytaps, const int *yfirst, const int *ycount, const int *yweights, uint8_t *out) {
    const long line = 4 * ((columns + WIDE - 1) / WIDE * WIDE);
    uint8_t *last = scratch;
    v4 *wide = (v4 *)(last + (3 * width + 16 + 63) / 64 * 64);
    uint8_t *resized = (uint8_t *)(wide + ROWS * (width + 4));
    memcpy(last, in + (bottom - 1) * stride, 3 * width);
    for (long y = top; y < bottom; y += ROWS) {
        const uint8_t *from[ROWS];
        uint8_t *to[ROWS];
        for (int r = 0; r < ROWS; r++) {
            const long row = y + r < bottom - 1 ? y + r : bottom - 1;
            from[r] = row < bottom - 1 ? in + row * stride : last;
            to[r] = resized + (row - top) * line;
        }
        along_rows(from, to, wide, columns, xtaps, xfirst, xcount, xweights);
    }
    for (long y = 0; y < rows; y++)
        along_columns(resized + (yfirst[y] - top) * line, line, out + y * columns, rows * columns, columns, ycount[y],
                      yweights + y * ytaps);
}
"""
)
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
    found = library(SOURCE)
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
    result = torch.empty((3, rows, columns), dtype=torch.uint8)
    room = _scratch.of(3 * width + 128 + 64 * (width + 4) + (bottom - top) * 4 * (columns + 8)).ctypes.data
    across = (columns, x.weights.shape[1], *(part.ctypes.data for part in x))
    down = (rows, y.weights.shape[1], *(part.ctypes.data for part in y))
    function(array.ctypes.data, array.strides[0], width, top, bottom, room, *across, *down, result.data_ptr())
    return result

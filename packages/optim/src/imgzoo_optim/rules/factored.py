"""Second moments of a matrix as the outer product of those of its rows and columns (1804.04235, section 3)."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from imgzoo.native import library
from imgzoo_optim import foreach, kernels
from imgzoo_optim.base import BLOCK, BLOCK_ELSEWHERE

SOURCE = """
#include <math.h>
/* One tensor (rows, columns, inner): P parameter, G gradient, R (rows, inner) and C (columns, inner) the moments.
   Q: room for (columns + 3 * 64) * inner. A row is walked in strips of inner * lanes, a whole number of columns, so
   that what depends on the row repeats from strip to strip. */
void step(float *restrict P, const float *restrict G, float *restrict R, float *restrict C, float *restrict Q,
          long rows, long columns, long inner, float weight, float eps, float clip, float shrink, float rate) {
    const long lanes = columns >= 512 ? 64 : columns >= 128 ? 16 : 8;
    const long row = columns * inner, strip = inner * lanes, full = row / strip * strip;
    float *restrict sums = Q + row, *restrict factor = sums + strip, *restrict means = factor + strip;
    for (long j = 0; j < row; j++) Q[j] = 0.0f;
    for (long a = 0; a < rows; a++) {
        const float *restrict g = G + a * row;
        for (long w = 0; w < strip; w++) sums[w] = 0.0f;
        for (long from = 0; from < full; from += strip)
            for (long w = 0; w < strip; w++) { float s = g[from + w] * g[from + w]; Q[from + w] += s; sums[w] += s; }
        for (long j = full; j < row; j++) { float s = g[j] * g[j]; Q[j] += s; sums[j - full] += s; }
        for (long k = 0; k < inner; k++) {
            float s = 0.0f;
            for (long m = 0; m < lanes; m++) s += sums[m * inner + k];
            R[a * inner + k] += weight * (s / columns + eps - R[a * inner + k]);
        }
    }
    for (long k = 0; k < inner; k++) {
        double s = 0.0;
        for (long a = 0; a < rows; a++) s += R[a * inner + k];
        means[k] = s / rows;
    }
    for (long j = 0; j < row; j++) {
        C[j] += weight * (Q[j] / rows + eps - C[j]);
        Q[j] = 1.0f / sqrtf(C[j]);
    }
    double square = 0.0;
    for (int pass = 0; pass < 2; pass++) {
        const float scale = rate / fmaxf(1.0f, (float)sqrt(square / ((double)rows * row)) / clip);
        for (long a = 0; a < rows; a++) {
            const float *restrict g = G + a * row;
            float *restrict p = P + a * row;
            for (long k = 0; k < inner; k++) {
                const float f = 1.0f / sqrtf(R[a * inner + k] / means[k]);
                for (long m = 0; m < lanes; m++) factor[m * inner + k] = f;
            }
            for (long w = 0; w < strip; w++) sums[w] = 0.0f;
            if (pass) {
                for (long from = 0; from < full; from += strip)
                    for (long w = 0; w < strip; w++)
                        p[from + w] = p[from + w] * shrink - g[from + w] * factor[w] * Q[from + w] * scale;
                for (long j = full; j < row; j++) p[j] = p[j] * shrink - g[j] * factor[j - full] * Q[j] * scale;
                continue;
            }
            for (long from = 0; from < full; from += strip)
                for (long w = 0; w < strip; w++) {
                    float u = g[from + w] * factor[w] * Q[from + w];
                    sums[w] += u * u;
                }
            for (long j = full; j < row; j++) { float u = g[j] * factor[j - full] * Q[j]; square += (double)u * u; }
            for (long w = 0; w < strip; w++) square += sums[w];
        }
    }
}
"""


@functools.cache
def compiled_step() -> Any:
    """The whole factored step of one tensor as a function (see `SOURCE`), or None without a compiler."""
    found = library(SOURCE)
    if found is None:
        return None
    found.step.argtypes = [*[ctypes.c_void_p] * 5, *[ctypes.c_long] * 3, *[ctypes.c_float] * 5]
    found.step.restype = None
    return found.step


def run_compiled(
    rows: Sequence[tuple[list[Tensor], float]], weight: float, eps: float, clip: float, decay: float
) -> None:
    """Step tensors (parameter, gradient, row and column moments) at their rates, shared among torch's threads."""
    threads = min(torch.get_num_threads(), len(rows))
    shares: list[list[int]] = [[] for _ in range(threads)]
    sizes = [0] * threads
    for i in sorted(range(len(rows)), key=lambda i: -rows[i][0][0].numel()):
        least = sizes.index(min(sizes))
        shares[least].append(i)
        sizes[least] += rows[i][0][0].numel()
    function = compiled_step()

    def work(k: int) -> None:
        for i in shares[k]:
            tensors, rate = rows[i]
            count, columns, *inner = tensors[0].shape
            area = torch.Size(inner).numel()
            room = torch.empty((columns + 3 * 64) * area)
            pointers = [x.data_ptr() for x in (*tensors, room)]
            function(*pointers, count, columns, area, weight, eps, clip, 1 - decay * rate, rate)

    kernels.share(work, threads)


def pieces(x: Tensor) -> list[Tensor]:
    """Views of `x` along its first axis, small enough to stay in cache."""
    limit = BLOCK.get(x.device.type, BLOCK_ELSEWHERE)
    if x.ndim == 0 or x.numel() <= limit:
        return [x]
    return list(x.split(-(-len(x) // -(-x.numel() // limit))))


def mean_squares(grad: Tensor, rows: int, columns: int, eps: float) -> tuple[Tensor, Tensor]:
    """Means of `grad^2 + eps` over axis `columns` and over axis `rows`, both with the axis kept."""
    by_row: list[Tensor] = []
    by_column: list[Tensor] = []
    for piece in pieces(grad):
        square = piece * piece
        by_row.append(square.mean(columns, keepdim=True) if columns else square.sum(0, keepdim=True))
        by_column.append(square.mean(rows, keepdim=True) if rows else square.sum(0, keepdim=True))

    def join(parts: list[Tensor], axis: int) -> Tensor:
        if axis:
            return torch.cat(parts)
        return torch.cat(parts).sum(0, keepdim=True).div_(len(grad))

    return join(by_row, columns).add_(eps), join(by_column, rows).add_(eps)


def factored_step(grad: Tensor, by_row: Tensor, by_column: Tensor, rows: int) -> list[Tensor]:
    """`grad / sqrt(outer(by_row, by_column) / mean(by_row))`, in pieces along the first axis."""
    row_factor = (by_row / by_row.mean(rows, keepdim=True)).rsqrt_()
    column_factor = by_column.rsqrt()
    steps = []
    start = 0
    for piece in pieces(grad):
        part = slice(start, start + len(piece))
        step = piece * (row_factor if len(row_factor) == 1 else row_factor[part])
        steps.append(step.mul_(column_factor if len(column_factor) == 1 else column_factor[part]))
        start += len(piece)
    return steps


def clip_rms_(steps: list[Tensor], limit: float) -> None:
    """Scale a tensor, given in pieces, so that its root mean square is at most `limit`."""
    count = sum(step.numel() for step in steps)
    norm = torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(step) for step in steps]))
    factor = (norm / (count**0.5 * limit)).clamp_(min=1.0).reciprocal_()
    foreach.mul_(steps, factor)

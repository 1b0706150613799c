"""Second moments of a matrix as the outer product of those of its rows and columns (1804.04235, section 3)."""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from imgzoo.native import code, library
from imgzoo_optim import foreach, kernels
from imgzoo_optim.base import BLOCK, BLOCK_ELSEWHERE

SOURCE = code(__file__, "factored.c")


@functools.cache
def compiled_step() -> Any:
    """The whole factored step of one tensor as a function (see `SOURCE`), or None without a compiler."""
    found = library(SOURCE, kernels.SHIPPED)
    if found is None:
        return None
    found.step.argtypes = [*[ctypes.c_void_p] * 5, *[ctypes.c_long] * 3, *[ctypes.c_float] * 5]
    found.step.restype = None
    return found.step


def run_compiled(
    rows: Sequence[tuple[list[Tensor], float]], weight: float, eps: float, clip: float, decay: float
) -> None:
    """Step tensors (parameter, gradient, row and column moments) at their rates, shared among torch's threads."""
    largest_first = sorted(rows, key=lambda row: -row[0][0].numel())
    function = compiled_step()

    def work(k: int) -> None:
        tensors, rate = largest_first[k]
        count, columns, *inner = tensors[0].shape
        area = torch.Size(inner).numel()
        room = torch.empty((columns + 3 * 64) * area, device="cpu")
        pointers = [x.data_ptr() for x in (*tensors, room)]
        function(*pointers, count, columns, area, weight, eps, clip, 1 - decay * rate, rate)

    kernels.share(work, len(rows), min(torch.get_num_threads(), len(rows)))


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

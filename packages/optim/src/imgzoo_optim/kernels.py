"""Update rules as compiled loops: one pass over memory instead of one an operation, on CPU and float32.

A rule states its arithmetic once more as a few lines of C (see `imgzoo.native`). Without a compiler, or for other
devices and precisions, the rule's tensor operations do the same work.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imgzoo.native import library

from .kernel import Kernel

SHIPPED = Path(__file__).with_name("compiled")
"""Where a wheel has the loops compiled."""


@functools.cache
def compiled(kernel: Kernel, applies: bool) -> Any:
    """A rule's loop as a function, or None."""
    found = library(kernel.source(applies), SHIPPED)
    if found is None:
        return None
    found.run.argtypes = [ctypes.c_long, *[ctypes.c_void_p] * 4, ctypes.c_long, ctypes.c_long]
    found.run.restype = None
    return found.run


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "imgzoo-optim")


def share(work: Callable[[int], None], threads: int) -> None:
    """Run `work(0)` to `work(threads - 1)` at once; the first here."""
    others = [_pool(torch.get_num_threads()).submit(work, k) for k in range(1, threads)]
    work(0)
    for other in others:
        other.result()


def fits(columns: Sequence[Sequence[Tensor]]) -> bool:
    """Whether parallel lists of tensors are float32 on CPU with one dense layout a tensor."""
    for row in zip(*columns):
        first = row[0]
        if first.device.type != "cpu" or not all(x.dtype == torch.float32 for x in row):
            return False
        if all(x.is_contiguous() for x in row):
            continue
        stride = first.stride()
        dense = first.ndim == 4 and first.is_contiguous(memory_format=torch.channels_last)
        if not dense or any(x.stride() != stride for x in row):
            return False
    return True


def run(
    function: Any,
    columns: Sequence[Sequence[Tensor]],
    constants: Sequence[float],
    factors: Sequence[float] | None = None,
) -> None:
    """Run a compiled loop over parallel lists of tensors, shared evenly among torch's threads."""
    rows = list(zip(*columns))
    pointers = (ctypes.c_void_p * (len(rows) * len(columns)))(*[x.data_ptr() for row in rows for x in row])
    sizes = (ctypes.c_long * len(rows))(*[row[0].numel() for row in rows])
    numbers = (ctypes.c_float * len(constants))(*constants)
    each = (ctypes.c_float * len(rows))(*factors) if factors is not None else None
    total = sum(sizes)
    threads = min(torch.get_num_threads(), max(1, total // (1 << 15)))
    bounds = [total * k // threads for k in range(threads + 1)]

    def work(k: int) -> None:
        function(len(rows), pointers, sizes, each, numbers, bounds[k], bounds[k + 1])

    share(work, threads)

"""Update rules as compiled loops: one pass over memory instead of one an operation, in float32, on CPU and CUDA.

A rule states its arithmetic once more as a few lines of C (see `imgzoo.native`; `cuda` for a GPU). Without a compiler,
or for other devices and precisions, the rule's tensor operations do the same work.
"""

from __future__ import annotations

import ctypes
import functools
import operator
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imgzoo.native import library

from . import foreach
from .kernel import Kernel

SHIPPED = Path(__file__).with_name("compiled")
"""Where a wheel has the loops compiled."""
DTYPE = operator.attrgetter("dtype")


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


Columns = Sequence[Sequence[Tensor]]
Run = Callable[[Columns, Sequence[Any], Sequence[float] | Tensor | None], None]
"""A loop over parallel lists of tensors, with a rule's constants and a factor for each tensor."""


def loop(kernel: Kernel, applies: bool, columns: Columns) -> Run | None:
    """A rule's loop for these tensors, or None where the rule's tensor operations have to do."""
    device = columns[0][0].device
    if device.type not in ("cpu", "cuda") or not fits(columns):
        return None
    if device.type == "cpu":
        function = compiled(kernel, applies)
        return function and functools.partial(run, function)
    from . import cuda

    launched = cuda.compiled(kernel, applies, device.index)
    return launched and functools.partial(cuda.run, launched)


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of each tensor (N,), on the first one's device."""
    device = tensors[0].device
    if device.type == "cuda" and not torch.compiler.is_compiling() and fits([tensors]):
        from . import cuda

        kernel = cuda.built(cuda.SQUARES, device.index)
        if kernel is not None:
            return cuda.norms(kernel, tensors)
    return torch.stack([norm.to(device) for norm in foreach.norm(tensors)])


def fits(columns: Columns) -> bool:
    """Whether parallel lists of tensors are float32 on one device with one dense layout a tensor."""
    tensors = [x for column in columns for x in column]
    if set(map(DTYPE, tensors)) != {torch.float32} or len(set(map(Tensor.get_device, tensors))) > 1:
        return False
    if all(map(Tensor.is_contiguous, tensors)):
        return True
    for row in zip(*columns):
        if all(map(Tensor.is_contiguous, row)):
            continue
        first, stride = row[0], row[0].stride()
        dense = first.ndim == 4 and first.is_contiguous(memory_format=torch.channels_last)
        if not dense or any(x.stride() != stride for x in row):
            return False
    return True


def run(
    function: Any, columns: Columns, constants: Sequence[Any], factors: Sequence[float] | Tensor | None = None
) -> None:
    """Run a compiled loop over parallel lists of tensors, shared evenly among torch's threads."""
    count = len(columns[0])
    addresses = (ctypes.c_void_p * (count * len(columns)))(*foreach.pointers(columns))
    sizes = (ctypes.c_long * count)(*map(Tensor.numel, columns[0]))
    numbers = (ctypes.c_float * len(constants))(*map(float, constants))
    factors = factors.tolist() if isinstance(factors, Tensor) else factors
    each = (ctypes.c_float * count)(*factors) if factors is not None else None
    total = sum(sizes)
    threads = min(torch.get_num_threads(), max(1, total // (1 << 15)))
    bounds = [total * k // threads for k in range(threads + 1)]

    def work(k: int) -> None:
        function(count, addresses, sizes, each, numbers, bounds[k], bounds[k + 1])

    share(work, threads)

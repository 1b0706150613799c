"""Update rules as compiled loops: one pass over memory instead of one an operation, in float32, on CPU and CUDA.

A rule states its arithmetic once more as a few lines of C (see `imgzoo.native`; `cuda` for a GPU). Without a compiler,
or for other devices and precisions, the rule's tensor operations do the same work.
"""

from __future__ import annotations

import ctypes
import functools
import operator
from collections import deque
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
PART = 1 << 19
"""Elements that a thread takes at once."""
SUMS = 5
"""Numbers of a row between the passes of `rows.c`: the sums p g, p p, g g, p u and u u."""


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
def two_passes(kernel: Kernel) -> tuple[Any, Any] | None:
    """A rule's form in two passes (see `rows.c`) as two functions, or None."""
    found = library(kernel.rows(), SHIPPED) if kernel.step else None
    if found is None:
        return None
    for function in (found.measure, found.move):
        function.argtypes = [ctypes.c_long, *[ctypes.c_void_p] * 5, ctypes.c_long, ctypes.c_long]
        function.restype = None
    return found.measure, found.move


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, "imgzoo-optim")


def share(work: Callable[[int], None], count: int, threads: int) -> None:
    """Run `work(0)` to `work(count - 1)` by so many threads, this one among them; each takes the next that is left.

    Nobody waits for a thread that a busy processor starts late: torch's own spin for a while after their work.
    """
    left = deque(range(count))

    def take() -> None:
        while left:
            try:
                k = left.popleft()
            except IndexError:  # another took the last one
                return
            work(k)

    others = [_pool(torch.get_num_threads()).submit(take) for _ in range(1, threads)]
    take()
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
    """Run a compiled loop over parallel lists of tensors."""
    factors = factors.tolist() if isinstance(factors, Tensor) else factors
    each = (ctypes.c_float * len(factors))(*factors) if factors is not None else None
    _share(function, columns, each, _floats(constants))


def run_rows(
    functions: tuple[Any, Any],
    columns: Columns,
    lengths: Sequence[int],
    constants: Sequence[Any],
    weigh: Callable[[list[Tensor]], Tensor],
) -> None:
    """Make the steps of parallel lists of tensors in two passes; a row of tensor `t` is `lengths[t]` of its elements.

    Between them `weigh` is given the sums of each tensor (rows, `SUMS`) in float64, and answers what `move` needs of
    every row of all of them (rows, 3).
    """
    measure, move = functions
    counts = [-(-p.numel() // length) for p, length in zip(columns[0], lengths)]
    each, numbers = (ctypes.c_long * len(lengths))(*lengths), _floats(constants)
    sums = torch.empty(sum(counts), SUMS, dtype=torch.float64, device="cpu")
    _share(measure, columns, each, numbers, sums.data_ptr())
    factors = weigh(list(sums.split(counts))).to(torch.float32).contiguous()
    _share(move, columns, each, numbers, factors.data_ptr())


def _floats(values: Sequence[Any]) -> Any:
    return (ctypes.c_float * len(values))(*map(float, values))


def _share(function: Any, columns: Columns, *arguments: Any) -> None:
    """Call C code over parallel lists of tensors, shared evenly among torch's threads."""
    count = len(columns[0])
    addresses = (ctypes.c_void_p * (count * len(columns)))(*foreach.pointers(columns))
    sizes = (ctypes.c_long * count)(*map(Tensor.numel, columns[0]))
    total = sum(sizes)
    threads = min(torch.get_num_threads(), max(1, total // (1 << 15)))
    parts = max(threads, total // PART) if threads > 1 else 1
    bounds = [total * k // parts for k in range(parts + 1)]

    def work(k: int) -> None:
        function(count, addresses, sizes, *arguments, bounds[k], bounds[k + 1])

    share(work, parts, threads)

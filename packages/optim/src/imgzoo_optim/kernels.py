"""Update rules as compiled loops: one pass over memory instead of one an operation, on CPU and float32.

A rule states its arithmetic once more as a few lines of C (see `imgzoo.native`). Without a compiler, or for other
devices and precisions, the rule's tensor operations do the same work.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import torch
from torch import Tensor

from imgzoo.native import code, library

COMMON = ("sign", "l2", "shrink", "rate", "last")
"""Constants every loop has: gradient's sign, L2 decay, decoupled decay and whether it comes last, learning rate."""
LOOP = code(__file__, "loop.c")
APPLY = "P[i] = K[4] != 0.0f ? (p - K[3] * u) * K[2] : p * K[2] - K[3] * u;"
RETURN = "U[i] = u;"


class Kernel(NamedTuple):
    """A rule's arithmetic: from `p`, `g`, its state, its constants and the tensor's `factor` to the step `u`."""

    state: tuple[str, ...]
    constants: tuple[str, ...]
    body: str

    def source(self, applies: bool) -> str:
        """The C code; it writes the parameter, or returns the step."""
        names = [*self.state, *(() if applies else ("U",))]
        arrays = [name if name == "U" else f"S_{name}" for name in names]
        opened = [f"float *restrict {array} = row[{2 + k}];" for k, array in enumerate(arrays)]
        opened += [f"const float {name} = K[{len(COMMON) + k}];" for k, name in enumerate(self.constants)]
        macros = {
            "COLUMNS": 2 + len(names),
            "OPEN": " ".join(opened),
            "LOAD": " ".join(f"float {name} = S_{name}[i];" for name in self.state),
            "BODY": self.body,
            "STORE": " ".join(f"S_{name}[i] = {name};" for name in self.state),
            "FINISH": APPLY if applies else RETURN,
        }
        return "".join(f"#define {name} {text}\n" for name, text in macros.items()) + LOOP


@functools.cache
def compiled(kernel: Kernel, applies: bool) -> Any:
    """A rule's loop as a function, or None."""
    found = library(kernel.source(applies))
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

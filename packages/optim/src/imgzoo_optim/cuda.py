"""The loops of `kernels` on a CUDA device: one launch for all tensors, where operations on lists take a dozen.

NVRTC, which torch brings, compiles the rule's lines. The host never waits: what a step needs is copied from pinned
memory, and factors and constants may be tensors of the device.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from imgzoo.native import code

from . import foreach
from .kernel import Kernel

LOOP, SQUARES = code(__file__, "loop.cu"), code(__file__, "squares.cu")
CHUNK = 1 << 14
"""Elements that one block of threads goes through."""
THREADS = 512
TABLES = 64
"""Tables of tensors that stay on the device: a step mostly meets those of the step before."""


def built(source: str, device: int) -> Any:
    """A text as a kernel of a device, or None; none while a graph is captured, which would keep a step's constants."""
    return None if torch.cuda.is_current_stream_capturing() else _built(source, device)


@functools.cache
def _built(source: str, device: int) -> Any:
    compiler = getattr(torch.cuda, "_compile_kernel", None)
    if compiler is None or torch.version.cuda is None or os.environ.get("IMGZOO_KERNELS") == "0":
        return None
    try:
        with torch.cuda.device(device):
            return compiler(f"#define CHUNK {CHUNK}\n#define THREADS {THREADS}\n{source}", "run")
    except (RuntimeError, OSError):  # no NVRTC, or one that does not know the device
        return None


def compiled(kernel: Kernel, applies: bool, device: int) -> Any:
    """A rule's loop as a kernel of a device, or None."""
    return built(_text(kernel, applies), device)


@functools.cache
def _text(kernel: Kernel, applies: bool) -> str:
    return kernel.source(applies, LOOP)


def chunks_of(sizes: Sequence[int]) -> np.ndarray:
    """For each block of threads the number of a tensor and that of a chunk in it."""
    counts = -(-np.array(sizes, np.int64) // CHUNK)
    owners = np.repeat(np.arange(len(sizes)), counts)
    places = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([owners, places], 1).astype(np.int32)


@functools.lru_cache(maxsize=TABLES)
def _table(device: torch.device, stream: int, pointers: tuple[int, ...], sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Pointers, sizes, chunks, and how many chunks each tensor has, on the device."""
    chunks = chunks_of(sizes)
    counts = np.bincount(chunks[:, 0], minlength=len(sizes))
    arrays = np.array(pointers, np.int64), np.array(sizes, np.int64), chunks, counts.astype(np.int64)
    return tuple(torch.from_numpy(array).pin_memory().to(device, non_blocking=True) for array in arrays)


def run(
    kernel: Any, columns: Sequence[Sequence[Tensor]], constants: Sequence[Any], factors: Sequence[float] | Tensor | None
) -> None:
    """Run a compiled kernel over parallel lists of tensors of one device."""
    device = columns[0][0].device
    sizes = tuple(map(Tensor.numel, columns[0]))
    if not any(sizes):
        return
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream()
        tensors, lengths, chunks, _ = _table(device, stream.cuda_stream, tuple(foreach.pointers(columns)), sizes)
        numbers = _floats([0.0 if isinstance(x, Tensor) else x for x in constants], device)
        for place, constant in enumerate(constants):
            if isinstance(constant, Tensor):
                numbers[place].copy_(constant)
        if factors is not None and not isinstance(factors, Tensor):
            factors = _floats(factors, device)
        each = numbers if factors is None else factors
        arguments = [tensors, lengths, chunks, each, numbers, int(factors is not None)]
        kernel((len(chunks), 1, 1), (THREADS, 1, 1), arguments, stream=stream)


def norms(kernel: Any, tensors: Sequence[Tensor]) -> Tensor:
    """Euclidean norm of each tensor (N,), by `SQUARES` as it was built."""
    device = tensors[0].device
    sizes = tuple(map(Tensor.numel, tensors))
    with torch.cuda.device(device):
        stream = torch.cuda.current_stream()
        *table, counts = _table(device, stream.cuda_stream, tuple(foreach.pointers([tensors])), sizes)
        sums = torch.empty(len(table[-1]), device=device)
        if any(sizes):
            kernel((len(sums), 1, 1), (THREADS, 1, 1), [*table, sums], stream=stream)
        return torch.segment_reduce(sums, "sum", lengths=counts, unsafe=True).sqrt_()


def _floats(values: Sequence[float], device: torch.device) -> Tensor:
    return torch.tensor(values, dtype=torch.float32, pin_memory=True).to(device, non_blocking=True)

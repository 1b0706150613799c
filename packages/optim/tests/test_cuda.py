"""The loop of a CUDA device, run by a CPU: a C++ compiler reads the same text, a block and a thread at a time."""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from imgzoo.registry import registry
from imgzoo_optim import cuda, kernels
from imgzoo_optim.kernel import Kernel

COMPILER = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
AROUND = """
#include <cmath>
#define __device__
#define __global__
struct Place { int x; };
static Place blockIdx, threadIdx, blockDim;
%s
extern "C" void grid(int blocks, int threads, float **tensors, const long long *sizes, const int *chunks,
                     const float *factors, const float *K, int scaled) {
    blockDim.x = threads;
    for (blockIdx.x = 0; blockIdx.x < blocks; blockIdx.x++)
        for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++)
            run(tensors, sizes, chunks, factors, K, scaled);
}
"""
RULES = {
    kernel: name
    for name in registry("optimizers").names()
    if not name.startswith(("bnb", "fused", "apex"))
    and (kernel := getattr(registry("optimizers").resolve(name).load(), "kernel", None))
}
SIZES = (1, 7, cuda.CHUNK, cuda.CHUNK + 1, 0, 3 * cuda.CHUNK - 5)


def test_every_element_has_one_thread() -> None:
    chunks = cuda.chunks_of(SIZES)
    for number, size in enumerate(SIZES):
        places = chunks[chunks[:, 0] == number, 1]
        assert [*places] == [*range(-(-size // cuda.CHUNK))]
    assert [*chunks[:, 0]] == sorted(chunks[:, 0])


@pytest.mark.skipif(COMPILER is None, reason="needs a C++ compiler")
@pytest.mark.parametrize("scaled", [False, True], ids=["plain", "scaled"])
@pytest.mark.parametrize("applies", [True, False], ids=["applied", "returned"])
@pytest.mark.parametrize("kernel", RULES, ids=RULES.values())
def test_the_loop_of_a_gpu_is_that_of_the_cpu(kernel: Kernel, applies: bool, scaled: bool, tmp_path: Path) -> None:
    text, built = tmp_path / "grid.cc", tmp_path / "grid.so"
    text.write_text(AROUND % f"#define CHUNK {cuda.CHUNK}\n{kernel.source(applies, cuda.LOOP)}", encoding="utf-8")
    subprocess.run([str(COMPILER), "-O1", "-shared", "-fPIC", str(text), "-o", str(built)], check=True)
    grid = ctypes.CDLL(str(built)).grid
    columns = 2 + len(kernel.state) + (not applies)
    generator = torch.Generator().manual_seed(0)
    rows = [[torch.rand(size, generator=generator) + 0.1 for _ in range(columns)] for size in SIZES]
    truth = [[x.clone() for x in row] for row in rows]
    constants = [1.0, 0.01, 0.99, 0.1, 1.0, *(0.1 * (k + 1) for k in range(len(kernel.constants)))]
    factors = [0.5 + number for number in range(len(SIZES))] if scaled else None

    pointers = (ctypes.c_void_p * (len(rows) * columns))(*[x.data_ptr() for row in rows for x in row])
    sizes, chunks = np.array(SIZES, np.int64), cuda.chunks_of(SIZES)
    each = (ctypes.c_float * len(SIZES))(*(factors or [float("nan")] * len(SIZES)))
    numbers = (ctypes.c_float * len(constants))(*constants)
    arrays = (ctypes.c_void_p(array.ctypes.data) for array in (sizes, chunks))
    grid(len(chunks), cuda.THREADS, pointers, *arrays, each, numbers, int(scaled))

    function = kernels.compiled(kernel, applies)
    if function is None:
        pytest.skip("needs a C compiler, or IMGZOO_KERNELS is 0")
    kernels.run(function, [*zip(*truth)], constants, factors)
    for row, right in zip(rows, truth):
        for found, wanted in zip(row, right):
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)

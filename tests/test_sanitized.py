"""The C kernels under the address and undefined-behavior sanitizers, on hostile shapes."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECK = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g")

RESIZE = """
import numpy as np
from imgzoo_data.transforms import compiled
rng = np.random.default_rng(0)
done = 0
for height, width in [(1, 6), (2, 7), (5, 8), (33, 6), (6, 65), (64, 301), (500, 37), (3, 4096)]:
    whole = rng.integers(0, 256, (height + 2, width + 3, 3), dtype=np.uint8)
    for image in (np.ascontiguousarray(whole[2:, 3:]), whole[2:, 3:], whole[1:-1, 1:-2]):
        for size in [(1, 1), (2, 3), (7, 1), (1, 9), (height, width), (40, 40), (97, 5)]:
            for start, stop in [((0, 0), size), ((size[0] - 1, size[1] - 1), size), ((0, 0), (1, 1))]:
                for kind in compiled.FILTERS:
                    done += compiled.resize(image, size, start, stop, kind) is not None
assert done > 100, done
"""
OPTIMIZERS = """
import torch
from imgzoo.registry import registry
from imgzoo_optim import create_optimizer
from imgzoo_optim import kernels
shapes = [(0,), (1,), (3, 0, 2), (7,), (1, 1), (513, 3), (3, 513), (64, 16, 3, 3), (5, 1, 7, 1), (129, 2, 1, 1)]
done = 0
for name in registry("optimizers").names():
    if name.startswith(("pytorch-optimizer/", "bnb", "fused", "apex")):
        continue
    for layout in (torch.contiguous_format, torch.channels_last):
        params = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
        params = [torch.nn.Parameter(p.detach().to(memory_format=layout)) if p.ndim == 4 else p for p in params]
        try:
            optimizer = create_optimizer(name, params, lr=1e-3)
            for _ in range(2):
                for p in params:
                    p.grad = torch.randn_like(p)
                optimizer.step()
        except (RuntimeError, ValueError, TypeError, ImportError, ZeroDivisionError, IndexError):
            continue  # shapes or steps that a rule refuses by a sentence of its own
        done += 1
assert kernels.compiled.cache_info().currsize > 3 and done > 40, (kernels.compiled.cache_info(), done)
"""
OUTSIDE = """
import ctypes, numpy
numbers = numpy.zeros(1000, dtype=numpy.uint8)
native.library("void past(char *numbers) { numbers[1000] = 1; }").past(ctypes.c_void_p(numbers.ctypes.data))
"""


@pytest.mark.slow
@pytest.mark.parametrize(("script", "fault"), [(RESIZE, ""), (OPTIMIZERS, ""), (OUTSIDE, "heap-buffer-overflow")],
                         ids=["resize", "optimizers", "injected"])  # fmt: skip
def test_kernels_stay_within_their_memory(script, fault, tmp_path):
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs gcc and its sanitizers")
    preload = [subprocess.run([compiler, f"-print-file-name={name}"], capture_output=True, text=True, check=True)
               .stdout.strip() for name in ("libasan.so", "libubsan.so")]  # fmt: skip
    if not all(Path(path).is_absolute() for path in preload):
        pytest.skip("needs gcc's address sanitizer")
    begin = f"from imgzoo import native\nnative.FLAGS = (*native.FLAGS, *{CHECK!r})\n"
    environment = {**os.environ, "IMGZOO_CACHE": str(tmp_path), "LD_PRELOAD": " ".join(preload), "OMP_NUM_THREADS": "1",
                   "ASAN_OPTIONS": "detect_leaks=0"}  # fmt: skip
    found = subprocess.run([sys.executable, "-c", begin + script], env=environment, capture_output=True, text=True)
    assert (fault in found.stderr) if fault else found.returncode == 0, found.stderr[-4000:]
    assert [*tmp_path.glob("kernels/*.so")], "nothing was compiled"

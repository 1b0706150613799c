"""Where there is no GPU every test here is skipped by name; `--on cpu` runs what a CPU can, to try the tests."""

import os
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read once, when the device is first used


def pytest_addoption(parser):
    parser.addoption("--on", default="cuda", help="device of the tests in tests/gpu")


SAID = (
    "Synchronization debug mode is a prototype",
    "This process .* is multi-threaded, use of fork",
    "Mismatch dtype between input and weight",
    "TensorFloat32 tensor cores",
    r"\s*Online softmax is disabled",
)
"""Warnings of torch and Python on a GPU that are no fault of a test."""


def pytest_collection_modifyitems(config, items):
    missing = config.getoption("--on", "cuda") == "cuda" and not torch.cuda.is_available()
    for item in items:
        if HERE not in item.path.parents:
            continue
        for sentence in SAID:
            item.add_marker(pytest.mark.filterwarnings(f"ignore:{sentence}"))
        if missing:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture
def device(request):
    """The device under test, without TF32, so that float32 is."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return torch.device(request.config.getoption("--on", "cuda"))


@pytest.fixture
def cuda(device):
    if device.type != "cuda":
        pytest.skip("CUDA alone has this")
    return device


@pytest.fixture
def unwatched(device):
    """Inside, the host may not wait for the device: torch raises where it would."""
    watch = torch.cuda.set_sync_debug_mode if device.type == "cuda" else lambda mode: None
    yield lambda on: watch("error" if on else "default")
    watch("default")

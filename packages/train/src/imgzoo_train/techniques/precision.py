"""Arithmetic of the forward pass: fp32, bf16 and fp16 by autocast (fp16 with a scaler), or bf16 throughout; and whether
an accelerator must give the same bits every time.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from imgzoo.errors import UsageError


@dataclass(frozen=True)
class Precision:
    """`autocast` dtype of the forward pass, `weights` dtype of the parameters, `scaler` of fp16 gradients."""

    autocast: torch.dtype | None = None
    weights: torch.dtype | None = None
    scaler: torch.amp.GradScaler | None = None  # type: ignore[name-defined]

    @property
    def low(self) -> bool:
        """Whether the forward pass computes in less than float32."""
        return self.autocast is not None or self.weights is not None

    def forward(self, device: torch.device) -> contextlib.AbstractContextManager[Any]:
        """The block a forward pass runs in."""
        if self.autocast is None:
            return contextlib.nullcontext()
        return torch.autocast(device.type, self.autocast)

    def prepare(self, model: nn.Module) -> nn.Module:
        """Give the parameters their dtype."""
        return model if self.weights is None else model.to(self.weights)

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """Give the images the dtype of the parameters."""
        return images if self.weights is None else images.to(self.weights)

    def state_dict(self) -> dict[str, Any]:
        return {"scaler": self.scaler.state_dict() if self.scaler else {}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if self.scaler and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])


FP32 = Precision()


def create_precision(name: str, device: torch.device) -> Precision:
    """`fp32`, `tf32`, `bf16`, `fp16` (autocast, with a gradient scaler) or `pure-bf16`.

    `tf32` lets a GPU round the factors of float32 matrix products to 10 bits, in the whole process from then on.
    """
    if name == "tf32":
        if device.type != "cuda":
            raise UsageError(f"--precision tf32 is arithmetic of a GPU, and the device is {device.type}; use fp32")
        torch.set_float32_matmul_precision("high")
    if name == "fp16":
        return Precision(autocast=torch.float16, scaler=torch.amp.GradScaler(device.type))  # type: ignore[attr-defined]
    return {
        "fp32": FP32,
        "tf32": FP32,
        "bf16": Precision(autocast=torch.bfloat16),
        "pure-bf16": Precision(weights=torch.bfloat16),
    }[name]


@contextlib.contextmanager
def reproducible(wanted: bool) -> Iterator[None]:
    """Let every operation inside give the same bits each time, one that cannot being an error; or the fastest that
    convolutions have, tried once a shape.

    Enter it before a GPU is used: cuBLAS reads its workspace from the environment once.
    """
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.benchmark
    torch.use_deterministic_algorithms(wanted or before[0])
    torch.backends.cudnn.benchmark = not wanted
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cudnn.benchmark = before[1]

"""Arithmetic of the forward pass: fp32, bf16 and fp16 by autocast (fp16 with a scaler), or bf16 throughout."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn


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
    """`fp32`, `bf16`, `fp16` (autocast, with a gradient scaler) or `pure-bf16`."""
    if name == "fp16":
        return Precision(autocast=torch.float16, scaler=torch.amp.GradScaler(device.type))  # type: ignore[attr-defined]
    return {
        "fp32": Precision(),
        "bf16": Precision(autocast=torch.bfloat16),
        "pure-bf16": Precision(weights=torch.bfloat16),
    }[name]

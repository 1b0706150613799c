"""Exponential and plain averages of weights (EMA; SWA, arXiv:1803.05407), kept beside a model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn


def averaged_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers of `model` by name."""
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


class Average:
    """A running average of a model's weights.

    With `decay` it is exponential, `warmup` lets it forget the start: decay_t = min(decay, (1 + t) / (10 + t)).
    With `decay=None` it is the plain mean of every `update`. Integer buffers are copied. Never waits for the device.
    """

    def __init__(
        self,
        model: nn.Module,
        decay: float | None,
        *,
        warmup: bool = True,
        device: torch.device | None = None,
        start: int = 0,
        every: int = 1,
    ) -> None:
        self.decay, self.warmup, self.updates = decay, warmup, 0
        self.start, self.every, self.calls = start, every, 0
        self.tensors = {
            name: tensor.clone().to(device or tensor.device) for name, tensor in averaged_tensors(model).items()
        }

    @torch.no_grad()
    def restart(self, model: nn.Module) -> None:
        """Begin at the model's present weights."""
        for name, tensor in averaged_tensors(model).items():
            self.tensors[name].copy_(tensor)

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take the model's present weights into the average, at every `every`-th call after the first `start`."""
        self.calls += 1
        if self.calls <= self.start or (self.calls - self.start) % self.every:
            return
        weight = self._weight()
        self.updates += 1
        mine: list[torch.Tensor] = []
        theirs: list[torch.Tensor] = []
        for name, tensor in averaged_tensors(model).items():
            own = self.tensors[name]
            if own.is_floating_point():
                mine.append(own)
                theirs.append(tensor.to(own.device, non_blocking=True))
            else:
                own.copy_(tensor)
        if mine:
            torch._foreach_lerp_(mine, theirs, weight)  # type: ignore[attr-defined]

    def _weight(self) -> float:
        if self.decay is None:
            return 1.0 / (self.updates + 1)
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay
        return 1.0 - decay

    @contextlib.contextmanager
    def applied(self, model: nn.Module) -> Iterator[None]:
        """Let `model` hold the averaged weights inside the block."""
        self._swap(model)
        try:
            yield
        finally:
            self._swap(model)

    def _swap(self, model: nn.Module) -> None:
        for name, tensor in averaged_tensors(model).items():
            kept = tensor.clone()
            tensor.copy_(self.tensors[name])
            self.tensors[name].copy_(kept)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "calls": self.calls, "tensors": dict(self.tensors)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates, self.calls = int(state["updates"]), int(state["calls"])
        for name, own in self.tensors.items():
            own.copy_(state["tensors"][name])

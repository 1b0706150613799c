"""Exponential and plain averages of weights (EMA; SWA, arXiv:1803.05407), kept beside a model."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from imgzoo.errors import UsageError

LOW = (torch.bfloat16, torch.float16)
PRECISIONS = ("float32", "stochastic")


def rounded_at_random(x: torch.Tensor, dtype: torch.dtype, generator: torch.Generator) -> torch.Tensor:
    """float32 values in half precision, rounded up or down with chances that keep the mean."""
    nearest = x.to(dtype)
    towards = torch.where(nearest.float() > x, -torch.inf, torch.inf).to(dtype)
    other = torch.nextafter(nearest, towards)
    gap = (other.float() - nearest.float()).abs()
    share = (x - nearest.float()).abs() / gap
    drawn = torch.rand(x.shape, generator=generator, device=x.device)
    return torch.where((drawn < share) & torch.isfinite(other), other, nearest)


def averaged_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Parameters and persistent buffers of `model` by name."""
    return {name: tensor.detach() for name, tensor in model.state_dict().items()}


class Average:
    """A running average of a model's weights.

    With `decay` it is exponential, `warmup` lets it forget the start: decay_t = min(decay, (1 + t) / (10 + t)).
    With `decay=None` it is the plain mean of every `update`. Integer buffers are copied. Never waits for the device.
    Weights of half precision, which would round every small step away, are averaged in `float32`, or in their own
    precision with the last bit rounded up or down at random (`stochastic`; arXiv:2010.06192), in half the memory.
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
        precision: str = "float32",
    ) -> None:
        if precision not in PRECISIONS:
            raise UsageError(f"the precision of an average is {' or '.join(PRECISIONS)}, not '{precision}'")
        self.precision = precision
        self.decay, self.warmup, self.updates = decay, warmup, 0
        self.start, self.every, self.calls = start, every, 0
        self.tensors = {
            name: tensor.to(device or tensor.device, self._dtype(tensor), copy=True)
            for name, tensor in averaged_tensors(model).items()
        }

    def _dtype(self, tensor: torch.Tensor) -> torch.dtype:
        return torch.float32 if tensor.dtype in LOW and self.precision == "float32" else tensor.dtype

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
        generators: dict[torch.device, torch.Generator] = {}
        for name, tensor in averaged_tensors(model).items():
            own = self.tensors[name]
            if own.dtype in LOW:
                if own.device not in generators:
                    generators[own.device] = torch.Generator(own.device).manual_seed(self.updates)
                mean = own.float().lerp_(tensor.to(own.device).float(), weight)
                own.copy_(rounded_at_random(mean, own.dtype, generators[own.device]))
            elif own.is_floating_point():
                mine.append(own)
                theirs.append(tensor.to(own.device, own.dtype))
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
        kept = {name: tensor.clone() for name, tensor in averaged_tensors(model).items() if self._differs(name, tensor)}
        self._swap(model, kept)
        try:
            yield
        finally:
            self._swap(model, kept)
            for name, tensor in averaged_tensors(model).items():
                if name in kept:
                    tensor.copy_(kept[name])

    def _differs(self, name: str, tensor: torch.Tensor) -> bool:
        return self.tensors[name].dtype != tensor.dtype

    def _swap(self, model: nn.Module, kept: Mapping[str, torch.Tensor]) -> None:
        """Exchange weights and averages; of those kept elsewhere, the averages are lent only."""
        for name, tensor in averaged_tensors(model).items():
            before = tensor.clone() if name not in kept else None
            tensor.copy_(self.tensors[name])
            if before is not None:
                self.tensors[name].copy_(before)

    def state_dict(self) -> dict[str, Any]:
        return {"updates": self.updates, "calls": self.calls, "tensors": dict(self.tensors)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.updates, self.calls = int(state["updates"]), int(state["calls"])
        for name, own in self.tensors.items():
            own.copy_(state["tensors"][name])

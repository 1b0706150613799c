"""Sharpness-aware minimization (2010.01412) around any optimizer; adaptive form ASAM (2102.11600)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from imgzoo.errors import UsageError

from . import foreach
from .base import flatten
from .wrapper import Wrapper


class SAM(Wrapper):
    """`step(closure)`: climb `rho * g / |g|`, take the gradient there, come back, let the inner optimizer step.

    `closure` must zero the gradients, compute the loss and call backward; it runs twice and the first loss is returned.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, rho: float = 0.05, adaptive: bool = False):
        if not rho > 0:
            raise UsageError(f"SAM needs rho above 0, got {rho}")
        super().__init__(optimizer)
        self.rho, self.adaptive = rho, adaptive

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        if closure is None:
            raise UsageError(
                "SAM needs step(closure), where closure zeroes the gradients, computes the loss and backward"
            )
        with torch.enable_grad():
            loss = closure()
        climbed = self._climb()
        with torch.enable_grad():
            closure()
        with torch.no_grad():
            for param, start in climbed:
                param.copy_(start)
        self.optimizer.step()
        return loss

    @torch.no_grad()
    def _climb(self) -> list[tuple[Tensor, Tensor]]:
        """Move to the worst nearby point; the parameters with where they were."""
        params = [p for p in flatten(self.param_groups) if p.grad is not None]
        if not params:
            return []
        ascents: list[Tensor] = [p.grad * p.abs() if self.adaptive else p.grad for p in params]  # type: ignore[misc]
        norms = foreach.norm(ascents)
        scale = self.rho / (torch.linalg.vector_norm(torch.stack([n.to(norms[0].device) for n in norms])) + 1e-12)
        starts = [param.detach().clone() for param in params]
        for param, ascent in zip(params, ascents):
            step = ascent * scale.to(ascent.device)
            param.add_(step * param.abs() if self.adaptive else step)
        return list(zip(params, starts))


def build(
    params: Iterable[Any],
    base: str = "sgd",
    rho: float = 0.05,
    adaptive: bool = False,
    **options: Any,
) -> SAM:
    """SAM around the optimizer `base`; every other option is that optimizer's."""
    from .factory import create_optimizer

    return SAM(create_optimizer(base, params, **options), rho, adaptive)

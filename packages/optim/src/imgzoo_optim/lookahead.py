"""Lookahead (1907.08610): slow weights that follow the fast ones every few steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from imgzoo.errors import UsageError

from . import foreach
from .base import split
from .wrapper import Wrapper


class Lookahead(Wrapper):
    """Every `k` steps of the inner optimizer: `slow += alpha * (fast - slow); fast = slow`.

    The slow weights start as the fast ones at the first synchronization. Groups hold `lookahead_alpha`, `lookahead_k`
    and the `lookahead_step` that they are at: one that joins later counts its own. Frozen parameters stay.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, alpha: float = 0.5, k: int = 6):
        if not 0 <= alpha <= 1 or k < 1:
            raise UsageError(f"Lookahead needs alpha in [0, 1] and k of at least 1, got {alpha} and {k}")
        super().__init__(optimizer)
        self.alpha, self.k = alpha, k
        self.set_extra({})

    def set_extra(self, extra: dict[str, Any]) -> None:
        """Complete groups that lack something: those of a state saved without, or where the wrapper alone had it."""
        fresh = {"alpha": self.alpha, "k": self.k, "count": 0} | extra
        for group in self.param_groups:
            for name, key in (("alpha", "alpha"), ("k", "k"), ("step", "count")):
                group.setdefault(f"lookahead_{name}", fresh[key])

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        self.set_extra({})

    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        loss = self.optimizer.step(closure)  # type: ignore[arg-type]
        for group in self.param_groups:
            group["lookahead_step"] += 1
            if group["lookahead_step"] % group["lookahead_k"] == 0:
                self._synchronize(group)
        return loss

    def synchronize(self) -> None:
        """Move the slow weights and set the fast ones to them; also worth calling before evaluation."""
        for group in self.param_groups:
            self._synchronize(group)

    @torch.no_grad()
    def _synchronize(self, group: dict[str, Any]) -> None:
        pairs: dict[Any, tuple[list[Any], list[Any]]] = {}
        for param in group["params"]:
            if not param.requires_grad or (param.grad is None and "slow_buffer" not in self.state[param]):
                continue
            if "slow_buffer" not in self.state[param]:
                self.state[param]["slow_buffer"] = param.detach().clone()
            fast, slow = pairs.setdefault((param.device, param.dtype), ([], []))
            fast.append(param)
            slow.append(self.state[param]["slow_buffer"])
        for columns in pairs.values():
            for segment in split([*columns], 1 << 18):
                for _, (fast, slow) in segment:
                    foreach.lerp_(slow, fast, group["lookahead_alpha"])
                    foreach.copy_(fast, slow)

"""Schedule-free learning (2405.15682): gradients at an interpolation of a fast iterate and its running average.

The parameters hold the training point `y` while training. Call `optimizer.eval()` before evaluation or saving, to have
the average `x` in them, and `optimizer.train()` before going on.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imgzoo.errors import UsageError
from imgzoo_optim import foreach
from imgzoo_optim.base import Block, Optimizer

from .moments import average_square_, root


class ScheduleFree(Optimizer):
    """`z -= lr * d(y); x = (1 - c) * x + c * z; y = beta * x + (1 - beta) * z`, decay at `y`; `x` is not stored."""

    slots = ("z",)

    def initial(self, slot: str, param: Tensor, grad: Tensor) -> Tensor:
        empty = super().initial(slot, param, grad)
        return empty.copy_(param) if slot == "z" else empty

    def beta(self, group: dict[str, Any]) -> float:
        """Share of the average in the point where gradients are taken."""
        return group["betas"][0] if "betas" in group else group["momentum"]

    def decay(self, group: dict[str, Any]) -> str:
        return "own"

    def rate(self, group: dict[str, Any]) -> Any:
        return 1.0

    def prepare(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], t: Any) -> None:
        if not group.get("training", True):
            raise UsageError("call optimizer.train() before stepping a schedule-free optimizer")
        warm = min(1.0, t / group["warmup_steps"]) if group["warmup_steps"] else 1.0
        self._now = self.lr(group) * warm
        if group.get("weighed_step") != t:  # batches of other dtypes are at the same step
            group["weighed_step"] = t
            group["lr_max"] = max(self._now, group.get("lr_max", 0.0))
            group["weight"] = t ** group["r"] * group["lr_max"] ** group["weight_lr_power"]
            group["weight_sum"] = group.get("weight_sum", 0.0) + group["weight"]
        self._share = group["weight"] / group["weight_sum"] if group["weight_sum"] else 0.0

    def precondition(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        """The direction of the fast iterate, as new tensors."""
        return foreach.mul(block.grads, 1)

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        beta, z = self.beta(group), block.state[0]
        fast = self.precondition(block, group)
        if group["weight_decay"]:
            foreach.add_(fast, block.params, alpha=group["weight_decay"])
        steps = foreach.sub(block.params, z)
        foreach.mul_(steps, self._share)
        foreach.add_(steps, fast, alpha=self._now * (1 - beta * (1 - self._share)))
        foreach.add_(z, fast, alpha=-self._now)
        return steps

    @torch.no_grad()
    def eval(self) -> None:
        """Put the average into the parameters."""
        self._swap(False, lambda beta: 1 - 1 / beta)

    @torch.no_grad()
    def train(self) -> None:
        """Put the training point into the parameters."""
        self._swap(True, lambda beta: 1 - beta)

    def _swap(self, training: bool, weight: Any) -> None:
        for group in self.param_groups:
            if group.get("training", True) == training:
                continue
            for param in group["params"]:
                if "z" in self.state[param]:
                    real = torch.view_as_real(param) if param.is_complex() else param
                    real.lerp_(self.state[param]["z"].to(real.dtype), weight(self.beta(group)))
            group["training"] = training


class ScheduleFreeSGD(ScheduleFree):
    """The fast iterate follows the gradient."""

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
    ):
        if not 0 < momentum < 1:
            raise UsageError(f"schedule-free SGD needs momentum in (0, 1), got {momentum}")
        super().__init__(params, **locals())


class ScheduleFreeAdamW(ScheduleFree):
    """The fast iterate follows the gradient over the root of its second moment."""

    slots = ("z", "exp_avg_sq")

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 2.5e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
    ):
        if not betas[0] > 0:
            raise UsageError(f"schedule-free AdamW needs betas[0] in (0, 1), got {betas[0]}")
        super().__init__(params, **locals())

    def precondition(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        square, beta2 = block.state[1], group["betas"][1]
        average_square_(square, block.grads, beta2)
        return foreach.div(block.grads, root(square, 1 - beta2**block.t, group["eps"]))

"""Adan (2208.06677): Nesterov momentum from the difference of successive gradients."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imgzoo_optim.base import Block, Optimizer

from .moments import average_, average_square_, root


class Adan(Optimizer):
    """Moments of the gradient, of its difference, and of the square of both; decay after the step or before it."""

    slots = ("exp_avg", "exp_avg_diff", "exp_avg_sq", "previous_grad")

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        no_prox: bool = False,
        *,
        caution: bool = False,
    ):
        super().__init__(params, **locals())

    def initial(self, slot: str, param: Tensor, grad: Tensor) -> Tensor:
        empty = super().initial(slot, param, grad)
        return empty.copy_(grad) if slot == "previous_grad" else empty

    def decay(self, group: dict[str, Any]) -> str:
        return "shrink" if group["no_prox"] else "own"

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        mean, change, square, previous = block.state
        beta1, beta2, beta3 = group["betas"]
        difference = torch._foreach_sub(block.grads, previous)
        torch._foreach_copy_(previous, block.grads)
        average_(mean, block.grads, beta1)
        average_(change, difference, beta2)
        torch._foreach_mul_(difference, beta2)
        torch._foreach_add_(difference, block.grads)
        average_square_(square, difference, beta3)
        steps = torch._foreach_mul(mean, 1 / (1 - beta1**block.t))
        ahead = beta2 / (1 - beta2**block.t)
        if isinstance(ahead, Tensor):
            torch._foreach_add_(steps, torch._foreach_mul(change, ahead))
        else:
            torch._foreach_add_(steps, change, alpha=ahead)
        torch._foreach_div_(steps, root(square, 1 - beta3**block.t, group["eps"]))
        return steps

    def _apply(self, block: Block, target: list[Tensor], group: dict[str, Any]) -> None:
        if not group["weight_decay"] or group["no_prox"]:
            return super()._apply(block, target, group)
        lr = self.lr(group)
        torch._foreach_add_(block.params, torch._foreach_mul(block.steps, -lr))
        torch._foreach_div_(block.params, 1 + lr * group["weight_decay"])
        if block.params is not target:
            torch._foreach_copy_(target, block.params)
        return None

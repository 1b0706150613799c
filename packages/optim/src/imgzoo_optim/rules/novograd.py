"""NovoGrad (1905.11286): momentum over gradients normalized by a per-layer second moment."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imgzoo_optim import foreach
from imgzoo_optim.base import Block, Optimizer
from imgzoo_optim.kernel import Kernel


class NovoGrad(Optimizer):
    """`v = beta2 * v + (1 - beta2) * |g|^2; m = beta1 * m + g / (sqrt(v) + eps) + decay * p; p -= lr * m`."""

    slots = ("exp_avg",)
    kernel = Kernel(("m",), ("beta", "gain", "decay"), "m = beta * m + gain * (g * factor + decay * p); u = m;")

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.95, 0.98),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        grad_averaging: bool = False,
        amsgrad: bool = False,
        decoupled_decay: bool = False,
        corrected_weight_decay: bool = False,
    ):
        super().__init__(params, **locals())

    def create(self, state: dict[str, Any], param: Tensor, group: dict[str, Any]) -> None:
        super().create(state, param, group)
        grad: Any = param.grad
        state["exp_avg_sq"] = torch.linalg.vector_norm(grad).to(state["exp_avg"].dtype) ** 2
        if group["amsgrad"]:
            state["max_exp_avg_sq"] = torch.zeros_like(state["exp_avg_sq"])

    def decay(self, group: dict[str, Any]) -> str:
        return "shrink" if group["decoupled_decay"] else "own"

    def prepare(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], t: Any) -> None:
        beta2 = group["betas"][1]
        square = [self.state[p]["exp_avg_sq"] for p in params]
        new = [norm.to(old.dtype) for norm, old in zip(foreach.norm(grads), square)]
        foreach.mul_(new, new)
        foreach.lerp_(square, new, 1 - beta2)
        if group["amsgrad"]:
            most = [self.state[p]["max_exp_avg_sq"] for p in params]
            foreach.maximum_(most, square)
            square = most
        self._scales = foreach.sqrt(square)
        foreach.add_(self._scales, group["eps"])
        foreach.reciprocal_(self._scales)

    def constants(self, group: dict[str, Any], t: int) -> tuple[float, ...]:
        beta1 = group["betas"][0]
        decay = 0.0 if group["decoupled_decay"] else group["weight_decay"]
        return beta1, 1 - beta1 if group["grad_averaging"] else 1.0, decay

    def factors(self, group: dict[str, Any]) -> Tensor | None:
        return torch.stack(self._scales)

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        (mean,) = block.state
        beta1 = group["betas"][0]
        scaled = foreach.mul(block.grads, [self._scales[i] for i in block.owners])
        if group["weight_decay"] and not group["decoupled_decay"]:
            foreach.add_(scaled, block.params, alpha=group["weight_decay"])
        foreach.mul_(mean, beta1)
        foreach.add_(mean, scaled, alpha=1 - beta1 if group["grad_averaging"] else 1)
        return foreach.mul(mean, 1)

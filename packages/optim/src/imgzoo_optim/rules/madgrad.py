"""MADGRAD (2101.11075): dual averaging with cube-root denominators."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imgzoo_optim import foreach
from imgzoo_optim.base import Block, Optimizer
from imgzoo_optim.kernel import Kernel


class MADGRAD(Optimizer):
    """`s += lr * sqrt(t) * g; v += lr * sqrt(t) * g^2; z = x0 - s / (v^(1/3) + eps); p += (1 - momentum) * (z - p)`."""

    slots = ("grad_sum_sq", "s", "x0")
    kernel = Kernel(
        ("v", "s", "x"),
        ("weight", "share", "eps"),
        "s += weight * g; v += weight * g * g; u = share * (p - (x - s / (cube_root(v) + eps)));",
    )

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        eps: float = 1e-6,
        decoupled_decay: bool = False,
    ):
        super().__init__(params, **locals())

    def create(self, state: dict[str, Any], param: Tensor, group: dict[str, Any]) -> None:
        super().create(state, param, group)
        real = torch.view_as_real(param) if param.is_complex() else param
        state["x0"].copy_(real)

    def rate(self, group: dict[str, Any]) -> Any:
        return 1.0

    def decay(self, group: dict[str, Any]) -> str:
        return "own" if group["decoupled_decay"] else "gradient"

    def constants(self, group: dict[str, Any], t: int) -> tuple[float, ...]:
        return (self.lr(group) + group["eps"]) * t**0.5, 1 - group["momentum"], group["eps"]

    def _compiled(self, group: dict[str, Any], columns: list[list[Tensor]], t: Any) -> bool:
        plain = group["momentum"] and not (group["weight_decay"] and group["decoupled_decay"])
        return bool(plain) and super()._compiled(group, columns, t)

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        square, total, start = block.state
        eps, share = group["eps"], 1 - group["momentum"]
        lr = self.lr(group) + eps
        if group["weight_decay"] and group["decoupled_decay"]:
            foreach.mul_(block.params, 1 - self.lr(group) * group["weight_decay"])
        weight = lr * block.t**0.5
        if not group["momentum"]:  # the start is implied by where the parameter is
            past = foreach.div(total, self._cube_root(square, eps))
            start = foreach.add(block.params, past)
        weighted = foreach.mul(block.grads, weight)
        foreach.add_(total, weighted)
        foreach.addcmul_(square, weighted, block.grads)
        steps = foreach.div(total, self._cube_root(square, eps))
        foreach.sub_(steps, start)
        foreach.add_(steps, block.params)
        foreach.mul_(steps, share)
        return steps

    @staticmethod
    def _cube_root(square: list[Tensor], eps: float) -> list[Tensor]:
        root = foreach.pow(square, 1 / 3)
        foreach.add_(root, eps)
        return root

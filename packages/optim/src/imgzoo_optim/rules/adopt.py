"""ADOPT (2411.02853): the gradient is normalized by the second moment from before it."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from imgzoo_optim import foreach
from imgzoo_optim.base import Block, Optimizer

from .moments import average_, average_square_


class ADOPT(Optimizer):
    """`m = beta1 * m + (1 - beta1) * clip(g / max(sqrt(v), eps), t^clip_exp); p -= lr * m`; step 1 only sets v."""

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.9999),
        eps: float = 1e-6,
        clip_exp: float | None = 0.333,
        weight_decay: float = 0.0,
        decoupled: bool = False,
        corrected_weight_decay: bool = False,
        *,
        caution: bool = False,
        maximize: bool = False,
    ):
        super().__init__(params, **locals())

    def decay(self, group: dict[str, Any]) -> str:
        return "shrink" if group["decoupled"] else "gradient"

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        mean, square = block.state
        beta1, beta2 = group["betas"]
        if block.t == 1:
            foreach.copy_(square, foreach.mul(block.grads, block.grads))
            return []
        denominator = foreach.sqrt(square)
        foreach.clamp_min_(denominator, group["eps"])
        scaled = foreach.div(block.grads, denominator)
        if group["clip_exp"] is not None:
            limit = float(block.t - 1) ** group["clip_exp"]
            foreach.clamp_min_(scaled, -limit)
            foreach.clamp_max_(scaled, limit)
        average_(mean, scaled, beta1)
        average_square_(square, block.grads, beta2)
        return foreach.mul(mean, 1)

    def finish(self, blocks: list[Block], group: dict[str, Any]) -> None:
        if blocks[0].t != 1:
            super().finish(blocks, group)

    def _apply(self, block: Block, target: list[Tensor], group: dict[str, Any]) -> None:
        if block.t != 1:
            super()._apply(block, target, group)

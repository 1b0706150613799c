"""MARS (2411.10438): AdamW over gradients corrected by the change since the last one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imgzoo_optim.base import Block, Optimizer, norms, scale_

from .moments import adaptive_step, average_, average_square_


class MARS(Optimizer):
    """`c = g + gamma * beta1 / (1 - beta1) * (g - g_last)`, clipped to norm 1, feeds AdamW or Lion; vectors get AdamW."""

    slots = ("exp_avg", "exp_avg_sq", "last_grad")
    whole = True

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 3e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        gamma: float = 0.025,
        mars_type: str = "adamw",
        optimize_1d: bool = False,
        lr_1d_factor: float = 1.0,
        betas_1d: tuple[float, float] | None = None,
        *,
        caution: bool = False,
    ):
        betas_1d = betas_1d or betas
        super().__init__(params, **locals())

    def decay(self, group: dict[str, Any]) -> str:
        return "own"

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        last = block.state[2]
        beta1 = group["betas"][0]
        ahead = torch._foreach_sub(block.grads, last)
        torch._foreach_mul_(ahead, group["gamma"] * beta1 / (1 - beta1))
        torch._foreach_add_(ahead, block.grads)
        torch._foreach_copy_(last, block.grads)
        return ahead

    def finish(self, blocks: list[Block], group: dict[str, Any]) -> None:
        sizes = norms(blocks, lambda block: block.steps)
        torch._foreach_clamp_min_(sizes, 1.0)
        torch._foreach_reciprocal_(sizes)
        for block in blocks:
            scale_(block.steps, sizes)
            mean, square, _ = block.state
            beta1, beta2 = group["betas"]
            average_(mean, block.steps, beta1)
            average_square_(square, block.steps, beta2)
            block.steps = adaptive_step(mean, square, 1 - beta1**block.t, 1 - beta2**block.t, group["eps"])
        super().finish(blocks, group)
        for block in blocks:
            torch._foreach_add_(block.steps, block.params, alpha=group["weight_decay"])

"""Adam with Nesterov momentum, as in Dozat's report (2016) with its momentum schedule."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imgzoo_optim import foreach
from imgzoo_optim.base import Block, Optimizer

from .moments import average_, average_square_, root


class NAdam(Optimizer):
    """Momentum `mu_t = beta1 * (1 - 0.96^(t * schedule_decay) / 2)`; L2 decay."""

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        schedule_decay: float = 4e-3,
    ):
        super().__init__(params, **locals())

    def create(self, state: dict[str, Any], param: Tensor, group: dict[str, Any]) -> None:
        super().create(state, param, group)
        state["mu_product"] = torch.ones((), dtype=torch.float64, device="cpu")

    def decay(self, group: dict[str, Any]) -> str:
        return "gradient"

    def prepare(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], t: Any) -> None:
        beta1 = group["betas"][0]
        self._mu = beta1 * (1 - 0.5 * 0.96 ** (t * group["schedule_decay"]))
        self._mu_next = beta1 * (1 - 0.5 * 0.96 ** ((t + 1) * group["schedule_decay"]))
        for param in params:
            self.state[param]["mu_product"] *= self._mu
        product = self.state[params[0]]["mu_product"]
        self._product = product if torch.compiler.is_compiling() else product.item()

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        mean, square = block.state
        beta1, beta2 = group["betas"]
        average_(mean, block.grads, beta1)
        average_square_(square, block.grads, beta2)
        steps = foreach.mul(block.grads, (1 - self._mu) / (1 - self._product))
        ahead = foreach.mul(mean, self._mu_next / (1 - self._product * self._mu_next))
        foreach.add_(steps, ahead)
        foreach.div_(steps, root(square, 1 - beta2**block.t, group["eps"]))
        return steps

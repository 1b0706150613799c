"""Lion (2302.06675): the sign of an interpolated momentum."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from imgzoo_optim import foreach
from imgzoo_optim.base import Block, Optimizer
from imgzoo_optim.kernel import Kernel

from .moments import average_


class Lion(Optimizer):
    """`p -= lr * sign(beta1 * m + (1 - beta1) * g); m = beta2 * m + (1 - beta2) * g`, decay apart."""

    slots = ("exp_avg",)
    kernel = Kernel(("m",), ("a1", "a2"), "float c = m + a1 * (g - m); u = (c > 0) - (c < 0); m += a2 * (g - m);")

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        caution: bool = False,
        corrected_weight_decay: bool = False,
        maximize: bool = False,
    ):
        super().__init__(params, **locals())

    def constants(self, group: dict[str, Any], t: int) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        return 1 - beta1, 1 - beta2

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        (mean,) = block.state
        beta1, beta2 = group["betas"]
        steps = foreach.lerp(mean, block.grads, 1 - beta1)
        foreach.sign_(steps)
        average_(mean, block.grads, beta2)
        return steps

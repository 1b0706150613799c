"""Rectified Adam as its authors published it (1908.03265): no adaptive step before the variance is tractable."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from imgzoo_optim import foreach
from imgzoo_optim.base import Block, Optimizer

from .moments import average_, average_square_


def rectification(t: float, beta2: float) -> float | None:
    """The factor `r_t` of section 4.2 times `sqrt(1 - beta2^t)`; None while the variance is intractable (below 5)."""
    longest = 2 / (1 - beta2) - 1
    length = longest - 2 * t * beta2**t / (1 - beta2**t)
    if length < 5:
        return None
    ratio = (length - 4) / (longest - 4) * (length - 2) / length * longest / (longest - 2)
    return ((1 - beta2**t) * ratio) ** 0.5


class RAdam(Optimizer):
    """`p -= lr * r_t * m_hat / (sqrt(v) + eps)`, or `lr * m_hat` at first; decay apart."""

    slots = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ):
        super().__init__(params, **locals())

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        mean, square = block.state
        beta1, beta2 = group["betas"]
        average_(mean, block.grads, beta1)
        average_square_(square, block.grads, beta2)
        c1, factor = 1 - beta1 ** int(block.t), rectification(int(block.t), beta2)
        if factor is None:
            return foreach.div(mean, c1)
        denominator = foreach.sqrt(square)
        foreach.add_(denominator, group["eps"])
        foreach.mul_(denominator, c1 / factor)
        return foreach.div(mean, denominator)

"""AdamP (2006.08217): Adam whose steps leave the norm of scale-invariant weights alone."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from imgzoo_optim import foreach
from imgzoo_optim.base import Block
from imgzoo_optim.kernel import Kernel

from .moments import adaptive_step, average_, average_square_
from .projection import Projected


class AdamP(Projected):
    """Adam's (or its Nesterov form's) step, projected; decay apart, times `wd_ratio` where it was projected."""

    slots = ("exp_avg", "exp_avg_sq")
    kernel = Kernel(
        ("m", "v"),
        ("a1", "a2", "c1", "c2", "eps", "ahead"),
        "m += a1 * (g - m); v += a2 * (g * g - v);",
        "u = (m + ahead * (g - m)) * c1 / (sqrtf(v) * c2 + eps);",
    )

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
        nesterov: bool = False,
        *,
        caution: bool = False,
    ):
        super().__init__(params, **locals())

    def constants(self, group: dict[str, Any], t: int) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        ahead = 1 - beta1 if group["nesterov"] else 0.0
        return 1 - beta1, 1 - beta2, 1 / (1 - beta1**t), (1 - beta2**t) ** -0.5, group["eps"], ahead

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        mean, square = block.state
        beta1, beta2 = group["betas"]
        average_(mean, block.grads, beta1)
        average_square_(square, block.grads, beta2)
        ahead = foreach.lerp(mean, block.grads, 1 - beta1) if group["nesterov"] else mean
        return adaptive_step(ahead, square, 1 - beta1**block.t, 1 - beta2**block.t, group["eps"])

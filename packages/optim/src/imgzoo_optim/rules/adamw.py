"""AdamW (1711.05101), with the update clipping of StableAdamW (2304.13013)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from imgzoo_optim.base import Block, Optimizer
from imgzoo_optim.kernels import Kernel

from .moments import adaptive_step, average_, average_square_


class AdamW(Optimizer):
    """`p -= lr * m_hat / (sqrt(v_hat) + eps)`, decay apart."""

    slots = ("exp_avg", "exp_avg_sq")
    kernel = Kernel(
        ("m", "v"),
        ("a1", "a2", "c1", "c2", "eps"),
        "m += a1 * (g - m); v += a2 * (g * g - v); u = m * c1 / (sqrtf(v) * c2 + eps);",
    )

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.01,
        amsgrad: bool = False,
        *,
        caution: bool = False,
        corrected_weight_decay: bool = False,
        maximize: bool = False,
    ):
        super().__init__(params, **locals())

    def constants(self, group: dict[str, Any], t: int) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        return 1 - beta1, 1 - beta2, 1 / (1 - beta1**t), (1 - beta2**t) ** -0.5, group["eps"]

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        mean, square = block.state
        beta1, beta2 = group["betas"]
        average_(mean, block.grads, beta1)
        average_square_(square, block.grads, beta2)
        c1, c2 = 1 - beta1**block.t, 1 - beta2**block.t
        return adaptive_step(mean, square, c1, c2, group["eps"])

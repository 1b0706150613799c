"""LaProp (2002.04839): momentum over gradients that are already normalized."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from imgzoo_optim import foreach
from imgzoo_optim.base import Block, Optimizer
from imgzoo_optim.kernels import Kernel

from .moments import average_square_, root


class LaProp(Optimizer):
    """`m = beta1 * m + (1 - beta1) * lr * g / (sqrt(v_hat) + eps); p -= m / (1 - beta1^t)`, then decay."""

    slots = ("exp_avg", "exp_avg_sq")
    kernel = Kernel(
        ("m", "v"),
        ("a1", "a2", "c1", "c2", "eps", "lr"),
        "v += a2 * (g * g - v); m += a1 * (lr * g / (sqrtf(v) * c2 + eps) - m); u = m * c1;",
    )

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 4e-4,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-15,
        weight_decay: float = 0.0,
        *,
        caution: bool = False,
        corrected_weight_decay: bool = False,
    ):
        super().__init__(params, **locals())

    def decays_last(self, group: dict[str, Any]) -> bool:
        return True

    def rate(self, group: dict[str, Any]) -> Any:
        return 1.0

    def constants(self, group: dict[str, Any], t: int) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        return 1 - beta1, 1 - beta2, 1 / (1 - beta1**t), (1 - beta2**t) ** -0.5, group["eps"], self.lr(group)

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        mean, square = block.state
        beta1, beta2 = group["betas"]
        average_square_(square, block.grads, beta2)
        scaled = foreach.div(block.grads, root(square, 1 - beta2**block.t, group["eps"]))
        foreach.mul_(scaled, self.lr(group))
        foreach.lerp_(mean, scaled, 1 - beta1)
        return foreach.mul(mean, 1 / (1 - beta1**block.t))

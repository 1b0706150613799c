"""AdaBelief (2010.07468): the second moment is that of the gradient's deviation from its running mean."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from imgzoo_optim import foreach
from imgzoo_optim.base import Block, Optimizer
from imgzoo_optim.kernel import Kernel

from .moments import average_, average_square_, largest_, root
from .radam import rectification


class AdaBelief(Optimizer):
    """`s = beta2 * s + (1 - beta2) * (g - m)^2 + eps; p -= lr * m_hat / (sqrt(s_hat) + eps)`, rectified or not."""

    slots = ("exp_avg", "exp_avg_var", "max_exp_avg_var")
    kernel = Kernel(
        ("m", "v"),
        ("a1", "a2", "floor", "numerator", "root", "eps"),
        "m += a1 * (g - m); float e = g - m; v += a2 * (e * e - v) + floor;"
        "u = m * numerator / (sqrtf(v) * root + eps);",
    )

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-16,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        decoupled_decay: bool = True,
        fixed_decay: bool = False,
        rectify: bool = True,
        degenerated_to_sgd: bool = True,
    ):
        super().__init__(params, **locals())

    def slots_of(self, group: dict[str, Any]) -> tuple[str, ...]:
        return self.slots if group["amsgrad"] else self.slots[:-1]

    def shrink(self, group: dict[str, Any]) -> Any:
        if group["fixed_decay"] and group["decoupled_decay"]:
            return 1 - group["weight_decay"]
        return super().shrink(group)

    def constants(self, group: dict[str, Any], t: int) -> tuple[float, ...]:
        (beta1, beta2), eps = group["betas"], group["eps"]
        moments, c1 = (1 - beta1, 1 - beta2, eps), 1 - beta1**t
        if not group["rectify"]:
            return *moments, 1 / c1, (1 - beta2**t) ** -0.5, eps
        factor = rectification(t, beta2)
        if factor is None:
            return *moments, 1 / c1 if group["degenerated_to_sgd"] else 0.0, 0.0, 1.0
        return *moments, factor / c1, 1.0, eps

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        mean, variance, *kept = block.state
        (beta1, beta2), eps = group["betas"], group["eps"]
        average_(mean, block.grads, beta1)
        average_square_(variance, foreach.sub(block.grads, mean), beta2)
        foreach.add_(variance, eps)
        variance = largest_(kept, variance)
        c1 = 1 - beta1**block.t
        if not group["rectify"]:
            denominator = root(variance, 1 - beta2**block.t, eps)
            foreach.mul_(denominator, c1)
            return foreach.div(mean, denominator)
        factor = rectification(int(block.t), beta2)
        if factor is None:
            return foreach.mul(mean, 1 / c1 if group["degenerated_to_sgd"] else 0.0)
        denominator = foreach.sqrt(variance)
        foreach.add_(denominator, eps)
        foreach.mul_(denominator, c1 / factor)
        return foreach.div(mean, denominator)

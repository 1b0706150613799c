"""LaProp (2002.04839): momentum over gradients that are already normalized."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imgzoo_optim import foreach
from imgzoo_optim.base import Block, Optimizer
from imgzoo_optim.kernel import Kernel

from .moments import average_square_, root


class LaProp(Optimizer):
    """`m = beta1 * m + (1 - beta1) * lr * g / (sqrt(v_hat) + eps); p -= lr * m / a`, then decay.

    `a` averages the learning rate as `m` averages steps, so that the momentum is an average of directions whose
    weights are the rates they were met at.
    """

    slots = ("exp_avg", "exp_avg_sq")
    kernel = Kernel(
        ("m", "v"),
        ("a1", "a2", "c2", "eps", "lr"),
        "v += a2 * (g * g - v); m += a1 * (lr * g / (sqrtf(v) * c2 + eps) - m); u = m;",
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

    def update(self, group: dict[str, Any], params: list[Tensor], t: Any) -> None:
        lr, beta1 = self.lr(group), group["betas"][0]
        for param in params:
            if "exp_avg_lr" not in self.state[param]:  # at a constant rate, as it was before the average was kept
                first = torch.zeros((), dtype=torch.float64, device="cpu") + lr * (1 - beta1 ** (t - 1))
                self.state[param]["exp_avg_lr"] = first
        averages = [self.state[param]["exp_avg_lr"] for param in params]
        foreach.mul_(averages, beta1)
        foreach.add_(averages, (1 - beta1) * lr)
        together: dict[Any, list[Tensor]] = {}
        for param, average in zip(params, averages):
            together.setdefault(None if torch.compiler.is_compiling() else float(average), []).append(param)
        for each in together.values():
            average = self.state[each[0]]["exp_avg_lr"]
            if not torch.compiler.is_compiling():
                average = float(average)
            super().update({**group, "gain": lr / average if isinstance(average, Tensor) or average else 0.0}, each, t)

    def rate(self, group: dict[str, Any]) -> Any:
        return group["gain"]

    def constants(self, group: dict[str, Any], t: int) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        return 1 - beta1, 1 - beta2, (1 - beta2**t) ** -0.5, group["eps"], self.lr(group)

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        mean, square = block.state
        beta1, beta2 = group["betas"]
        average_square_(square, block.grads, beta2)
        scaled = foreach.div(block.grads, root(square, 1 - beta2**block.t, group["eps"]))
        foreach.mul_(scaled, self.lr(group))
        foreach.lerp_(mean, scaled, 1 - beta1)
        return [x.clone() for x in mean]

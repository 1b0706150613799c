"""Adan (2208.06677): Nesterov momentum from the difference of successive gradients."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from imgzoo_optim import foreach
from imgzoo_optim.base import Block, Optimizer
from imgzoo_optim.kernel import Kernel

from .moments import average_, average_square_, root


class Adan(Optimizer):
    """Moments of the gradient, of its difference, and of the square of both; decay after the step or before it.

    Caution masks the moment of the gradient alone.
    """

    slots = ("exp_avg", "exp_avg_diff", "exp_avg_sq", "previous_grad")
    kernel = Kernel(
        ("m", "d", "v", "before"),
        ("a1", "a2", "a3", "beta2", "c1", "c2", "c3", "eps"),
        "float change = g - before, ahead = g + beta2 * change; before = g; m += a1 * (g - m); d += a2 * (change - d);"
        "v += a3 * (ahead * ahead - v); u = (m * c1 + d * c2) / (sqrtf(v) * c3 + eps);",
    )

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float, float] = (0.98, 0.92, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        no_prox: bool = False,
        *,
        caution: bool = False,
    ):
        super().__init__(params, **locals())

    def initial(self, slot: str, param: Tensor, grad: Tensor) -> Tensor:
        empty = super().initial(slot, param, grad)
        return empty.copy_(grad) if slot == "previous_grad" else empty

    def decays_last(self, group: dict[str, Any]) -> bool:
        return not group["no_prox"]

    def shrink(self, group: dict[str, Any]) -> Any:
        if group["no_prox"]:
            return super().shrink(group)
        return 1 / (1 + self.lr(group) * group["weight_decay"])

    def constants(self, group: dict[str, Any], t: int) -> tuple[float, ...]:
        beta1, beta2, beta3 = group["betas"]
        corrections = 1 / (1 - beta1**t), beta2 / (1 - beta2**t), (1 - beta3**t) ** -0.5
        return 1 - beta1, 1 - beta2, 1 - beta3, beta2, *corrections, group["eps"]

    def _kernel_direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        return []  # caution comes between the two halves of the step

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        mean, change, square, previous = block.state
        beta1, beta2, beta3 = group["betas"]
        difference = foreach.sub(block.grads, previous)
        foreach.copy_(previous, block.grads)
        average_(mean, block.grads, beta1)
        average_(change, difference, beta2)
        foreach.mul_(difference, beta2)
        foreach.add_(difference, block.grads)
        average_square_(square, difference, beta3)
        steps = foreach.mul(mean, 1 / (1 - beta1**block.t))
        if group["caution"]:
            return steps
        return self.look_ahead(block, steps, group)

    @staticmethod
    def look_ahead(block: Block, steps: list[Tensor], group: dict[str, Any]) -> list[Tensor]:
        """Add the moment of the difference and divide by the root of the second moment."""
        _, change, square, _ = block.state
        _, beta2, beta3 = group["betas"]
        ahead = beta2 / (1 - beta2**block.t)
        if isinstance(ahead, Tensor):
            foreach.add_(steps, foreach.mul(change, ahead))
        else:
            foreach.add_(steps, change, alpha=ahead)
        foreach.div_(steps, root(square, 1 - beta3**block.t, group["eps"]))
        return steps

    def finish(self, blocks: list[Block], group: dict[str, Any]) -> None:
        super().finish(blocks, group)
        for block in blocks:
            self.look_ahead(block, block.steps, group)

"""RMSprop as TensorFlow computes it: eps inside the root, squares start from one, the rate in the momentum."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from imgzoo_optim import foreach
from imgzoo_optim.base import Block, Optimizer
from imgzoo_optim.kernel import Kernel


class RMSpropTF(Optimizer):
    """`s += (1 - alpha) * (g^2 - s); b = momentum * b + lr * g / sqrt(s + eps); p -= b`; L2 or decoupled decay."""

    slots = ("square_avg", "momentum_buffer", "grad_avg")
    kernel = Kernel(
        ("v", "b"),
        ("a", "eps", "mu", "gain"),
        "v += a * (g * g - v); b = mu * b + gain * g / sqrtf(v + eps); u = b;",
    )

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.9,
        eps: float = 1e-10,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        decoupled_decay: bool = False,
        corrected_weight_decay: bool = False,
        lr_in_momentum: bool = True,
        *,
        caution: bool = False,
    ):
        super().__init__(params, **locals())

    def slots_of(self, group: dict[str, Any]) -> tuple[str, ...]:
        return self.slots if group["centered"] else self.slots[:-1]

    def initial(self, slot: str, param: Tensor, grad: Tensor) -> Tensor:
        empty = super().initial(slot, param, grad)
        return empty.fill_(1) if slot == "square_avg" else empty

    def rate(self, group: dict[str, Any]) -> Any:
        return 1.0 if group["momentum"] and group["lr_in_momentum"] else self.lr(group)

    def constants(self, group: dict[str, Any], t: int) -> tuple[float, ...]:
        held = group["momentum"] and group["lr_in_momentum"]
        return 1 - group["alpha"], group["eps"], group["momentum"], self.lr(group) if held else 1.0

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        square, momentum, *mean = block.state
        alpha, factor = group["alpha"], group["momentum"]
        foreach.mul_(square, alpha)
        foreach.addcmul_(square, block.grads, block.grads, value=1 - alpha)
        if group["centered"]:
            foreach.lerp_(mean[0], block.grads, 1 - alpha)
            denominator = foreach.addcmul(square, mean[0], mean[0], value=-1)
            foreach.add_(denominator, group["eps"])
        else:
            denominator = foreach.add(square, group["eps"])
        foreach.sqrt_(denominator)
        steps = foreach.div(block.grads, denominator)
        if not factor:
            return steps
        foreach.mul_(momentum, factor)
        if group["lr_in_momentum"]:
            foreach.mul_(steps, self.lr(group))
        foreach.add_(momentum, steps)
        foreach.copy_(steps, momentum)
        return steps

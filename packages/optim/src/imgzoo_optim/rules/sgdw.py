"""SGD with decoupled weight decay (1711.05101)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from imgzoo_optim import foreach
from imgzoo_optim.base import Block, Optimizer
from imgzoo_optim.kernel import Kernel


def accumulate(momentum: list[Tensor], grads: list[Tensor], block: Block, group: dict[str, Any]) -> list[Tensor]:
    """Heavy-ball momentum: update the buffers and return the step, a list that may be written to."""
    factor, damping = group["momentum"], group.get("dampening", 0)
    if not factor:
        return foreach.mul(grads, 1)
    foreach.mul_(momentum, factor)
    first = not isinstance(block.t, Tensor) and block.t == 1
    foreach.add_(momentum, grads, alpha=1 if first else 1 - damping)
    if group["nesterov"]:
        return foreach.add(grads, momentum, alpha=factor)
    return foreach.mul(momentum, 1)


def momentum_constants(group: dict[str, Any], t: int) -> tuple[float, ...]:
    """`b = mu * b + gain * g; u = ahead * g + kept * b`, the same as `accumulate`."""
    factor = group["momentum"]
    if not factor:
        return 0.0, 0.0, 1.0, 0.0
    gain = 1.0 if t == 1 else 1 - group.get("dampening", 0)
    return (factor, gain, 1.0, factor) if group["nesterov"] else (factor, gain, 0.0, 1.0)


class SGDW(Optimizer):
    """`b = momentum * b + g; p -= lr * (b, or g + momentum * b with nesterov)`, decay apart."""

    slots = ("momentum_buffer",)
    kernel = Kernel(("b",), ("mu", "gain", "ahead", "kept"), "b = mu * b + gain * g;", "u = ahead * g + kept * b;")

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        caution: bool = False,
        corrected_weight_decay: bool = False,
        maximize: bool = False,
    ):
        super().__init__(params, **locals())

    def constants(self, group: dict[str, Any], t: int) -> tuple[float, ...]:
        return momentum_constants(group, t)

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        (momentum,) = block.state
        return accumulate(momentum, block.grads, block, group)

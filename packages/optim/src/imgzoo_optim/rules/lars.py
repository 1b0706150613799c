"""LARS (1708.03888): each layer's rate follows the ratio of its weight's norm to its gradient's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imgzoo_optim import foreach, kernels
from imgzoo_optim.base import Block, Optimizer
from imgzoo_optim.kernel import Kernel

from .sgdw import accumulate, momentum_constants


class LARS(Optimizer):
    """`trust = coeff * |p| / (|g| + decay * |p| + eps)` scales `g + decay * p` before the momentum."""

    slots = ("momentum_buffer",)
    kernel = Kernel(
        ("b",),
        ("decay", "mu", "gain", "ahead", "kept"),
        "g = (g + decay * p) * factor; b = mu * b + gain * g; u = ahead * g + kept * b;",
    )

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1.0,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        trust_coeff: float = 1e-3,
        eps: float = 1e-8,
        trust_clip: bool = False,
        always_adapt: bool = False,
    ):
        super().__init__(params, **locals())

    def decay(self, group: dict[str, Any]) -> str:
        return "own"

    def adapts(self, group: dict[str, Any]) -> bool:
        """Whether this group has trust ratios: it has decay, or was told to."""
        return bool(group["weight_decay"]) or group["always_adapt"]

    def prepare(self, group: dict[str, Any], params: list[Tensor], grads: list[Tensor], t: Any) -> None:
        if not self.adapts(group):
            return
        weights, sizes = kernels.norms(params), kernels.norms(grads)
        trust = group["trust_coeff"] * weights / (sizes + weights * group["weight_decay"] + group["eps"])
        trust = torch.where((weights > 0) & (sizes > 0), trust, torch.ones_like(trust))
        if group["trust_clip"]:
            trust = (trust / self.lr(group)).clamp_(max=1.0)
        self._trust = trust

    def constants(self, group: dict[str, Any], t: int) -> tuple[float, ...]:
        return (group["weight_decay"], *momentum_constants(group, t))

    def factors(self, group: dict[str, Any]) -> Tensor | None:
        return self._trust if self.adapts(group) else None

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        grads = block.grads
        if self.adapts(group):
            grads = foreach.add(grads, block.params, alpha=group["weight_decay"])
            foreach.mul_(grads, [self._trust[i] for i in block.owners])
        return accumulate(block.state[0], grads, block, group)

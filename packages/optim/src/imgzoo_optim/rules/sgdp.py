"""SGDP (2006.08217): SGD whose steps leave the norm of scale-invariant weights alone."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from imgzoo_optim.base import Block

from .projection import Projected
from .sgdw import SGDW, accumulate, momentum_constants


class SGDP(Projected):
    """The momentum's step, projected; decay apart, times `wd_ratio` where it was projected, over `1 - momentum`."""

    slots = ("momentum_buffer",)
    kernel = SGDW.kernel

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        eps: float = 1e-8,
        delta: float = 0.1,
        wd_ratio: float = 0.1,
        *,
        caution: bool = False,
    ):
        super().__init__(params, **locals())

    def decay_rate(self, group: dict[str, Any]) -> Any:
        return self.lr(group) / (1 - group["momentum"])

    def constants(self, group: dict[str, Any], t: int) -> tuple[float, ...]:
        return momentum_constants(group, t)

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        return accumulate(block.state[0], block.grads, block, group)

"""MARS (2411.10438): AdamW over gradients corrected by the change since the last one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import Tensor

from imgzoo_optim import foreach
from imgzoo_optim.base import Block, Optimizer, norms, scale_

from .moments import adaptive_step, average_, average_square_


class MARS(Optimizer):
    """`c = g + gamma * beta1 / (1 - beta1) * (g - g_last)`, clipped to norm 1, feeds AdamW; vectors are plain."""

    slots = ("exp_avg", "exp_avg_sq", "last_grad")
    whole = True

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 3e-3,
        betas: tuple[float, float] = (0.9, 0.99),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        gamma: float = 0.025,
        mars_type: str = "adamw",
        optimize_1d: bool = False,
        lr_1d_factor: float = 1.0,
        betas_1d: tuple[float, float] | None = None,
        *,
        caution: bool = False,
    ):
        betas_1d = betas_1d or betas
        super().__init__(params, **locals())

    def initial(self, slot: str, param: Tensor, grad: Tensor) -> Tensor:
        empty = super().initial(slot, param, grad)
        return empty.copy_(grad) if slot == "last_grad" else empty

    def decay(self, group: dict[str, Any]) -> str:
        return "own"

    def _batches(self, group: dict[str, Any]) -> Iterator[tuple[list[Tensor], Any]]:
        for params, t in super()._batches(group):
            for vectors in (True, False):
                some = [p for p in params if (p.ndim <= 1) == vectors]
                if some:
                    yield some, t

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        last = block.state[2]
        if self.plain(block, group):
            foreach.copy_(last, block.grads)
            return foreach.mul(block.grads, 1)
        beta1 = group["betas"][0]
        ahead = foreach.sub(block.grads, last)
        foreach.mul_(ahead, group["gamma"] * beta1 / (1 - beta1))
        foreach.add_(ahead, block.grads)
        foreach.copy_(last, block.grads)
        return ahead

    @staticmethod
    def plain(block: Block, group: dict[str, Any]) -> bool:
        """Whether these are vectors, which get AdamW unless told otherwise."""
        return block.params[0].ndim <= 1 and not group["optimize_1d"]

    def finish(self, blocks: list[Block], group: dict[str, Any]) -> None:
        plain = self.plain(blocks[0], group)
        if not plain:
            factors = norms(blocks, lambda block: block.steps).clamp_(min=1.0).reciprocal_().unbind()
            for block in blocks:
                scale_(block.steps, factors)
        for block in blocks:
            block.steps = self.moments(block, group, group["betas_1d"] if plain else group["betas"], plain)
        super().finish(blocks, group)
        for block in blocks:
            foreach.add_(block.steps, block.params, alpha=group["weight_decay"])
            if plain and group["lr_1d_factor"] != 1:
                foreach.mul_(block.steps, group["lr_1d_factor"])

    @staticmethod
    def moments(block: Block, group: dict[str, Any], betas: tuple[float, float], plain: bool) -> list[Tensor]:
        """AdamW's step, or Lion's, from the corrected gradients."""
        mean, square, _ = block.state
        beta1, beta2 = betas
        average_(mean, block.steps, beta1)
        if group["mars_type"] == "lion" and not plain:
            return foreach.sign(mean)
        average_square_(square, block.steps, beta2)
        return adaptive_step(mean, square, 1 - beta1**block.t, 1 - beta2**block.t, group["eps"])

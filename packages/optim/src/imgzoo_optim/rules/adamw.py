"""AdamW (1711.05101), on request with AMSGrad (1904.09237) and the update clipping of StableAdamW (2304.13013)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from imgzoo_optim import foreach
from imgzoo_optim.base import Block, Optimizer, norms, scale_
from imgzoo_optim.kernel import Kernel

from .moments import adaptive_step, average_, average_square_, largest_


class AdamW(Optimizer):
    """`p -= lr * m_hat / (sqrt(v_hat) + eps)`, decay apart.

    `clipping_threshold` bounds the root mean square of `g / sqrt(v_hat)` in each tensor: above it, the step shrinks.
    """

    slots = ("exp_avg", "exp_avg_sq", "max_exp_avg_sq")
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
        clipping_threshold: float | None = None,
        *,
        caution: bool = False,
        corrected_weight_decay: bool = False,
        maximize: bool = False,
    ):
        super().__init__(params, **locals())

    def slots_of(self, group: dict[str, Any]) -> tuple[str, ...]:
        return self.slots if group["amsgrad"] else self.slots[:-1]

    def sees_whole(self, group: dict[str, Any]) -> bool:
        return super().sees_whole(group) or group["clipping_threshold"] is not None

    def finish(self, blocks: list[Block], group: dict[str, Any]) -> None:
        super().finish(blocks, group)
        threshold = group["clipping_threshold"]
        if threshold is None:
            return
        correction = (1 - group["betas"][1] ** blocks[0].t) ** 0.5

        def relative(block: Block) -> list[Tensor]:
            sizes = foreach.sqrt(block.state[1])
            foreach.div_(sizes, correction)
            foreach.clamp_min_(sizes, group["eps"])
            return foreach.div(block.grads, sizes)

        counts = [p.numel() for p in blocks[0].params]
        if len(blocks) > 1:  # the pieces of one tensor
            counts = [sum(block.params[0].numel() for block in blocks)]
        rms = [norm / count**0.5 for norm, count in zip(norms(blocks, relative).unbind(), counts, strict=True)]
        factors = [(each / threshold).clamp_(min=1.0).reciprocal_() for each in rms]
        for block in blocks:
            scale_(block.steps, factors)

    def constants(self, group: dict[str, Any], t: int) -> tuple[float, ...]:
        beta1, beta2 = group["betas"]
        return 1 - beta1, 1 - beta2, 1 / (1 - beta1**t), (1 - beta2**t) ** -0.5, group["eps"]

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        mean, square, *kept = block.state
        beta1, beta2 = group["betas"]
        average_(mean, block.grads, beta1)
        average_square_(square, block.grads, beta2)
        c1, c2 = 1 - beta1**block.t, 1 - beta2**block.t
        return adaptive_step(self.ahead(mean, block.grads, beta1), largest_(kept, square), c1, c2, group["eps"])

    @staticmethod
    def ahead(mean: list[Tensor], grads: list[Tensor], beta: float) -> list[Tensor]:
        """The momentum that the step takes."""
        return mean

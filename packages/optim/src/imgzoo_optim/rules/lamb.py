"""LAMB (1904.00962): Adam's step, rescaled layer by layer to the weight's norm."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imgzoo_optim import foreach, kernels
from imgzoo_optim.base import Block, Optimizer, Scalar, flatten, norms
from imgzoo_optim.kernel import Kernel

from .moments import adaptive_step, average_square_


class LAMB(Optimizer):
    """`u = m_hat / (sqrt(v_hat) + eps) + decay * p; p -= lr * |p| / |u| * u`, the global norm clipped before."""

    slots = ("exp_avg", "exp_avg_sq")
    kernel = Kernel(
        ("m", "v"),
        ("clip", "beta1", "gain", "a2", "c1", "c2", "eps", "decay"),
        "g *= clip; m = beta1 * m + gain * g; v += a2 * (g * g - v);",
        "u = m * c1 / (sqrtf(v) * c2 + eps) + decay * p;",
    )
    whole = True

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        bias_correction: bool = True,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-6,
        weight_decay: float = 0.01,
        grad_averaging: bool = True,
        max_grad_norm: float | None = 1.0,
        trust_clip: bool = False,
        always_adapt: bool = False,
        *,
        caution: bool = False,
        decoupled_decay: bool = False,
        corrected_weight_decay: bool = False,
    ):
        super().__init__(params, **locals())
        self._clip: Tensor | None = None

    def decay(self, group: dict[str, Any]) -> str:
        return "shrink" if group["decoupled_decay"] else "own"

    def before(self) -> None:
        limit = self.defaults["max_grad_norm"]
        grads = [p.grad for p in flatten(self.param_groups) if p.grad is not None]
        self._clip = None
        if limit is not None and grads:
            self._clip = (limit / torch.linalg.vector_norm(kernels.norms(grads))).clamp_(max=1.0)

    def shrink(self, group: dict[str, Any]) -> Any:
        return 1.0

    def constants(self, group: dict[str, Any], t: int) -> tuple[Scalar, ...]:
        beta1, beta2 = group["betas"]
        gain = 1 - beta1 if group["grad_averaging"] else 1.0
        c1, c2 = (1 / (1 - beta1**t), (1 - beta2**t) ** -0.5) if group["bias_correction"] else (1.0, 1.0)
        clip = 1.0 if self._clip is None else self._clip
        return clip, beta1, gain, 1 - beta2, c1, c2, group["eps"], self._joined(group)

    @staticmethod
    def _joined(group: dict[str, Any]) -> float:
        """Decay that the compiled loop adds to the step itself; caution has to come first."""
        return 0.0 if group["decoupled_decay"] or group["caution"] else group["weight_decay"]

    def direction(self, block: Block, group: dict[str, Any]) -> list[Tensor]:
        mean, square = block.state
        beta1, beta2 = group["betas"]
        if self._clip is not None:
            block.grads = foreach.mul(block.grads, self._clip.to(block.grads[0].device))
        foreach.mul_(mean, beta1)
        foreach.add_(mean, block.grads, alpha=1 - beta1 if group["grad_averaging"] else 1)
        average_square_(square, block.grads, beta2)
        corrects = group["bias_correction"]
        c1, c2 = (1 - beta1**block.t, 1 - beta2**block.t) if corrects else (1.0, 1.0)
        return adaptive_step(mean, square, c1, c2, group["eps"])

    def finish(self, blocks: list[Block], group: dict[str, Any]) -> None:
        super().finish(blocks, group)
        decay = group["weight_decay"]
        for block in blocks if decay else ():
            if group["decoupled_decay"]:  # before the norms
                foreach.mul_(block.params, super().shrink(group))
            elif not (block.compiled and self._joined(group)):
                foreach.add_(block.steps, block.params, alpha=decay)
        if not decay and not group["always_adapt"]:
            return
        trust = self._trust(group, norms(blocks, lambda block: block.params), norms(blocks, lambda block: block.steps))
        for block in blocks:
            block.scales = trust

    def weigh(self, group: dict[str, Any], params: list[Tensor], sums: list[Tensor]) -> Tensor:
        kept = super().shrink(group)
        squares = torch.stack([each.sum(0) for each in sums])
        trust = torch.ones(len(sums), dtype=torch.float64, device="cpu")
        if group["weight_decay"] or group["always_adapt"]:
            trust = self._trust(group, squares[:, 1].sqrt() * kept, squares[:, 4].sqrt())
        factors = torch.stack([torch.full_like(trust, kept), torch.zeros_like(trust), trust * self.lr(group)], 1)
        return factors.repeat_interleave(torch.tensor([len(each) for each in sums], device="cpu"), 0)

    @staticmethod
    def _trust(group: dict[str, Any], weights: Tensor, steps: Tensor) -> Tensor:
        """What a layer's rate is multiplied by, from the norms of its weight and its step."""
        trust = torch.where((weights > 0) & (steps > 0), weights / steps, torch.ones_like(weights))
        return trust.clamp_(max=1.0) if group["trust_clip"] else trust

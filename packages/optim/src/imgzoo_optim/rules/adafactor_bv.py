"""Adafactor as Big Vision trains vision transformers with it (2106.04560, section 3.4)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imgzoo.errors import UsageError
from imgzoo.options import Range
from imgzoo_optim import foreach
from imgzoo_optim.base import Block, Optimizer, low, subtract_

from .factored import clip_rms_, factored_step, mean_squares, pieces


def factored_axes(shape: torch.Size, least: int) -> tuple[int, int] | None:
    """The axes (rows, columns) to factor: the second largest and the largest; None when that is under `least`."""
    order = sorted(range(len(shape)), key=lambda k: shape[k])
    if len(shape) < 2 or shape[order[-2]] < least:
        return None
    return order[-2], order[-1]


def float_type(name: str) -> torch.dtype:
    """A floating-point dtype by name: `bfloat16`, `float32`, ..."""
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise UsageError(f"momentum_dtype is a floating-point dtype or its name, such as 'bfloat16', not '{name}'")
    return dtype


class AdafactorBigVision(Optimizer):
    """Factored second moments with a cap on their decay, momentum in half precision, an absolute learning rate."""

    real_only = True
    ranges = {"decay_rate": Range(0, above=True)}

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1.0,
        min_dim_size_to_factor: int = 16,
        decay_rate: float = 0.8,
        decay_offset: int = 0,
        beta2_cap: float = 0.999,
        momentum: float | None = 0.9,
        momentum_dtype: str | torch.dtype = torch.bfloat16,
        eps: float | None = None,
        weight_decay: float = 0.0,
        clipping_threshold: float | None = None,
        unscaled_wd: bool = False,
        *,
        caution: bool = False,
        corrected_weight_decay: bool = False,
    ):
        if isinstance(momentum_dtype, str):
            momentum_dtype = float_type(momentum_dtype)
        super().__init__(params, **locals())

    def create(self, state: dict[str, Any], param: Tensor, group: dict[str, Any]) -> None:
        like = self.initial("", param, param)
        axes = factored_axes(param.shape, group["min_dim_size_to_factor"])
        if axes is None:
            state["exp_avg_sq"] = like
        else:
            state["exp_avg_sq_r"], state["exp_avg_sq_c"] = (like.sum(k, keepdim=True) for k in (axes[1], axes[0]))
        if group["momentum"] is not None:
            state["exp_avg"] = torch.zeros_like(like, dtype=group["momentum_dtype"])

    def state_dtype(self, key: str, param: Tensor, group: dict[str, Any]) -> torch.dtype | None:
        return group["momentum_dtype"] if key == "exp_avg" else super().state_dtype(key, param, group)

    def shrink(self, group: dict[str, Any]) -> Any:
        if not group["unscaled_wd"] or not group["weight_decay"]:
            return super().shrink(group)
        factor = self.corrected(group) if group["corrected_weight_decay"] else 1.0
        return 1 - factor * group["weight_decay"]

    def update(self, group: dict[str, Any], params: list[Tensor], t: Any) -> None:
        age = max(float(t) - group["decay_offset"], 1.0)
        beta2 = min(group["beta2_cap"], 1 - age ** -group["decay_rate"])
        for param in params:
            state: dict[str, Any] = self.state[param]
            grad: Any = param.grad
            grad = grad.float() if low(grad.dtype) else grad  # type: ignore[union-attr]
            steps = self._normalized(state, grad, group, beta2)
            if group["clipping_threshold"] is not None:
                clip_rms_(steps, group["clipping_threshold"])
            whole = param.float() if low(param.dtype) else param
            targets = pieces(whole)
            if group["momentum"] is not None:
                means = pieces(state["exp_avg"])
                foreach.lerp_(means, [step.to(means[0].dtype) for step in steps], 1 - group["momentum"])
                foreach.copy_(steps, means)
            if group["caution"]:
                blocks = [Block([0], [[p], [g]], t) for p, g in zip(targets, pieces(grad))]
                for block, step in zip(blocks, steps):
                    block.steps = [step]
                self.caution(blocks)
            shrink = self.shrink(group)
            if isinstance(shrink, Tensor) or shrink != 1:
                foreach.mul_(targets, shrink)
            subtract_(targets, steps, self.lr(group))
            if whole is not param:
                param.copy_(whole)

    def _normalized(self, state: dict[str, Any], grad: Tensor, group: dict[str, Any], beta2: float) -> list[Tensor]:
        eps = group["eps"] if group["eps"] is not None else 1e-30
        axes = factored_axes(grad.shape, group["min_dim_size_to_factor"])
        if axes is None:
            square = state["exp_avg_sq"]
            torch.lerp(square, (grad * grad).add_(eps), 1 - beta2, out=square)
            return pieces(square.rsqrt().mul_(grad))
        rows, columns = state["exp_avg_sq_r"], state["exp_avg_sq_c"]
        for mean, new in zip((rows, columns), mean_squares(grad, *axes, eps)):
            mean.lerp_(new, 1 - beta2)
        return factored_step(grad, rows, columns, axes[0])

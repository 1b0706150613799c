"""Adafactor (1804.04235): Adam with factored second moments, update clipping and relative steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imgzoo.options import Range
from imgzoo_optim import foreach
from imgzoo_optim.base import Block, Optimizer, low

from .factored import clip_rms_, compiled_step, factored_step, mean_squares, pieces, run_compiled


def factored_axes(shape: torch.Size, least: int) -> tuple[int, int] | None:
    """The axes (rows, columns) to factor: the first two, as in kernels, or the last two; None for small shapes."""
    for rows, columns in ((0, 1), (len(shape) - 2, len(shape) - 1)):
        if len(shape) > 1 and shape[rows] > least and shape[columns] > least:
            return rows, columns
    return None


class Adafactor(Optimizer):
    """`p -= rate * clip(g / sqrt(v))`, `v` factored; without `lr` the rate falls as `1 / sqrt(t)` by itself."""

    real_only = True
    ranges = {"decay_rate": Range(high=0, below=True)}

    def __init__(
        self,
        params: Any,
        lr: float | Tensor | None = None,
        eps: float = 1e-30,
        eps_scale: float = 1e-3,
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        betas: tuple[float, float] | None = None,
        weight_decay: float = 0.0,
        scale_parameter: bool = True,
        warmup_init: bool = False,
        min_dim_size_to_factor: int = 16,
        *,
        caution: bool = False,
    ):
        super().__init__(params, **locals())

    def create(self, state: dict[str, Any], param: Tensor, group: dict[str, Any]) -> None:
        like = self.initial("", param, param)
        axes = factored_axes(param.shape, group["min_dim_size_to_factor"])
        if axes is None:
            state["exp_avg_sq"] = like
        else:
            state["exp_avg_sq_row"], state["exp_avg_sq_col"] = (like.sum(k, keepdim=True) for k in (axes[1], axes[0]))
        if group["betas"] is not None:
            state["exp_avg"] = torch.zeros_like(like)

    def _rate(self, group: dict[str, Any], param: Tensor, t: int) -> Any:
        """The given rate; or the relative one, times the weight's root mean square unless told otherwise."""
        rate = self.lr(group)
        if rate is not None:
            return rate
        rate = min(1e-6 * t if group["warmup_init"] else 1e-2, t**-0.5)
        if not group["scale_parameter"]:
            return rate
        rms = torch.linalg.vector_norm(param.float() if low(param.dtype) else param) / param.numel() ** 0.5
        return rms.clamp_(min=group["eps_scale"]).mul_(rate)

    def update(self, group: dict[str, Any], params: list[Tensor], t: Any) -> None:
        for param in self._compiled_steps(group, params, t):
            state: dict[str, Any] = self.state[param]
            grad: Any = param.grad
            grad = grad.float() if low(grad.dtype) else grad
            rate = self._rate(group, param, t)
            steps = self._normalized(state, grad, group, 1 - float(t) ** group["decay_rate"])
            clip_rms_(steps, group["clip_threshold"])
            foreach.mul_(steps, rate)
            if group["betas"] is not None:
                means = pieces(state["exp_avg"])
                foreach.lerp_(means, steps, 1 - group["betas"][0])
                foreach.copy_(steps, means)
            if group["caution"]:
                parts = zip(pieces(param), pieces(grad), steps)
                blocks = [Block([0], [[p], [g]], t) for p, g, _ in parts]
                for block, step in zip(blocks, steps):
                    block.steps = [step]
                self.caution(blocks)
            whole = param.float() if low(param.dtype) else param
            targets = pieces(whole)
            if group["weight_decay"]:
                foreach.mul_(targets, 1 - group["weight_decay"] * rate)
            foreach.sub_(targets, steps)
            if whole is not param:
                param.copy_(whole)

    def _compiled_steps(self, group: dict[str, Any], params: list[Tensor], t: Any) -> list[Tensor]:
        """Make the steps that the compiled loop can make; returns the other parameters."""
        if torch.compiler.is_compiling() or group["betas"] is not None or group["caution"] or compiled_step() is None:
            return params
        rows, rest = [], []
        for param in params:
            tensors: list[Any] = [param, param.grad]
            if factored_axes(param.shape, group["min_dim_size_to_factor"]) == (0, 1):
                tensors += [self.state[param]["exp_avg_sq_row"], self.state[param]["exp_avg_sq_col"]]
            plain = all(x.is_cpu and x.dtype == torch.float32 and x.is_contiguous() for x in tensors)
            if len(tensors) == 4 and plain:
                rows.append((tensors, float(self._rate(group, param, t))))
            else:
                rest.append(param)
        if rows:
            weight = float(t) ** group["decay_rate"]
            run_compiled(rows, weight, group["eps"], group["clip_threshold"], group["weight_decay"])
        return rest

    def _normalized(self, state: dict[str, Any], grad: Tensor, group: dict[str, Any], beta2: float) -> list[Tensor]:
        axes = factored_axes(grad.shape, group["min_dim_size_to_factor"])
        if axes is None:
            square = state["exp_avg_sq"]
            torch.lerp(square, (grad * grad).add_(group["eps"]), 1 - beta2, out=square)
            return pieces(square.rsqrt().mul_(grad))
        rows, columns = state["exp_avg_sq_row"], state["exp_avg_sq_col"]
        for mean, new in zip((rows, columns), mean_squares(grad, *axes, group["eps"])):
            mean.lerp_(new, 1 - beta2)
        return factored_step(grad, rows, columns, axes[0])

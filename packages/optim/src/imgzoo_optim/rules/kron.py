"""PSGD Kron (1512.04202; Li 2022): gradients whitened by Kronecker factors that learn online."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from imgzoo_optim.base import Optimizer, flatten, low

SEED = 5318008


def update_probability(
    step: int, most: float = 1.0, least: float = 0.03, decay: float = 0.001, flat: int = 500
) -> float:
    """How often the factors learn: always for `flat` steps, then ever more rarely."""
    return max(least, min(most, most * math.exp(-decay * (step - flat))))


def make_factors(shape: torch.Size, group: dict[str, Any], like: Tensor) -> list[Tensor]:
    """One factor an axis: triangular, or a diagonal where the axis is long, the tensor flat, or memory is short."""
    scale = group["precond_init_scale"] ** (1 / max(1, len(shape)))
    if not shape:
        return [scale * torch.ones_like(like)]
    mode = group["memory_save_mode"]
    diagonal = {
        None: lambda axis: False,
        "one_diag": lambda axis: axis == _longest(shape),
        "all_diag": lambda axis: True,
    }
    factors = []
    for axis, size in enumerate(shape):
        flat = size == 1 or size > group["max_size_triangular"] or len(shape) < group["min_ndim_triangular"]
        if flat or diagonal[mode](axis):
            factors.append(scale * like.new_ones(size))
        else:
            factors.append(scale * torch.eye(size, dtype=like.dtype, device=like.device))
    return factors


def _longest(shape: torch.Size) -> int:
    return max(range(len(shape)), key=lambda axis: shape[axis])


def apply_factors(factors: list[Tensor], x: Tensor) -> Tensor:
    """Multiply each axis of `x` by its factor."""
    for axis, factor in enumerate(factors):
        if factor.ndim < 2:
            shape = [1] * x.ndim
            if x.ndim:
                shape[axis] = -1
            x = x * factor.view(shape)
        else:
            x = torch.movedim(torch.tensordot(factor, x, dims=([1], [axis])), 0, axis)  # type: ignore[arg-type]
    return x


def precondition(factors: list[Tensor], x: Tensor) -> Tensor:
    """`Q^T Q` on every axis."""
    return apply_factors([q.mT if q.ndim == 2 else q for q in factors], apply_factors(factors, x))


def _gram(x: Tensor, axis: int, diagonal: bool) -> Tensor:
    """Inner products along one axis: a matrix, or its diagonal."""
    rows = x.movedim(axis, 0).reshape(x.shape[axis] if x.ndim else 1, -1)
    gram = (rows * rows).sum(1) if diagonal else rows @ rows.mT
    return gram if x.ndim else gram[0]


def _norm_bound(x: Tensor) -> Tensor:
    """A cheap lower bound of the spectral norm of a symmetric matrix."""
    largest = x.abs().max().clamp_min(torch.finfo(x.dtype).tiny)
    x = x / largest
    sums = (x * x).sum(0)
    value, i = sums.max(0)
    row = torch.index_select(x, 1, i.view(1)).view(-1) @ x
    return (
        largest * torch.linalg.vector_norm((row / row.norm().clamp_min(torch.finfo(x.dtype).tiny)) @ x.mT) * (value > 0)
    )


def learn_factors(factors: list[Tensor], probe: Tensor, grad: Tensor, rate: float, tiny: float) -> None:
    """One step of the factors: make the whitened gradient's covariance that of the probe."""
    white = apply_factors(factors, grad)
    order = grad.ndim
    inverse = probe.permute(*range(1, order), 0) if order else probe
    for axis, q in enumerate(factors):
        if q.ndim < 2:
            inverse = inverse / q
        else:
            rows = torch.atleast_2d(inverse)
            inverse = torch.linalg.solve_triangular(q, rows, upper=True, left=False).view_as(inverse)
        if axis < order - 1:
            inverse = inverse.transpose(axis, order - 1)
    for axis, q in enumerate(factors):
        flat = q.ndim < 2
        first, second = _gram(white, axis, flat), _gram(inverse, axis, flat)
        if flat:
            bound = (first + second).abs().max() + tiny
            q.sub_(rate / bound * (first - second) * q)
        else:
            bound = _norm_bound(first + second) + tiny
            q.sub_(rate / bound * torch.triu(first - second) @ q)


def balance(factors: list[Tensor]) -> None:
    """Give all factors the same largest element."""
    norms = torch.stack([q.abs().max() for q in factors])
    mean = norms.log().mean().exp()
    for q, norm in zip(factors, norms):
        q.mul_(mean / norm)


def _generator_like_torchs(device: torch.device) -> torch.Generator:
    """A generator that draws what torch's own of this device would draw next."""
    own = torch if device.type == "cpu" else torch.get_device_module(device)
    generator = torch.Generator(device)
    generator.set_state(own.get_rng_state())
    return generator


class Kron(Optimizer):
    """`p -= lr * clip(Q^T Q m_hat)`, the factors `Q` learning with a probability that falls over training.

    The factors learn from random probes. They come from a generator that starts as torch's stands at the first step and
    is saved with the state; with `deterministic=True`, the default where ranks train together, they depend on the step
    and the parameter's place alone. `mu_dtype` and `precond_dtype` are the precision of the momentum and of the
    factors. `flatten` joins the axes from `flatten_start_dim` to `flatten_end_dim` first, as the taps of a convolution.
    `stochastic_weight_decay` multiplies the decay by a number drawn from [0, 2) each step.
    """

    real_only = True
    carried = ("generator",)

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        preconditioner_update_probability: Callable[[int], float] | float | None = None,
        max_size_triangular: int = 2048,
        min_ndim_triangular: int = 2,
        memory_save_mode: Literal["one_diag", "all_diag"] | None = None,
        momentum_into_precond_update: bool = True,
        precond_lr: float = 0.1,
        precond_init_scale: float = 1.0,
        mu_dtype: torch.dtype | None = None,
        precond_dtype: torch.dtype | None = None,
        decoupled_decay: bool = False,
        corrected_weight_decay: bool = False,
        flatten: bool = False,
        flatten_start_dim: int = 2,
        flatten_end_dim: int = -1,
        stochastic_weight_decay: bool = False,
        deterministic: bool | None = None,
    ):
        super().__init__(params, **locals())
        self.generator: torch.Generator | None = None

    def state_dict(self) -> dict[str, Any]:
        probes = {} if self.generator is None else {"probes": {"generator": self.generator.get_state()}}
        return {**super().state_dict(), **probes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict({key: value for key, value in state_dict.items() if key != "probes"})
        self.generator = None
        if "probes" in state_dict:
            self.generator = torch.Generator(flatten(self.param_groups)[0].device)
            self.generator.set_state(state_dict["probes"]["generator"])

    def decay(self, group: dict[str, Any]) -> str:
        return "shrink" if group["decoupled_decay"] else "own"

    def create(self, state: dict[str, Any], param: Tensor, group: dict[str, Any]) -> None:
        like = self.initial("", param, param)
        state["momentum_buffer"] = torch.zeros_like(like, dtype=group["mu_dtype"])
        state["update_counter"] = 0
        dtype = group["precond_dtype"] or like.dtype
        state["Q"] = make_factors(
            self._axes(like, group).shape, group, torch.ones((), dtype=dtype, device=param.device)
        )

    def state_dtype(self, key: str, param: Tensor, group: dict[str, Any]) -> torch.dtype | None:
        asked = {"momentum_buffer": group["mu_dtype"], "Q": group["precond_dtype"]}
        return asked.get(key) or super().state_dtype(key, param, group)

    @staticmethod
    def _axes(x: Tensor, group: dict[str, Any]) -> Tensor:
        """A tensor with the axes that get a factor each."""
        if not group["flatten"] or x.ndim <= group["flatten_start_dim"]:
            return x
        return x.flatten(group["flatten_start_dim"], group["flatten_end_dim"])

    def before(self) -> None:
        self._place = 0

    def shrink(self, group: dict[str, Any]) -> Any:
        shrink = super().shrink(group)
        return 1 - (1 - shrink) * self._decay_factor(group) if group["stochastic_weight_decay"] else shrink

    @staticmethod
    def _decay_factor(group: dict[str, Any]) -> float:
        return 2 * random.Random(SEED - group["t"]).random() if group["stochastic_weight_decay"] else 1.0

    def update(self, group: dict[str, Any], params: list[Tensor], t: Any) -> None:
        given: Callable[[int], float] | float | None = group["preconditioner_update_probability"]
        chance = update_probability if given is None else given
        share = chance(t) if callable(chance) else chance
        for param in params:
            self._step_one({**group, "t": t}, param, t, share)
            self._place += 1

    def _probe(self, like: Tensor, group: dict[str, Any]) -> Tensor:
        """Normal numbers in the shape, dtype and place of `like`."""
        fixed = group["deterministic"]
        if fixed or (fixed is None and torch.distributed.is_available() and torch.distributed.is_initialized()):
            generator = torch.Generator(like.device).manual_seed(SEED + (int(group["t"]) << 20) + self._place)
        else:
            generator = self.generator = self.generator or _generator_like_torchs(like.device)
        probe = torch.randn(like.shape, generator=generator, dtype=like.dtype, device=generator.device)
        return probe.to(like.device)

    def _step_one(self, group: dict[str, Any], param: Tensor, t: int, chance: float) -> None:
        state = self.state[param]
        buffer = state["momentum_buffer"]
        grad: Any = param.grad
        beta, dtype = group["momentum"], state["Q"][0].dtype
        buffer.lerp_(grad.to(buffer.dtype), 1 - beta)
        mean = self._axes((buffer / (1 - beta**t)).to(dtype), group)
        state["update_counter"] += 1
        learns = chance > 0 and state["update_counter"] >= 1 / chance
        if learns:
            state["update_counter"] = 0
            if grad.ndim > 1 and random.Random(SEED + t).random() < 0.01:
                balance(state["Q"])
            source = mean if group["momentum_into_precond_update"] else self._axes(grad.to(dtype), group)
            learn_factors(state["Q"], self._probe(source, group), source, group["precond_lr"], torch.finfo(dtype).tiny)
        step = precondition(state["Q"], mean).reshape(param.shape)
        rms = torch.linalg.vector_norm(step) / step.numel() ** 0.5
        step.mul_((1.1 / (rms + 1e-6)).clamp_(max=1.0))
        target = param.float() if low(param.dtype) else param
        step = step.to(target.dtype)
        if group["weight_decay"] and not group["decoupled_decay"]:
            step.add_(target, alpha=group["weight_decay"] * self._decay_factor(group))
        shrink = self.shrink(group)
        target.mul_(shrink).sub_(step.mul_(self.lr(group)))
        if target is not param:
            param.copy_(target)

"""Gradient clipping by norm, by value, or by the ratio of gradient to weight; no host synchronization."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo.errors import UsageError

from . import foreach


def _gradients(params: Iterable[Tensor]) -> list[Tensor]:
    return [p.grad for p in params if p.grad is not None]


def gathered(norm: Any) -> Tensor:
    """A norm of sharded gradients (FSDP2) as a plain tensor, the same on every rank."""
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def total_norm(grads: list[Tensor], order: float = 2.0) -> Tensor:
    """Norm of all gradients as one vector: a 0-d tensor on their device."""
    if not grads:
        return torch.zeros(())
    device = grads[0].device
    if any(grad.is_sparse for grad in grads):
        norms = [torch.linalg.vector_norm(g.coalesce().values() if g.is_sparse else g, order) for g in grads]
    else:
        norms = foreach.norm(grads, order)
    return torch.linalg.vector_norm(torch.stack([norm.to(device) for norm in norms]), order)


@torch.no_grad()
def clip_by_norm(params: list[Tensor], value: float, order: float = 2.0) -> Tensor:
    """Scale all gradients so that their total norm is at most `value`."""
    grads = _gradients(params)
    norm = total_norm(grads, order)
    factor = (value / (norm + 1e-6)).clamp(max=1.0)
    if any(grad.device != factor.device or grad.is_sparse for grad in grads):
        for grad in grads:
            grad.mul_(factor.to(grad.device))
    elif grads:
        foreach.mul_(grads, factor)
    return gathered(norm)


@torch.no_grad()
def clip_by_value(params: list[Tensor], value: float, order: float = 2.0) -> Tensor:
    """Clamp every gradient element into [-value, value]."""
    grads = _gradients(params)
    norm = total_norm(grads, order)
    if grads:
        foreach.clamp_min_(grads, -value)
        foreach.clamp_max_(grads, value)
    return gathered(norm)


def _unit_dims(x: Tensor) -> list[int]:
    """The axes inside one output unit: none of a vector, all but the first of a matrix or kernel."""
    return list(range(x.ndim))[1:] if x.ndim > 1 else []


@torch.no_grad()
def clip_adaptively(params: list[Tensor], value: float, order: float = 2.0, eps: float = 1e-3) -> Tensor:
    """Scale each unit's gradient to at most `value` times its weight's norm (2102.06171, section 4.1)."""
    params = [p for p in params if p.grad is not None]
    norm = total_norm(_gradients(params), order)
    for param in params:
        grad: Any = param.grad
        if param.ndim <= 1:
            weight, size = torch.linalg.vector_norm(param, order), torch.linalg.vector_norm(grad, order)
        else:
            dims = _unit_dims(param)
            weight = torch.linalg.vector_norm(param, order, dim=dims, keepdim=True)
            size = torch.linalg.vector_norm(grad, order, dim=dims, keepdim=True)
        limit = weight.clamp(min=eps) * value
        grad.mul_((limit / size.clamp(min=1e-6)).clamp(max=1.0))
    return gathered(norm)


MODES = {"norm": clip_by_norm, "value": clip_by_value, "agc": clip_adaptively}


def clip_gradients(
    params: nn.Module | Tensor | Iterable[Tensor], value: float, mode: str = "norm", *, norm_type: float = 2.0
) -> Tensor:
    """Clip gradients in place and return their total norm from before, a tensor that was never read on the host.

    `mode` is `norm` (total norm at most `value`), `value` (each element within `value`) or `agc` (each unit's norm at
    most `value` times its weight's). Given a model, `agc` leaves its classifier alone, as NFNet does.
    """
    if mode not in MODES:
        raise UsageError(f"mode must be one of {', '.join(MODES)}, got '{mode}'")
    if not value > 0:
        raise UsageError(f"the clipping value must be positive, got {value}")
    if isinstance(params, nn.Module):
        kept = _head(params) if mode == "agc" else set()
        params = [p for p in params.parameters() if id(p) not in kept]
    params = [params] if isinstance(params, Tensor) else list(params)
    return MODES[mode](params, float(value), norm_type)


def _head(model: nn.Module) -> set[int]:
    """Ids of the classifier's parameters."""
    heads: Any = model.get_classifier() if hasattr(model, "get_classifier") else ()  # type: ignore[operator]
    heads = heads if isinstance(heads, list | tuple) else (heads,)
    return {id(p) for head in heads if isinstance(head, nn.Module) for p in head.parameters()}

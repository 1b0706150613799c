"""Running averages that several rules keep."""

from __future__ import annotations

import torch
from torch import Tensor

from imgzoo_optim.base import Scalar


def average_(mean: list[Tensor], x: list[Tensor], beta: float) -> None:
    """`mean = beta * mean + (1 - beta) * x`."""
    torch._foreach_lerp_(mean, x, 1 - beta)


def average_square_(mean: list[Tensor], x: list[Tensor], beta: float) -> None:
    """`mean = beta * mean + (1 - beta) * x * x`."""
    torch._foreach_mul_(mean, beta)
    torch._foreach_addcmul_(mean, x, x, value=1 - beta)


def root(square: list[Tensor], correction: Scalar, eps: float) -> list[Tensor]:
    """`sqrt(square) / sqrt(correction) + eps`, as new tensors."""
    denominator = torch._foreach_sqrt(square)
    torch._foreach_div_(denominator, correction**0.5)
    torch._foreach_add_(denominator, eps)
    return denominator


def adaptive_step(mean: list[Tensor], square: list[Tensor], c1: Scalar, c2: Scalar, eps: float) -> list[Tensor]:
    """`(mean / c1) / (sqrt(square / c2) + eps)`, as new tensors."""
    denominator = torch._foreach_sqrt(square)
    torch._foreach_mul_(denominator, c1 / c2**0.5)
    torch._foreach_add_(denominator, eps * c1)
    return torch._foreach_div(mean, denominator)

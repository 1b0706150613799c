"""Running averages that several rules keep."""

from __future__ import annotations

from torch import Tensor

from imgzoo_optim import foreach
from imgzoo_optim.base import Scalar


def average_(mean: list[Tensor], x: list[Tensor], beta: float) -> None:
    """`mean = beta * mean + (1 - beta) * x`."""
    foreach.lerp_(mean, x, 1 - beta)


def average_square_(mean: list[Tensor], x: list[Tensor], beta: float) -> None:
    """`mean = beta * mean + (1 - beta) * x * x`."""
    foreach.mul_(mean, beta)
    foreach.addcmul_(mean, x, x, value=1 - beta)


def largest_(kept: list[list[Tensor]], square: list[Tensor]) -> list[Tensor]:
    """AMSGrad (1904.09237): the largest second moment so far, where one is kept; else the moment as it is."""
    if not kept:
        return square
    foreach.maximum_(kept[0], square)
    return kept[0]


def root(square: list[Tensor], correction: Scalar, eps: float) -> list[Tensor]:
    """`sqrt(square) / sqrt(correction) + eps`, as new tensors."""
    denominator = foreach.sqrt(square)
    foreach.div_(denominator, correction**0.5)
    foreach.add_(denominator, eps)
    return denominator


def adaptive_step(mean: list[Tensor], square: list[Tensor], c1: Scalar, c2: Scalar, eps: float) -> list[Tensor]:
    """`(mean / c1) / (sqrt(square / c2) + eps)`, as new tensors."""
    denominator = foreach.sqrt(square)
    foreach.mul_(denominator, c1 / c2**0.5)
    foreach.add_(denominator, eps * c1)
    return foreach.div(mean, denominator)

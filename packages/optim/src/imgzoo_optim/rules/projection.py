"""The projection of AdamP and SGDP (2006.08217): take the radial part out of steps of scale-invariant weights."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from imgzoo_optim.base import Block, Optimizer


def _rows(pieces: list[Tensor]) -> list[Tensor]:
    """A tensor's pieces as matrices whose rows are its channels; of a single channel that was cut, its parts."""
    return [x.flatten(1) for x in pieces]


def _dot(x: list[Tensor], y: list[Tensor]) -> Tensor:
    """Inner products of the rows of two matrices that are cut into pieces: one number a row."""
    return torch.cat([torch.linalg.vecdot(a, b) for a, b in zip(x, y)])


def _length(x: list[Tensor]) -> Tensor:
    """Euclidean norms of the rows of a matrix that is cut into pieces."""
    return torch.cat([torch.linalg.vector_norm(a, dim=1) for a in x])


def _orthogonal(dot: Tensor, weight: Tensor, gradient: Tensor, size: int, delta: float, eps: float) -> Tensor:
    """Whether weights are nearly orthogonal to their gradients, given inner products and norms; `size` elements."""
    cosine = dot.abs() / (weight.clamp_min(eps) * gradient.clamp_min(eps))
    return cosine.max() < delta / (size // len(dot)) ** 0.5


def radial_shares(
    size: int, dot: Tensor, weight: Tensor, gradient: Tensor, radial: Callable[[], Tensor], delta: float, eps: float
) -> tuple[Tensor, Tensor]:
    """Which multiple of each channel its step loses (rows,), and whether the tensor counted as scale invariant.

    It does when every channel, or else the whole layer, is nearly orthogonal to its gradient. Given are for each of the
    channels of a tensor of `size` elements the inner product and the norms of weight and gradient, and what computes
    the inner products of weight and step. The answer stays on the device, which nobody waits for: a step that is not
    projected loses nothing.
    """
    layer_weight, layer_gradient = (torch.linalg.vector_norm(x).view(1) for x in (weight, gradient))
    channels = _orthogonal(dot, weight, gradient, size, delta, eps)
    layer = _orthogonal(dot.sum().view(1), layer_weight, layer_gradient, size, delta, eps)
    found = channels | layer
    if found.is_cpu and not found:
        return torch.zeros_like(dot), found
    along = radial()
    by_channel, whole = along / (weight + eps) ** 2, along.sum() / (layer_weight + eps) ** 2
    return torch.where(channels, by_channel, torch.where(layer, whole, 0.0)), found


def project(params: list[Tensor], grads: list[Tensor], steps: list[Tensor], delta: float, eps: float) -> Tensor:
    """Project the step of one tensor, given in pieces along an axis, in place; whether it was scale invariant."""
    weight, gradient, step = (_rows(pieces) for pieces in (params, grads, steps))
    one = len(params[0]) == 1 and len(params) > 1

    def dots(x: list[Tensor], y: list[Tensor]) -> Tensor:
        return _dot(x, y).sum().view(1) if one else _dot(x, y)

    def lengths(x: list[Tensor]) -> Tensor:
        return torch.linalg.vector_norm(_length(x)).view(1) if one else _length(x)

    size = sum(p.numel() for p in weight)
    radial = functools.partial(dots, weight, step)
    products = dots(gradient, weight), lengths(weight), lengths(gradient)
    shares, found = radial_shares(size, *products, radial, delta, eps)
    if found.is_cpu and not found:
        return found
    start = 0
    for p, u in zip(params, steps):
        share = shares if one else shares[start : start + len(p)]
        u.addcmul_(p, share.view(-1, *(1,) * (p.ndim - 1)), value=-1)
        start += len(p)
    return found


def project_blocks(blocks: list[Block], group: dict[str, Any], targets: list[list[Tensor]]) -> Tensor:
    """Project what stands in `targets` for the blocks of a segment, in place.

    Returns the factor of weight decay for each tensor (N,): `wd_ratio` where it was projected.
    """
    if len(blocks) > 1:
        columns: Any = [[b.params[0] for b in blocks]], [[b.grads[0] for b in blocks]], [[x[0] for x in targets]]
    else:
        columns = tuple([[x] for x in column] for column in (blocks[0].params, blocks[0].grads, targets[0]))
    plain = torch.zeros((), dtype=torch.bool, device=blocks[0].params[0].device)
    found = []
    for params, grads, steps in zip(*columns):
        flat = params[0].ndim < 2 or not params[0].numel()
        found.append(plain if flat else project(params, grads, steps, group["delta"], group["eps"]))
    return 1 - torch.stack(found).to(blocks[0].params[0].dtype) * (1 - group["wd_ratio"])


class Projected(Optimizer):
    """Base of both rules: the step is projected, decay stands apart and is weaker where it was.

    The cautious mask compares the projected step with the projected gradient, and its result is projected again.
    """

    whole = True
    real_only = True

    def decay(self, group: dict[str, Any]) -> str:
        return "own"

    def decay_rate(self, group: dict[str, Any]) -> Any:
        """What weight decay is multiplied by."""
        return self.lr(group)

    def row(self, param: Tensor) -> int:
        return param[0].numel() if param.ndim > 1 and len(param) else param.numel()

    def weigh(self, group: dict[str, Any], params: list[Tensor], sums: list[Tensor]) -> Tensor:
        decay, factors = self.decay_rate(group) * group["weight_decay"], []
        for param, each in zip(params, sums):
            dot, weight, gradient, radial, _ = each.unbind(1)
            shares, found = torch.zeros_like(dot), False
            if param.ndim > 1 and len(dot):
                lengths = weight.sqrt(), gradient.sqrt()
                shares, found = radial_shares(
                    param.numel(), dot, *lengths, lambda radial=radial: radial, group["delta"], group["eps"]
                )
            kept = 1 - decay * (group["wd_ratio"] if found else 1.0)
            factors.append(torch.stack([torch.full_like(dot, kept), shares, torch.full_like(dot, self.lr(group))], 1))
        return torch.cat(factors)

    def finish(self, blocks: list[Block], group: dict[str, Any]) -> None:
        steps = [block.steps for block in blocks]
        ratios = project_blocks(blocks, group, steps)
        if group["caution"]:
            grads = [block.grads for block in blocks]
            tangents = [[grad.clone() for grad in each] for each in grads]
            project_blocks(blocks, group, tangents)
            for block, tangent in zip(blocks, tangents):
                block.grads = tangent
            self.caution(blocks)
            for block, each in zip(blocks, grads):
                block.grads = each
            project_blocks(blocks, group, steps)
        for block in blocks if group["weight_decay"] else ():
            block.shrinks = 1 - self.decay_rate(group) * group["weight_decay"] * ratios

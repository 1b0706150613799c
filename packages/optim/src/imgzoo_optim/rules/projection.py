"""The projection of AdamP and SGDP (2006.08217): take the radial part out of steps of scale-invariant weights."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from imgzoo_optim.base import Block, Optimizer


def _dot(x: list[Tensor], y: list[Tensor]) -> Tensor:
    """Inner products of the rows of two matrices that are cut into pieces: one number a row."""
    return torch.cat([torch.linalg.vecdot(a, b) for a, b in zip(x, y)])


def _length(x: list[Tensor]) -> Tensor:
    """Euclidean norms of the rows of a matrix that is cut into pieces."""
    return torch.cat([torch.linalg.vector_norm(a, dim=1) for a in x])


def project(params: list[Tensor], grads: list[Tensor], steps: list[Tensor], delta: float, eps: float) -> Tensor:
    """Project the step of one tensor, given in pieces along its first axis, in place; whether it was scale invariant.

    A weight counts as scale invariant when every channel, or else the whole layer, is nearly orthogonal to its
    gradient. The answer stays on the device, which nobody waits for: a step that is not projected loses nothing.
    """
    rows = [[x.flatten(1) for x in pieces] for pieces in (params, grads, steps)]
    weight, gradient, step = rows
    dot, lengths = _dot(gradient, weight), (_length(weight), _length(gradient))
    size = sum(p.numel() for p in weight)

    def orthogonal(dot: Tensor, p: Tensor, g: Tensor) -> Tensor:
        cosine = dot.abs() / (p.clamp_min(eps) * g.clamp_min(eps))
        return cosine.max() < delta / (size // len(p)) ** 0.5

    layer_lengths = [torch.linalg.vector_norm(x).view(1) for x in lengths]
    channels, layer = orthogonal(dot, *lengths), orthogonal(dot.sum().view(1), *layer_lengths)
    found = channels | layer
    if found.is_cpu and not found:
        return found
    radial = _dot(weight, step)
    by_channel, whole = radial / (lengths[0] + eps) ** 2, radial.sum() / (layer_lengths[0] + eps) ** 2
    shares = torch.where(channels, by_channel, torch.where(layer, whole, 0.0))[:, None]
    start = 0
    for p, u in zip(weight, step):
        u.addcmul_(p, shares[start : start + len(p)], value=-1)
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
        if params[0].ndim > 1 and params[0].shape[0] == 1 and len(params) > 1:  # cut along a later axis
            params, grads, steps = ([x.movedim(0, 1) for x in pieces] for pieces in (params, grads, steps))
        flat = params[0].ndim < 2
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

"""Losses of answers that are a yes or no for each class: (B, C) targets, or class numbers (B,)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .losses import Loss, Reduction, Weights, distribution, exact, focus


def answers(target: Tensor, output: Tensor, smoothing: float = 0.0) -> Tensor:
    """Targets as (B, C) chances of a yes: class numbers smoothed over all classes, given answers towards one half."""
    if target.ndim == 1:
        return distribution(target, output, smoothing)
    target = target.to(output.dtype)
    return target * (1.0 - smoothing) + smoothing / 2 if smoothing else target


def sided(target: Tensor, alpha: float | None) -> Tensor | float:
    """Factors of the yes and no sides: `alpha` and the rest; 1 without it."""
    return 1.0 if alpha is None else target * alpha + (1 - target) * (1 - alpha)


class AnswerLoss(Loss):
    """Base of losses that come class by class: a subclass writes `cells`; `summed` adds the classes of a sample up."""

    summed = False

    def cells(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of each answer: (B, C)."""
        raise NotImplementedError

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        cells = self.cells(output, target)
        return cells.sum(1) if self.summed else cells.mean(1)


class BinaryCrossEntropy(Loss):
    """Each class is a yes or no of its own (arXiv:2110.00476).

    `threshold` turns soft targets above it into 1 and the others into 0; `sum_classes` adds classes up instead of
    averaging; `weight` and `pos_weight` (C) scale classes and their positive side. A smoothed class number puts
    `smoothing / C` on the others; smoothed answers move towards one half.
    """

    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self,
        smoothing: float = 0.0,
        threshold: float | None = None,
        sum_classes: bool = False,
        weight: Weights = None,
        pos_weight: Weights = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction)
        self.keep(weight=weight, pos_weight=pos_weight)
        self.smoothing, self.threshold, self.sum_classes = smoothing, threshold, sum_classes

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        target = answers(target, output, self.smoothing)
        if self.threshold is not None:
            target = (target > self.threshold).to(output.dtype)
        loss = F.binary_cross_entropy_with_logits(
            output, target, weight=self.weight, pos_weight=self.pos_weight, reduction="none"
        )
        return loss.sum(1) if self.sum_classes else loss.mean(1)


class SigmoidFocal(Loss):
    """The focal loss of a yes or no for each class (arXiv:1708.02002); `alpha` is the share of the yes side."""

    def __init__(self, gamma: float = 2.0, alpha: float | None = 0.25, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.gamma, self.alpha = gamma, alpha

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        target = answers(target, output)
        wrong = target * torch.sigmoid(-output) + (1 - target) * torch.sigmoid(output)
        loss = F.binary_cross_entropy_with_logits(output, target, reduction="none") * focus(wrong, self.gamma)
        return (loss * sided(target, self.alpha)).sum(1)


class AsymmetricMultiLabel(AnswerLoss):
    """Focal loss with its own focus for positives and negatives, and a margin for easy negatives (arXiv:2009.14119).

    `weight` and `pos_weight` (C) scale classes and their positive side; without `learned_focus` the focus is a number
    to gradients.
    """

    summed = True
    weight: Tensor | None
    pos_weight: Tensor | None

    def __init__(
        self,
        gamma_neg: float = 4.0,
        gamma_pos: float = 1.0,
        margin: float = 0.05,
        smoothing: float = 0.0,
        weight: Weights = None,
        pos_weight: Weights = None,
        reduction: Reduction = "mean",
        learned_focus: bool = True,
    ) -> None:
        super().__init__(reduction)
        self.keep(weight=weight, pos_weight=pos_weight)
        self.gamma_neg, self.gamma_pos, self.margin, self.smoothing = gamma_neg, gamma_pos, margin, smoothing
        self.learned_focus = learned_focus

    def cells(self, output: Tensor, target: Tensor) -> Tensor:
        yes, chance = answers(target, output, self.smoothing), output.sigmoid()
        no, wrong = 1 - yes, (chance - self.margin).clamp(min=0.0)
        factor = focus(yes * (1 - chance) + no * wrong, yes * self.gamma_pos + no * self.gamma_neg)
        factor = factor if self.learned_focus else factor.detach()
        positive, negative = yes * chance.clamp(min=1e-8).log(), no * (1 - wrong).clamp(min=1e-8).log()
        loss = factor * (negative + (positive if self.pos_weight is None else positive * self.pos_weight))
        return -(loss if self.weight is None else loss * self.weight)


class PolyBinary(AnswerLoss):
    """PolyLoss of a yes or no for each class, over cross-entropy or, with `gamma`, the focal loss (arXiv:2204.12511).

    `alpha` is the share of the yes side.
    """

    def __init__(
        self,
        epsilon: float = 1.0,
        gamma: float = 0.0,
        alpha: float | None = None,
        smoothing: float = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction)
        self.epsilon, self.gamma, self.alpha, self.smoothing = epsilon, gamma, alpha, smoothing

    def cells(self, output: Tensor, target: Tensor) -> Tensor:
        target = answers(target, output, self.smoothing)
        wrong = target * torch.sigmoid(-output) + (1 - target) * torch.sigmoid(output)
        loss = F.binary_cross_entropy_with_logits(output, target, reduction="none") * focus(wrong, self.gamma)
        return (loss + self.epsilon * wrong ** (self.gamma + 1)) * sided(target, self.alpha)


class TwoWay(nn.Module):
    """Positives against negatives, within each image and within each class (Kobayashi, CVPR 2023)."""

    of = "labels"

    def __init__(self, temperature_pos: float = 4.0, temperature_neg: float = 1.0) -> None:
        super().__init__()
        self.pos, self.neg = temperature_pos, temperature_neg

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        output, yes = exact(output), distribution(target, output) > 0.5
        return self._side(output, yes, 1) + self._side(output, yes, 0)

    def _side(self, output: Tensor, yes: Tensor, dim: int) -> Tensor:
        lowest = -math.inf
        negatives = (output / self.neg).masked_fill(yes, lowest)
        positives = (-output / self.pos).masked_fill(~yes, lowest)
        both = yes.any(dim) & (~yes).any(dim)
        if not both.any():
            return output.sum() * 0.0
        axis = (slice(None), both) if dim == 0 else both
        gap = self.neg * negatives[axis].logsumexp(dim) + self.pos * positives[axis].logsumexp(dim)
        return F.softplus(gap).sum() / yes.any(dim).sum()  # a row of positives alone is right, and counts


class Zlpr(Loss):
    """Zero-bounded log-sum-exp and pairwise rank loss (arXiv:2208.02955)."""

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        yes = distribution(target, output) > 0.5
        zero = output.new_zeros(len(output), 1)
        lowest = -math.inf
        positives = torch.cat([(-output).masked_fill(~yes, lowest), zero], 1).logsumexp(1)
        negatives = torch.cat([output.masked_fill(yes, lowest), zero], 1).logsumexp(1)
        return positives + negatives


class DistributionBalanced(AnswerLoss):
    """Re-balanced weights and negative-tolerant logits for long-tailed multi-label data (arXiv:2007.09654).

    `counts` (C) are the positives of each class among `total` images. Logits start at `bias` times the log odds of
    their class (equation 10; timm divides that by `scale`). `gamma` above 0 adds the focal factor of the authors' final
    loss, times `balance`.
    """

    counts: Tensor

    def __init__(
        self,
        counts: Sequence[float] | Tensor,
        total: int,
        alpha: float = 0.1,
        beta: float = 10.0,
        mu: float = 0.3,
        scale: float = 5.0,
        bias: float = 0.05,
        gamma: float = 0.0,
        balance: float = 2.0,
        smoothing: float = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction)
        self.alpha, self.beta, self.mu, self.scale, self.bias = alpha, beta, mu, scale, bias
        self.gamma, self.balance, self.smoothing, self.total = gamma, balance, smoothing, total
        counts = torch.as_tensor(counts, dtype=torch.float32).clamp(1.0, max(1.0, total - 1.0))
        self.register_buffer("counts", counts)

    def cells(self, output: Tensor, target: Tensor) -> Tensor:
        target, counts = answers(target, output), self.counts.to(output.dtype)
        sampled = (target / counts).sum(1, keepdim=True).clamp(min=1e-12)
        weight = self.alpha + torch.sigmoid(self.beta * (1 / counts / sampled - self.mu))
        shifted = output - self.bias * torch.log(self.total / counts - 1.0)
        target = answers(target, output, self.smoothing)
        yes, no = F.softplus(-shifted), F.softplus(self.scale * shifted) / self.scale
        if self.gamma:  # each side has its own factor, which matters to soft targets
            yes = self.balance * yes * focus(torch.sigmoid(-shifted), self.gamma)
            no = self.balance * no * focus(torch.sigmoid(self.scale * shifted), self.gamma)
        return weight * (target * yes + (1 - target) * no)

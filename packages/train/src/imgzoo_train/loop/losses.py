"""Losses: `loss(output, target) -> scalar mean`. Outputs are (B, C) logits, targets (B,) class numbers or (B, C)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from imgzoo.errors import UsageError

DEFAULT_LOSS = {"classification": "cross-entropy", "multilabel": "bce", "regression": "mse"}
"""What a task is trained with unless told otherwise."""


def distribution(target: torch.Tensor, classes: int, smoothing: float = 0.0) -> torch.Tensor:
    """Targets as (B, C) probabilities: class numbers become one-hot; `smoothing` is the share spread over all."""
    if target.ndim == 1:
        target = F.one_hot(target, classes)
    target = target.float()
    return target * (1.0 - smoothing) + smoothing / classes if smoothing else target


class CrossEntropy(nn.Module):
    """Cross-entropy with hard, smoothed (arXiv:1512.00567) or soft targets.

    `weight` (C) scales each sample by the weight of its class; the mean stays over samples, so that accumulated
    batches add up exactly.
    """

    weight: torch.Tensor | None

    def __init__(self, smoothing: float = 0.0, weight: Sequence[float] | torch.Tensor | None = None) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.register_buffer("weight", None if weight is None else torch.as_tensor(weight, dtype=torch.float32))

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if self.weight is None:
            return F.cross_entropy(output.float(), target, label_smoothing=self.smoothing)
        target = distribution(target, output.shape[1], self.smoothing)
        return -(target * self.weight * F.log_softmax(output.float(), 1)).sum(1).mean()


class BinaryCrossEntropy(nn.Module):
    """Each class is a yes or no of its own (arXiv:2110.00476).

    `threshold` turns soft targets above it into 1 and the others into 0; `sum_classes` adds classes up instead of
    averaging; `weight` and `pos_weight` (C) scale classes and their positive side. A smoothed class number puts
    `smoothing / C` on the others.
    """

    weight: torch.Tensor | None
    pos_weight: torch.Tensor | None

    def __init__(
        self,
        smoothing: float = 0.0,
        threshold: float | None = None,
        sum_classes: bool = False,
        weight: Sequence[float] | torch.Tensor | None = None,
        pos_weight: Sequence[float] | torch.Tensor | None = None,
    ) -> None:
        super().__init__()
        self.smoothing, self.threshold, self.sum_classes = smoothing, threshold, sum_classes
        self.register_buffer("weight", None if weight is None else torch.as_tensor(weight, dtype=torch.float32))
        self.register_buffer("pos_weight", None if pos_weight is None else torch.as_tensor(pos_weight).float())

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        target = distribution(target, output.shape[1], self.smoothing)
        if self.threshold is not None:
            target = (target > self.threshold).float()
        loss = F.binary_cross_entropy_with_logits(
            output.float(), target, weight=self.weight, pos_weight=self.pos_weight, reduction="none"
        )
        return loss.sum(1).mean() if self.sum_classes else loss.mean()


class Focal(nn.Module):
    """Cross-entropy that counts what is already answered well less: (1 - p)^gamma (arXiv:1708.02002), over a softmax.

    `weight` (C) scales each sample by the weight of its class.
    """

    weight: torch.Tensor | None

    def __init__(
        self, gamma: float = 2.0, smoothing: float = 0.0, weight: Sequence[float] | torch.Tensor | None = None
    ) -> None:
        super().__init__()
        self.gamma, self.smoothing = gamma, smoothing
        self.register_buffer("weight", None if weight is None else torch.as_tensor(weight, dtype=torch.float32))

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        target = distribution(target, output.shape[1], self.smoothing)
        target = target if self.weight is None else target * self.weight
        log = F.log_softmax(output.float(), 1)
        return -(target * (1 - log.exp()) ** self.gamma * log).sum(1).mean()


class SigmoidFocal(nn.Module):
    """The focal loss of a yes or no for each class (arXiv:1708.02002); `alpha` is the share of the yes side."""

    def __init__(self, gamma: float = 2.0, alpha: float | None = 0.25) -> None:
        super().__init__()
        self.gamma, self.alpha = gamma, alpha

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        target, output = distribution(target, output.shape[1]), output.float()
        wrong = target * torch.sigmoid(-output) + (1 - target) * torch.sigmoid(output)
        loss = F.binary_cross_entropy_with_logits(output, target, reduction="none") * wrong**self.gamma
        if self.alpha is not None:
            loss = loss * (target * self.alpha + (1 - target) * (1 - self.alpha))
        return loss.sum(1).mean()


class ClassBalanced(Focal):
    """Cross-entropy, or with `gamma` the focal loss, weighted by the effective number of samples (arXiv:1901.05555).

    `counts` (C) are the samples of each class.
    """

    def __init__(
        self, counts: Sequence[float] | torch.Tensor, beta: float = 0.999, gamma: float = 0.0, smoothing: float = 0.0
    ) -> None:
        super().__init__(gamma, smoothing, class_weights(torch.as_tensor(counts), "effective", beta))


class JensenShannon(nn.Module):
    """Cross-entropy of the clean split plus consistency of all splits (AugMix, arXiv:1912.02781).

    Output is (splits * B, C), the clean images first.
    """

    def __init__(self, splits: int = 3, alpha: float = 12.0, smoothing: float = 0.0) -> None:
        super().__init__()
        self.splits, self.alpha, self.clean = splits, alpha, CrossEntropy(smoothing)

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if len(output) % self.splits:
            raise UsageError(
                f"the jsd loss needs batches of {self.splits} augmentation splits; set data.augment.splits"
            )
        parts = output.float().chunk(self.splits)
        logs = [F.log_softmax(part, 1) for part in parts]
        mean = torch.stack([log.exp() for log in logs]).mean(0).clamp(1e-7, 1.0).log()
        divergence = sum(F.kl_div(mean, log, reduction="batchmean", log_target=True) for log in logs) / self.splits
        return self.clean(parts[0], target[: len(parts[0])]) + self.alpha * divergence


class AsymmetricMultiLabel(nn.Module):
    """Focal loss with its own focus for positives and negatives, and a margin for easy negatives (arXiv:2009.14119)."""

    def __init__(self, gamma_neg: float = 4.0, gamma_pos: float = 1.0, margin: float = 0.05) -> None:
        super().__init__()
        self.gamma_neg, self.gamma_pos, self.margin = gamma_neg, gamma_pos, margin

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        target = distribution(target, output.shape[1])
        chance = output.float().sigmoid()
        wrong = (chance - self.margin).clamp(min=0.0)
        positive = target * chance.clamp(min=1e-8).log() * (1 - chance) ** self.gamma_pos
        negative = (1 - target) * (1 - wrong).clamp(min=1e-8).log() * wrong**self.gamma_neg
        return -(positive + negative).sum(1).mean()


class AsymmetricSingle(nn.Module):
    """The asymmetric loss over a softmax, for one label an image (arXiv:2009.14119)."""

    def __init__(self, gamma_neg: float = 4.0, gamma_pos: float = 0.0, smoothing: float = 0.1) -> None:
        super().__init__()
        self.gamma_neg, self.gamma_pos, self.smoothing = gamma_neg, gamma_pos, smoothing

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        hard = distribution(target, output.shape[1])
        log = F.log_softmax(output.float(), 1)
        chance = log.exp()
        focus = hard * (1 - chance) ** self.gamma_pos + (1 - hard) * chance**self.gamma_neg
        soft = hard * (1 - self.smoothing) + self.smoothing / output.shape[1]
        return -(soft * log * focus).sum(1).mean()


class Poly(nn.Module):
    """Cross-entropy plus the first term of its polynomial expansion (PolyLoss, arXiv:2204.12511)."""

    def __init__(self, epsilon: float = 1.0, smoothing: float = 0.0) -> None:
        super().__init__()
        self.epsilon, self.smoothing = epsilon, smoothing

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        target = distribution(target, output.shape[1], self.smoothing)
        log = F.log_softmax(output.float(), 1)
        return (-(target * log).sum(1) + self.epsilon * (1 - (target * log.exp()).sum(1))).mean()


class TwoWay(nn.Module):
    """Positives against negatives, within each image and within each class (Kobayashi, CVPR 2023)."""

    def __init__(self, temperature_pos: float = 4.0, temperature_neg: float = 1.0) -> None:
        super().__init__()
        self.pos, self.neg = temperature_pos, temperature_neg

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        output, yes = output.float(), distribution(target, output.shape[1]) > 0.5
        return self._side(output, yes, 1) + self._side(output, yes, 0)

    def _side(self, output: torch.Tensor, yes: torch.Tensor, dim: int) -> torch.Tensor:
        lowest = -math.inf
        negatives = (output / self.neg).masked_fill(yes, lowest)
        positives = (-output / self.pos).masked_fill(~yes, lowest)
        both = yes.any(dim) & (~yes).any(dim)
        if not both.any():
            return output.sum() * 0.0
        axis = (slice(None), both) if dim == 0 else both
        gap = self.neg * negatives[axis].logsumexp(dim) + self.pos * positives[axis].logsumexp(dim)
        return F.softplus(gap).sum() / yes.any(dim).sum()  # a row of positives alone is right, and counts


class Zlpr(nn.Module):
    """Zero-bounded log-sum-exp and pairwise rank loss (arXiv:2208.02955)."""

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        output, yes = output.float(), distribution(target, output.shape[1]) > 0.5
        zero = output.new_zeros(len(output), 1)
        lowest = -math.inf
        positives = torch.cat([(-output).masked_fill(~yes, lowest), zero], 1).logsumexp(1)
        negatives = torch.cat([output.masked_fill(yes, lowest), zero], 1).logsumexp(1)
        return (positives + negatives).mean()


class DistributionBalanced(nn.Module):
    """Re-balanced weights and negative-tolerant logits for long-tailed multi-label data (arXiv:2007.09654).

    `counts` (C) are the positives of each class among `total` images. Logits start at `bias` times the log odds of
    their class (equation 10; timm divides that by `scale`). `gamma` above 0 adds the focal factor of the authors' final
    loss, times `balance`.
    """

    inverse: torch.Tensor
    shift: torch.Tensor

    def __init__(
        self,
        counts: Sequence[float] | torch.Tensor,
        total: int,
        alpha: float = 0.1,
        beta: float = 10.0,
        mu: float = 0.3,
        scale: float = 5.0,
        bias: float = 0.05,
        gamma: float = 0.0,
        balance: float = 2.0,
    ) -> None:
        super().__init__()
        self.alpha, self.beta, self.mu, self.scale = alpha, beta, mu, scale
        self.gamma, self.balance = gamma, balance
        counts = torch.as_tensor(counts, dtype=torch.float32).clamp(1.0, max(1.0, total - 1.0))
        self.register_buffer("inverse", 1.0 / counts)
        prior = counts / total
        self.register_buffer("shift", -bias * torch.log(1.0 / prior - 1.0))

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        target = distribution(target, output.shape[1])
        sampled = (target * self.inverse).sum(1, keepdim=True).clamp(min=1e-12)
        weight = self.alpha + torch.sigmoid(self.beta * (self.inverse / sampled - self.mu))
        shifted = output.float() + self.shift
        positive = target * F.softplus(-shifted)
        negative = (1 - target) * F.softplus(self.scale * shifted) / self.scale
        loss = weight * (positive + negative)
        if self.gamma:
            chance = torch.where(target > 0.5, torch.sigmoid(shifted), torch.sigmoid(-self.scale * shifted))
            loss = self.balance * loss * (1 - chance) ** self.gamma
        return loss.mean()


class Squared(nn.Module):
    """Mean squared error of values."""

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.mse_loss(output.float(), target.float().reshape(output.shape))


class Absolute(nn.Module):
    """Mean absolute error of values."""

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.l1_loss(output.float(), target.float().reshape(output.shape))


class Huber(nn.Module):
    """Squared error near zero, absolute error beyond `delta`."""

    def __init__(self, delta: float = 1.0) -> None:
        super().__init__()
        self.delta = delta

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return F.huber_loss(output.float(), target.float().reshape(output.shape), delta=self.delta)


def class_weights(counts: torch.Tensor, mode: str, beta: float = 0.999) -> torch.Tensor:
    """Weights of classes from their counts, with mean 1 over samples: `balanced`, or `effective` (arXiv:1901.05555)."""
    counts = counts.double()
    if mode == "effective":
        weight = (1 - beta) / (1 - torch.pow(torch.tensor(beta, dtype=torch.float64), counts.clamp(min=1)))
    else:
        weight = 1.0 / counts.clamp(min=1)
    weight = torch.where(counts > 0, weight, torch.zeros_like(weight))
    return (weight * counts.sum() / (weight * counts).sum().clamp(min=1e-12)).float()


def create_loss(name: str, **options: Any) -> nn.Module:
    """The registered loss `name`; raises `UnknownNameError`, or `OptionError` for an option it does not take."""
    from imgzoo.errors import OptionError
    from imgzoo.registry import registry

    spec = registry("losses").resolve(name)
    try:
        return spec.load()(**{**spec.kwargs, **options})
    except TypeError as error:
        raise OptionError(f"loss '{name}' does not take these options: {error}") from error

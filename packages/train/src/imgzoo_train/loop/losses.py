"""Losses: `loss(output, target) -> scalar`. Outputs are (B, C) logits, targets (B,) class numbers or (B, C).

They compute in float32, or in float64 where the outputs are. `reduction` of each says how the losses of the samples
come together: `mean`, `sum`, or `none` for all of them (B,).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from imgzoo.errors import UsageError
from imgzoo.options import Range, check_kinds, check_names, check_ranges, parameters_of
from imgzoo.registry import registry

from .weighting import class_weights

Reduction = Literal["mean", "sum", "none"]
Weights = Sequence[float] | Tensor | None
"""(C) factors of classes."""

DEFAULT_LOSS = {"classification": "cross-entropy", "multilabel": "bce", "regression": "mse"}
"""What a task is trained with unless told otherwise."""
TASKS_OF = {"class": ("classification",), "labels": ("classification", "multilabel"), "numbers": ("regression",)}
"""The tasks that a loss is for, by what its targets are (`Loss.of`)."""


def distribution(target: Tensor, output: Tensor, smoothing: float = 0.0) -> Tensor:
    """Targets as (B, C) probabilities in the outputs' precision; `smoothing` is the share spread over all classes."""
    classes = output.shape[1]
    target = (F.one_hot(target, classes) if target.ndim == 1 else target).to(output.dtype)
    return target * (1.0 - smoothing) + smoothing / classes if smoothing else target


def exact(output: Tensor) -> Tensor:
    """Outputs in a precision to compute a loss in."""
    return output.to(torch.promote_types(output.dtype, torch.float32))


def focus(base: Tensor, gamma: float | Tensor) -> Tensor:
    """`base ** gamma`, the factor of focal losses: with `gamma` below 1 its slope is infinite for what is certain."""
    return base.clamp(min=torch.finfo(base.dtype).tiny) ** gamma


class Loss(nn.Module):
    """Base of losses of samples: a subclass writes `each`, and `reduction` says how they come together."""

    of = "labels"
    """What the targets are: one `class` an image, where the loss is over a softmax; `labels`, one or several; or
    `numbers` to predict."""

    def __init__(self, reduction: Reduction = "mean") -> None:
        super().__init__()
        self.reduction = reduction

    def keep(self, **weights: Weights) -> None:
        """Hold factors of classes as buffers."""
        for name, weight in weights.items():
            self.register_buffer(name, None if weight is None else torch.as_tensor(weight, dtype=torch.float32))

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        """The loss of each sample: (B,)."""
        raise NotImplementedError

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        losses = self.each(exact(output), target)
        if self.reduction == "none":
            return losses
        return losses.sum() if self.reduction == "sum" else losses.mean()


class CrossEntropy(Loss):
    """Cross-entropy with hard, smoothed (arXiv:1512.00567) or soft targets.

    `weight` (C) scales each sample by the weight of its class; the mean stays over samples, so that accumulated
    batches add up exactly.
    """

    of = "class"
    weight: Tensor | None

    def __init__(self, smoothing: float = 0.0, weight: Weights = None, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.keep(weight=weight)
        self.smoothing = smoothing

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        if self.weight is None:
            target = target if target.ndim == 1 else target.to(output.dtype)
            return F.cross_entropy(output, target, label_smoothing=self.smoothing, reduction="none")
        target = distribution(target, output, self.smoothing)
        return -(target * self.weight * F.log_softmax(output, 1)).sum(1)


class Focal(Loss):
    """Cross-entropy that counts what is already answered well less: (1 - p)^gamma (arXiv:1708.02002), over a softmax.

    `weight` (C) scales each sample by the weight of its class.
    """

    of = "class"
    weight: Tensor | None

    def __init__(
        self, gamma: float = 2.0, smoothing: float = 0.0, weight: Weights = None, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(reduction)
        self.keep(weight=weight)
        self.gamma, self.smoothing = gamma, smoothing

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        target = distribution(target, output, self.smoothing)
        target = target if self.weight is None else target * self.weight
        log = F.log_softmax(output, 1)
        return -(target * focus(1 - log.exp(), self.gamma) * log).sum(1)


class ClassBalanced(Focal):
    """Cross-entropy, or with `gamma` the focal loss, weighted by the effective number of samples (arXiv:1901.05555).

    `counts` (C) are the samples of each class.
    """

    def __init__(
        self,
        counts: Sequence[float] | Tensor,
        beta: float = 0.999,
        gamma: float = 0.0,
        smoothing: float = 0.0,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(gamma, smoothing, class_weights(torch.as_tensor(counts), "effective", beta), reduction)


class JensenShannon(Loss):
    """Cross-entropy of the clean split plus consistency of all splits (AugMix, arXiv:1912.02781).

    Output is (splits * B, C), the clean images first.
    """

    of = "class"

    def __init__(
        self, splits: int = 3, alpha: float = 12.0, smoothing: float = 0.0, reduction: Reduction = "mean"
    ) -> None:
        super().__init__(reduction)
        self.splits, self.alpha, self.clean = splits, alpha, CrossEntropy(smoothing)

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        if len(output) % self.splits:
            raise UsageError(
                f"the jsd loss needs batches of {self.splits} augmentation splits; set data.augment.splits"
            )
        parts = output.chunk(self.splits)
        logs = [F.log_softmax(part, 1) for part in parts]
        mean = torch.stack([log.exp() for log in logs]).mean(0).clamp(1e-7, 1.0).log()
        divergence = torch.stack([(log.exp() * (log - mean)).sum(1) for log in logs]).mean(0)
        return self.clean.each(parts[0], target[: len(parts[0])]) + self.alpha * divergence


class AsymmetricSingle(Loss):
    """The asymmetric loss over a softmax, for one label an image (arXiv:2009.14119)."""

    of = "class"

    def __init__(
        self,
        gamma_neg: float = 4.0,
        gamma_pos: float = 0.0,
        smoothing: float = 0.1,
        weight: Weights = None,
        reduction: Reduction = "mean",
    ) -> None:
        super().__init__(reduction)
        self.keep(weight=weight)
        self.gamma_neg, self.gamma_pos, self.smoothing = gamma_neg, gamma_pos, smoothing

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        hard = distribution(target, output)
        log = F.log_softmax(output, 1)
        chance = log.exp()
        factor = hard * focus(1 - chance, self.gamma_pos) + (1 - hard) * focus(chance, self.gamma_neg)
        soft = hard * (1 - self.smoothing) + self.smoothing / output.shape[1]
        weight: Any = self.weight
        return -((soft if weight is None else soft * weight) * log * factor).sum(1)


class Poly(Loss):
    """Cross-entropy plus the first term of its polynomial expansion (PolyLoss, arXiv:2204.12511)."""

    of = "class"

    def __init__(self, epsilon: float = 1.0, smoothing: float = 0.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.epsilon, self.smoothing = epsilon, smoothing

    def soft(self, output: Tensor, target: Tensor) -> Tensor:
        """Targets as chances: (B, C)."""
        return distribution(target, output, self.smoothing)

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        target, log = self.soft(output, target), F.log_softmax(output, 1)
        return -(target * log).sum(1) + self.epsilon * (1 - (target * log.exp()).sum(1))


class Squared(Loss):
    """Mean squared error of values."""

    of = "numbers"

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        return per_sample(F.mse_loss(output, target.to(output.dtype).reshape(output.shape), reduction="none"))


class Absolute(Loss):
    """Mean absolute error of values."""

    of = "numbers"

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        return per_sample(F.l1_loss(output, target.to(output.dtype).reshape(output.shape), reduction="none"))


class Huber(Loss):
    """Squared error near zero, absolute error beyond `delta`."""

    of = "numbers"

    def __init__(self, delta: float = 1.0, reduction: Reduction = "mean") -> None:
        super().__init__(reduction)
        self.delta = delta

    def each(self, output: Tensor, target: Tensor) -> Tensor:
        target = target.to(output.dtype).reshape(output.shape)
        return per_sample(F.huber_loss(output, target, delta=self.delta, reduction="none"))


def per_sample(losses: Tensor) -> Tensor:
    """(B, ...) -> means (B,)."""
    return losses.reshape(len(losses), -1).mean(1)


NOT_NEGATIVE, POSITIVE = Range(0), Range(0, above=True)
RANGES = {
    **dict.fromkeys(("smoothing", "beta"), Range(0, 1, below=True)),
    **dict.fromkeys(("threshold", "alpha", "margin"), Range(0, 1)),
    **dict.fromkeys(("gamma", "gamma_neg", "gamma_pos", "weight", "pos_weight", "counts", "balance"), NOT_NEGATIVE),
    **dict.fromkeys(("temperature_pos", "temperature_neg", "scale", "delta"), POSITIVE),
    **dict.fromkeys(("splits", "total"), Range(1)),
}
OWN_RANGES = {
    "jsd": {"alpha": NOT_NEGATIVE, "splits": Range(2)},
    "distribution-balanced": {"alpha": NOT_NEGATIVE, "beta": NOT_NEGATIVE},
}
"""Where a loss calls something else by one of those names."""


def options_of(name: str) -> set[str] | None:
    """The options that the registered loss `name` takes; None for one that takes any."""
    target = registry("losses").resolve(name).load()
    if getattr(target, "__init__", None) is nn.Module.__init__:  # its own is (*args, **kwargs), and takes none
        return set()
    taken, anything = parameters_of(target)
    return None if anything else set(taken)


def create_loss(name: str, **options: Any) -> nn.Module:
    """The registered loss `name`.

    Raises `UnknownNameError`; `OptionError` for an option it does not take, listing those it takes; `UsageError` for a
    value that is not of the option's type or outside its range, and for an option that is missing.
    """
    spec = registry("losses").resolve(name)
    build, what = spec.load(), f"loss '{name}'"
    check_names(what, build, options)
    check_kinds(what, build, options)
    check_ranges(what, options, {**RANGES, **OWN_RANGES.get(spec.name, {})})
    try:
        return build(**{**spec.kwargs, **options})
    except TypeError as error:
        raise UsageError(f"{what} cannot be built: {error}") from error

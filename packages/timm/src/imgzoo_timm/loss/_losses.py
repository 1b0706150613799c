"""The field's losses over those of `imgzoo_train.loop.losses`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo_train.loop import losses as native
from imgzoo_train.loop import multilabel_losses as multilabel


class LabelSmoothingCrossEntropy(native.CrossEntropy):
    def __init__(self, smoothing: float = 0.1):
        if not smoothing < 1.0:
            raise ValueError(f"smoothing is a share below 1, got {smoothing}")
        super().__init__(smoothing)
        self.confidence = 1.0 - smoothing


class SoftTargetCrossEntropy(native.CrossEntropy):
    def __init__(self) -> None:
        super().__init__()

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        """Logits (B, C) and a distribution (B, C), which need not add up to 1."""
        return torch.sum(-target * F.log_softmax(x, dim=-1), dim=-1).mean()


class BinaryCrossEntropy(nn.Module):
    """With `reduction` other than "mean" and a dense target smoothed only if `smooth_dense`, as in the field."""

    def __init__(self, smoothing: float = 0.1, target_threshold: float | None = None, weight: Tensor | None = None,
                 reduction: str = "mean", sum_classes: bool = False, pos_weight: Any = None,
                 smooth_dense: bool = False):  # fmt: skip
        super().__init__()
        self.weight: Tensor | None
        self.pos_weight: Tensor | None
        if not 0.0 <= smoothing < 1.0:
            raise ValueError(f"smoothing is a share below 1, got {smoothing}")
        self.smoothing, self.target_threshold, self.smooth_dense = smoothing, target_threshold, smooth_dense
        self.reduction, self.sum_classes = "none" if sum_classes else reduction, sum_classes
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight if pos_weight is None else torch.as_tensor(pos_weight).float())

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        if target.shape != x.shape:
            target = native.distribution(target.long().view(-1), x, self.smoothing)
        elif self.smooth_dense and self.smoothing:
            target = target * (1 - self.smoothing) + 0.5 * self.smoothing
        if self.target_threshold is not None:
            target = target.gt(self.target_threshold).to(target.dtype)
        loss = F.binary_cross_entropy_with_logits(x, target.to(x.dtype), self.weight, pos_weight=self.pos_weight,
                                                  reduction=self.reduction)  # fmt: skip
        return loss.sum(-1).mean() if self.sum_classes else loss


class JsdCrossEntropy(native.JensenShannon):
    def __init__(self, num_splits: int = 3, alpha: float = 12, smoothing: float = 0.1):
        super().__init__(num_splits, alpha, smoothing or 0.0)
        self.num_splits = num_splits


def reduced(reduction: str, words: tuple[str, ...] = ("mean", "sum", "none")) -> Any:
    if reduction not in words:
        raise ValueError(f"the reduction is {', '.join(words)}, not {reduction!r}")
    return reduction


class ByAnswer(multilabel.AnswerLoss):
    """Losses of answers in the field's reductions, which are over all answers: `none` is (B, C), `batchmean` their sum
    over images.
    """

    words = ("mean", "batchmean", "sum", "none")

    def forward(self, output: Tensor, target: Tensor) -> Tensor:
        cells = self.cells(native.exact(output), target)
        if self.reduction == "none":
            return cells
        if self.reduction == "mean":
            return cells.mean()
        return cells.sum() if self.reduction == "sum" else cells.sum() / len(cells)


class AsymmetricLossMultiLabel(ByAnswer, multilabel.AsymmetricMultiLabel):
    def __init__(self, gamma_neg: float = 4, gamma_pos: float = 1, clip: float = 0.05, eps: float = 1e-8,
                 disable_torch_grad_focal_loss: bool = False, smoothing: float = 0.0, reduction: str = "batchmean",
                 weight: Any = None, pos_weight: Any = None):  # fmt: skip
        super().__init__(gamma_neg, gamma_pos, clip or 0.0, smoothing, weight, pos_weight,
                         reduced(reduction, self.words), learned_focus=not disable_torch_grad_focal_loss)  # fmt: skip
        self.clip, self.eps = clip, eps


class AsymmetricLossSingleLabel(native.AsymmetricSingle):
    def __init__(self, gamma_pos: float = 1, gamma_neg: float = 4, eps: float = 0.1, reduction: str = "mean"):
        super().__init__(gamma_neg, gamma_pos, eps, reduction=reduced(reduction))
        self.eps = eps


class PolyCrossEntropy(native.Poly):
    """Class numbers are smoothed, distributions taken as they are."""

    def __init__(self, epsilon: float = 2.0, smoothing: float = 0.0, reduction: str = "mean"):
        super().__init__(epsilon, smoothing, reduced(reduction))

    def soft(self, output: Tensor, target: Tensor) -> Tensor:
        return native.distribution(target, output, self.smoothing if target.ndim == 1 else 0.0)


class PolyBinaryCrossEntropy(ByAnswer, multilabel.PolyBinary):
    def __init__(self, epsilon: float = 2.0, gamma: float = 0.0, alpha: float | None = None, smoothing: float = 0.0,
                 reduction: str = "mean"):  # fmt: skip
        if alpha is not None and not 0 <= alpha <= 1:
            raise ValueError(f"alpha is the share of the yes side, from 0 to 1, not {alpha}")
        super().__init__(epsilon, gamma, alpha, smoothing, reduced(reduction, self.words))


class TwoWayLoss(multilabel.TwoWay):
    def __init__(self, tp: float = 4.0, tn: float = 1.0):
        if not (tp > 0 and tn > 0):
            raise ValueError(f"temperatures are above 0, not tp={tp}, tn={tn}")
        super().__init__(tp, tn)


class ZlprLoss(multilabel.Zlpr):
    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)


class DistributionBalancedLoss(ByAnswer, multilabel.DistributionBalanced):
    def __init__(self, class_counts: Any, num_samples: int, map_alpha: float = 0.1, map_beta: float = 10.0,
                 map_mu: float = 0.2, neg_scale: float = 2.0, init_bias: float = 0.05, focal_gamma: float = 2.0,
                 focal_balance: float = 2.0, smoothing: float = 0.0, reduction: str = "mean"):  # fmt: skip
        counts = torch.as_tensor(class_counts, dtype=torch.float64)
        if num_samples < 2 or counts.ndim != 1 or not ((counts >= 0) & (counts <= num_samples)).all():
            raise ValueError("class_counts must be in [0, num_samples], a count a class, and num_samples at least 2")
        super().__init__(counts, num_samples, map_alpha, map_beta, map_mu, neg_scale, init_bias / neg_scale,
                         focal_gamma, focal_balance, smoothing, reduced(reduction, self.words))  # fmt: skip

    @property
    def freq_inv(self) -> Tensor:
        return 1.0 / self.counts

    @property
    def logit_bias(self) -> Tensor:
        """What is added to logits: (classes,)."""
        return -self.bias * torch.log(self.total / self.counts - 1.0)

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


def _reduction(word: str, own: Any = ("mean", "sum", "none")) -> Any:
    if word not in own:
        raise ValueError(f"the reduction is {', '.join(own)}, not {word!r}")
    return word


class AsymmetricLossMultiLabel(multilabel.AsymmetricMultiLabel):
    def __init__(self, gamma_neg: float = 4, gamma_pos: float = 1, clip: float = 0.05, eps: float = 1e-8,
                 disable_torch_grad_focal_loss: bool = False, smoothing: float = 0.0, reduction: str = "batchmean",
                 weight: Any = None, pos_weight: Any = None):  # fmt: skip
        own = _reduction("mean" if reduction == "batchmean" else reduction, ("mean", "sum"))
        if reduction == "mean":
            raise ValueError("the sum over classes is averaged over images (reduction='batchmean'), or summed up")
        super().__init__(gamma_neg, gamma_pos, clip or 0.0, smoothing, weight, pos_weight, own,
                         learned_focus=not disable_torch_grad_focal_loss)  # fmt: skip
        self.clip, self.eps = clip, eps


class AsymmetricLossSingleLabel(native.AsymmetricSingle):
    def __init__(self, gamma_pos: float = 1, gamma_neg: float = 4, eps: float = 0.1, reduction: str = "mean"):
        super().__init__(gamma_neg, gamma_pos, eps, reduction=_reduction(reduction))


class PolyCrossEntropy(native.Poly):
    def __init__(self, epsilon: float = 2.0, smoothing: float = 0.0, reduction: str = "mean"):
        super().__init__(epsilon, smoothing, _reduction(reduction))


class PolyBinaryCrossEntropy(multilabel.PolyBinary):
    def __init__(self, epsilon: float = 2.0, gamma: float = 0.0, alpha: float | None = None, smoothing: float = 0.0,
                 reduction: str = "mean"):  # fmt: skip
        super().__init__(epsilon, gamma, alpha, smoothing, _reduction(reduction))


class TwoWayLoss(multilabel.TwoWay):
    def __init__(self, tp: float = 4.0, tn: float = 1.0):
        super().__init__(tp, tn)


class ZlprLoss(multilabel.Zlpr):
    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)

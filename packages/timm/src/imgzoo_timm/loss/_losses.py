"""The field's losses over those of `imgzoo_train.loop.losses`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo_train.loop import losses as native


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
        if not 0.0 <= smoothing < 1.0:
            raise ValueError(f"smoothing is a share below 1, got {smoothing}")
        self.smoothing, self.target_threshold, self.smooth_dense = smoothing, target_threshold, smooth_dense
        self.reduction, self.sum_classes = "none" if sum_classes else reduction, sum_classes
        self.register_buffer("weight", weight)
        self.register_buffer("pos_weight", pos_weight if pos_weight is None else torch.as_tensor(pos_weight).float())

    def forward(self, x: Tensor, target: Tensor) -> Tensor:
        if target.shape != x.shape:
            target = native.distribution(target.long().view(-1), x.shape[-1], self.smoothing)
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


class AsymmetricLossMultiLabel(nn.Module):
    def __init__(self, gamma_neg: float = 4, gamma_pos: float = 1, clip: float = 0.05, eps: float = 1e-8,
                 disable_torch_grad_focal_loss: bool = False, smoothing: float = 0.0, reduction: str = "batchmean",
                 weight: Any = None, pos_weight: Any = None):  # fmt: skip
        super().__init__()
        if smoothing or weight is not None or pos_weight is not None or reduction not in ("batchmean", "sum"):
            raise ValueError("this loss is summed over classes, without weights: see imgzoo_train.loop.losses")
        self.gamma_neg, self.gamma_pos, self.clip, self.eps, self.reduction = gamma_neg, gamma_pos, clip, eps, reduction
        self.native = native.AsymmetricMultiLabel(gamma_neg, gamma_pos, clip or 0.0)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.native(x, y) * (len(x) if self.reduction == "sum" else 1)


class AsymmetricLossSingleLabel(native.AsymmetricSingle):
    def __init__(self, gamma_pos: float = 1, gamma_neg: float = 4, eps: float = 0.1, reduction: str = "mean"):
        if reduction != "mean":
            raise ValueError("this loss is a mean")
        super().__init__(gamma_neg, gamma_pos, eps)

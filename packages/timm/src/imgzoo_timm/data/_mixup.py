"""Mixup and CutMix of a batch with itself in reverse, drawn from numpy's global generator as scripts seed it."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor


def one_hot(x: Tensor, num_classes: int, on_value: float = 1.0, off_value: float = 0.0) -> Tensor:
    dense = torch.full((x.numel(), num_classes), off_value, device=x.device)
    return dense.scatter_(1, x.long().view(-1, 1), on_value)


def mixup_target(target: Tensor, num_classes: int, lam: Any = 1.0, smoothing: float = 0.0,
                 multi_label: bool = False) -> Tensor:  # fmt: skip
    """Targets mixed with those of the batch in reverse; classes become smoothed vectors.

    With `multi_label` they are vectors already, and smoothing moves them towards one half.
    """
    if multi_label:
        target = target * (1.0 - smoothing) + smoothing / 2
        first, second = target, target.flip(0)
    else:
        off = smoothing / num_classes
        first, second = (one_hot(each, num_classes, 1.0 - smoothing + off, off) for each in (target, target.flip(0)))
    return first * lam + second * (1.0 - lam)


def rand_bbox(img_shape: Any, lam: float, margin: float = 0.0, count: int | None = None) -> tuple[Any, ...]:
    """Top, bottom, left and right of a box of the area 1 - lam around a random place, clipped to the image."""
    ratio = np.sqrt(1 - lam)
    sides = img_shape[-2:]
    cuts = [int(side * ratio) for side in sides]
    edges = [int(margin * cut) for cut in cuts]
    middles = [np.random.randint(0 + edge, side - edge, size=count) for side, edge in zip(sides, edges)]
    (top, bottom), (left, right) = (
        (np.clip(middle - cut // 2, 0, side), np.clip(middle - cut // 2 + cut, 0, side))
        for middle, cut, side in zip(middles, cuts, sides)
    )
    return top, bottom, left, right


def rand_bbox_minmax(img_shape: Any, minmax: Any, count: int | None = None) -> tuple[Any, ...]:
    """A box whose sides are shares of the image's, between two bounds."""
    height, width = img_shape[-2:]
    cut_h = np.random.randint(int(height * minmax[0]), int(height * minmax[1]), size=count)
    cut_w = np.random.randint(int(width * minmax[0]), int(width * minmax[1]), size=count)
    top = np.random.randint(0, height - cut_h + 1, size=count)
    left = np.random.randint(0, width - cut_w + 1, size=count)
    return top, top + cut_h, left, left + cut_w


def cutmix_bbox_and_lam(img_shape: Any, lam: float, ratio_minmax: Any = None, correct_lam: bool = True,
                        count: int | None = None) -> tuple[Any, Any]:  # fmt: skip
    """A box, and the share of the image that it leaves."""
    box = rand_bbox(img_shape, lam, count=count) if ratio_minmax is None else \
        rand_bbox_minmax(img_shape, ratio_minmax, count=count)  # fmt: skip
    if correct_lam or ratio_minmax is not None:
        lam = 1.0 - (box[1] - box[0]) * (box[3] - box[2]) / float(img_shape[-2] * img_shape[-1])
    return box, lam


class Mixup:
    """Mix a batch (B, C, H, W) of even size with itself in reverse: one draw a `batch`, a `pair` or an `elem`."""

    def __init__(self, mixup_alpha: float = 1.0, cutmix_alpha: float = 0.0, cutmix_minmax: Any = None,
                 prob: float = 1.0, switch_prob: float = 0.5, mode: str = "batch", correct_lam: bool = True,
                 label_smoothing: float = 0.1, num_classes: int = 1000, multi_label: bool = False):  # fmt: skip
        self.mixup_alpha, self.cutmix_alpha, self.cutmix_minmax = mixup_alpha, cutmix_alpha, cutmix_minmax
        if cutmix_minmax is not None:
            if len(cutmix_minmax) != 2:
                raise ValueError("cutmix_minmax is a pair of shares")
            self.cutmix_alpha = 1.0  # any: the box is drawn without it
        self.mix_prob, self.switch_prob, self.mode, self.correct_lam = prob, switch_prob, mode, correct_lam
        self.label_smoothing, self.num_classes, self.multi_label = label_smoothing, num_classes, multi_label
        self.mixup_enabled = True  # scripts switch it off at the end of a run

    def _params_per_elem(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        lam, cut = np.ones(batch_size, dtype=np.float32), np.zeros(batch_size, dtype=bool)
        if not self.mixup_enabled:
            return lam, cut
        if self.mixup_alpha > 0.0 and self.cutmix_alpha > 0.0:
            cut = np.random.rand(batch_size) < self.switch_prob
            drawn = np.where(cut, np.random.beta(self.cutmix_alpha, self.cutmix_alpha, size=batch_size),
                             np.random.beta(self.mixup_alpha, self.mixup_alpha, size=batch_size))  # fmt: skip
        elif self.mixup_alpha > 0.0 or self.cutmix_alpha > 0.0:
            alpha = self.mixup_alpha or self.cutmix_alpha
            cut = np.full(batch_size, self.mixup_alpha <= 0.0)
            drawn = np.random.beta(alpha, alpha, size=batch_size)
        else:
            raise ValueError("one of mixup_alpha, cutmix_alpha and cutmix_minmax has to be given")
        return np.where(np.random.rand(batch_size) < self.mix_prob, drawn.astype(np.float32), lam), cut

    def _params_per_batch(self) -> tuple[float, bool]:
        if not self.mixup_enabled or np.random.rand() >= self.mix_prob:
            return 1.0, False
        cut = self.cutmix_alpha > 0.0
        if cut and self.mixup_alpha > 0.0:
            cut = bool(np.random.rand() < self.switch_prob)
        elif not cut and self.mixup_alpha <= 0.0:
            raise ValueError("one of mixup_alpha, cutmix_alpha and cutmix_minmax has to be given")
        alpha = self.cutmix_alpha if cut else self.mixup_alpha
        return float(np.random.beta(alpha, alpha)), cut

    def _mix_one(self, x: Tensor, before: Tensor, places: tuple[int, ...], lam: float, cut: bool) -> float:
        """Mix the samples at `places`, each with its mirror in `before`, by one draw; returns what lambda became."""
        if lam == 1.0:
            return lam
        box: tuple[Any, ...] = ()
        if cut:
            box, lam = cutmix_bbox_and_lam(x.shape, lam, self.cutmix_minmax, self.correct_lam)
        for i in places:
            other = before[len(x) - 1 - i]
            if cut:
                x[i][:, box[0] : box[1], box[2] : box[3]] = other[:, box[0] : box[1], box[2] : box[3]]
            else:
                x[i] = x[i] * lam + other * (1 - lam)
        return lam

    def _mix_each(self, x: Tensor, pairs: bool) -> Tensor:
        count = len(x)
        draws = count // 2 if pairs else count
        lams, cuts = self._params_per_elem(draws)
        before = x.clone()
        for i in range(draws):
            places = (i, count - 1 - i) if pairs else (i,)
            lams[i] = self._mix_one(x, before, places, lams[i], bool(cuts[i]))
        if pairs:
            lams = np.concatenate((lams, lams[::-1]))
        return torch.tensor(lams, device=x.device, dtype=x.dtype).unsqueeze(1)

    def _mix_batch(self, x: Tensor) -> float:
        lam, cut = self._params_per_batch()
        if lam == 1.0:
            return lam
        if cut:
            box, lam = cutmix_bbox_and_lam(x.shape, lam, self.cutmix_minmax, self.correct_lam)
            area = (slice(None), slice(None), slice(box[0], box[1]), slice(box[2], box[3]))
            x[area] = x.flip(0)[area]
        else:
            flipped = x.flip(0).mul_(1.0 - lam)
            x.mul_(lam).add_(flipped)
        return lam

    def __call__(self, x: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        if len(x) % 2:
            raise ValueError(f"a batch of even size is mixed, not of {len(x)}")
        lam = self._mix_batch(x) if self.mode == "batch" else self._mix_each(x, self.mode == "pair")
        return x, mixup_target(target, self.num_classes, lam, self.label_smoothing, self.multi_label)


class FastCollateMixup(Mixup):
    """The same while samples (arrays of bytes and labels) are put together: bytes out, in their rounding."""

    def __call__(self, batch: Any, _: Any = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        if len(batch) % 2:
            raise ValueError(f"a batch of even size is mixed, not of {len(batch)}")
        x = torch.stack([torch.as_tensor(sample[0]) for sample in batch]).float()
        lam = self._mix_batch(x) if self.mode == "batch" else self._mix_each(x, self.mode == "pair")
        target = torch.as_tensor([sample[1] for sample in batch]) if not self.multi_label else \
            torch.stack([torch.as_tensor(sample[1]) for sample in batch])  # fmt: skip
        mixed = mixup_target(target, self.num_classes, lam, self.label_smoothing, self.multi_label)
        return x.round_().clamp_(0, 255).to(torch.uint8), mixed

"""Mixup and CutMix on the device. What is drawn depends on (seed, epoch, step) and the place in the global batch alone.

"mixup: Beyond Empirical Risk Minimization" (1710.09412), "CutMix" (1905.04899). A sample is mixed with its neighbor
(0 with 1, 2 with 3, ...), which is random since the order is, and lies on the same rank whatever the world size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from torch.utils.data import default_collate

from imgzoo.errors import UsageError

from .rng import Purpose, generator
from .transfer import sent


class Mix(NamedTuple):
    """What a batch is mixed with: (B,) share of the sample itself, and (B, 4) boxes (top, bottom, left, right), empty
    for mixup.
    """

    lam: np.ndarray
    boxes: np.ndarray


@dataclass(frozen=True)
class Mixer:
    """Mixes pairs of samples and their targets; with both alphas 0 it only smooths labels.

    `mode`: one draw a `batch`, a `pair`, or an `elem`. `cutmix_minmax` draws the box sides as shares in that range
    instead of from the Beta law. `correct_lam` sets lambda to the area left after clipping the box. From `off_epoch`
    on nothing is mixed. `smoothing` is the share of labels that is spread over all classes; with `multi_label`, for
    vectors of yes and no, it moves each answer towards one half.
    """

    num_classes: int
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    cutmix_minmax: tuple[float, float] | None = None
    prob: float = 1.0
    switch_prob: float = 0.5
    mode: str = "batch"
    correct_lam: bool = True
    smoothing: float = 0.0
    off_epoch: int = 0
    multi_label: bool = False

    def __post_init__(self) -> None:
        if self.mode not in ("batch", "pair", "elem"):
            raise UsageError(f"mixing mode '{self.mode}' is unknown; use batch, pair or elem")
        if self.num_classes < 1:
            raise UsageError("mixing needs num_classes: targets become vectors of that length")

    @property
    def active(self) -> bool:
        """Whether any image is ever mixed."""
        return self.mixup_alpha > 0 or self.cutmix_alpha > 0 or self.cutmix_minmax is not None

    def __call__(self, images: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Mix a batch of any loader: (B, C, H, W) float and its targets; what is drawn comes from torch's generator."""
        seed = int(torch.randint(1 << 62, (), device="cpu"))
        mix = self.draw(seed, 0, 0, 0, len(images), (images.shape[2], images.shape[3]))
        return self.images(images.clone(), mix), self.targets(targets, mix)

    def collate(self, samples: Sequence[tuple[Any, Any]]) -> tuple[torch.Tensor, torch.Tensor]:
        """The `collate_fn` of a torch `DataLoader` over (image, target) pairs that mixes each batch."""
        images, targets = default_collate(list(samples))
        return self(images if images.is_floating_point() else images.float().div_(255), targets)

    def draw(self, seed: int, epoch: int, step: int, first: int, count: int, size: tuple[int, int]) -> Mix:
        """The draw for samples `first` to `first + count` of a global batch of images of `size` (H, W)."""
        off = not self.active or (self.off_epoch > 0 and epoch >= self.off_epoch)
        if off or count < 2:
            return Mix(np.ones(count), np.zeros((count, 4), np.int64))
        rng = generator(seed, epoch, step, purpose=Purpose.MIX)
        group = {"batch": count + first, "pair": 2, "elem": 1}[self.mode]
        draws = -(-(first + count) // group)
        lam, boxes = self._draw(rng, draws, size)
        who = np.arange(first, first + count) // group
        return Mix(lam[who], boxes[who])

    def _draw(self, rng: Generator, draws: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        # every row of numbers is drawn in blocks of one draw, so a longer run begins with a shorter one
        rows = [self._draw_one(rng, size) for _ in range(draws)]
        return np.array([lam for lam, _ in rows]), np.array([box for _, box in rows], np.int64)

    def _draw_one(self, rng: Generator, size: tuple[int, int]) -> tuple[float, tuple[int, int, int, int]]:
        none = (0, 0, 0, 0)
        if rng.random() >= self.prob:
            return 1.0, none
        cut = self.cutmix_alpha > 0 or self.cutmix_minmax is not None
        if cut and self.mixup_alpha > 0:
            cut = rng.random() < self.switch_prob
        alpha = (self.cutmix_alpha or 1.0) if cut else self.mixup_alpha
        lam = float(rng.beta(alpha, alpha))
        if not cut:
            return lam, none
        box = self._box(rng, lam, size)
        if self.correct_lam or self.cutmix_minmax is not None:
            lam = 1 - (box[1] - box[0]) * (box[3] - box[2]) / (size[0] * size[1])
        return lam, box

    def _box(self, rng: Generator, lam: float, size: tuple[int, int]) -> tuple[int, int, int, int]:
        edges: list[int] = []
        for side in size:
            if self.cutmix_minmax is not None:
                low, high = (int(side * share) for share in self.cutmix_minmax)
                length = int(rng.integers(low, max(low + 1, high)))
                start = int(rng.integers(side - length + 1))
                edges += [start, start + length]
            else:
                half = int(side * np.sqrt(1 - lam)) // 2
                middle = int(rng.integers(side))
                edges += [max(0, middle - half), min(side, middle + half)]
        return edges[0], edges[1], edges[2], edges[3]

    def images(self, images: torch.Tensor, mix: Mix) -> torch.Tensor:
        """Mix (B, C, H, W) float in place; an odd last sample is left alone."""
        pairs = len(images) // 2
        if not pairs or (mix.lam == 1).all():
            return images
        areas = (mix.boxes[:, 1] - mix.boxes[:, 0]) * (mix.boxes[:, 3] - mix.boxes[:, 2])
        share = np.where(areas > 0, 0.0, 1 - mix.lam)[: 2 * pairs]
        before = images[: 2 * pairs].clone() if share.any() else images  # a box beside a blend must see the originals
        if areas.any():
            for i in range(pairs):
                _paste(images, before, 2 * i, mix.boxes)
        if share.any():
            weight = sent(torch.as_tensor(share, dtype=images.dtype, device="cpu"), images.device).view(-1, 1, 1, 1)
            images[0 : 2 * pairs : 2].lerp_(before[1::2], weight[0::2])
            images[1 : 2 * pairs : 2].lerp_(before[0::2], weight[1::2])
        return images

    def targets(self, targets: torch.Tensor, mix: Mix) -> torch.Tensor:
        """(B,) class numbers, (B,) numbers to predict, or (B, num_classes) vectors -> (B, num_classes) float32, smooth
        and mixed as the images are; raises `UsageError` where numbers to predict should be smoothed.
        """
        off = self.smoothing / self.num_classes
        if targets.dim() == 1 and not targets.is_floating_point():
            dense = torch.full((len(targets), self.num_classes), off, device=targets.device)
            dense.scatter_(1, targets.view(-1, 1), 1 - self.smoothing + off)
        else:
            if self.smoothing and targets.dim() == 1:
                raise UsageError("numbers to predict have no labels to smooth: leave smoothing out")
            dense = targets.float().view(len(targets), -1)
            if self.smoothing:
                dense = dense * (1 - self.smoothing) + (self.smoothing / 2 if self.multi_label else off)
        pairs = 2 * (len(dense) // 2)
        if not pairs or (mix.lam == 1).all():
            return dense
        partner = torch.arange(len(dense), device=dense.device)
        partner[:pairs] ^= 1
        lam = sent(torch.as_tensor(mix.lam, dtype=torch.float32, device="cpu"), dense.device)[:, None]
        return dense * lam + dense[partner] * (1 - lam)


def _paste(images: torch.Tensor, before: torch.Tensor, left: int, boxes: np.ndarray) -> None:
    """Paste into each of two neighbors (from `left` on) its box of the other, both as they were."""
    areas = [(slice(None), slice(b[0], b[1]), slice(b[2], b[3])) for b in boxes[left : left + 2]]
    kept = before[left][areas[1]].clone()
    images[left][areas[0]] = before[left + 1][areas[0]]
    images[left + 1][areas[1]] = kept

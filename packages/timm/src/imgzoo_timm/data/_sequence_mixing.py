"""Mixing and erasing of images of many shapes: mixup and CutMix where two images overlap, boxes of whole patches."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate

from imgzoo.errors import UsageError
from imgzoo_data.erasing import Erase, erase_boxes

from ._mixup import one_hot
from ._transforms import drawn


def mix_batch_variable_size(
    imgs: list[Tensor], *, mixup_alpha: float = 0.8, cutmix_alpha: float = 1.0, switch_prob: float = 0.5,
    local_shuffle: int = 4,
) -> tuple[list[Tensor], list[float], dict[int, int]]:  # fmt: skip
    """Images (C, H, W) mixed in pairs of like aspect, where they overlap when their middles lie on one another.

    Returns the images, the share that each keeps of its own target, and the partner of each; an odd one is left alone.
    """
    if mixup_alpha <= 0 and cutmix_alpha <= 0:
        raise UsageError("one of mixup_alpha and cutmix_alpha is above 0, or nothing is mixed")
    if len(imgs) < 2:
        raise UsageError(f"at least two images are mixed, not {len(imgs)}")
    rng = drawn()
    order = np.argsort([img.shape[2] / img.shape[1] for img in imgs], kind="stable")
    order = np.concatenate([rng.permutation(order[i : i + local_shuffle]) for i in range(0, len(imgs), local_shuffle)])
    mixed, shares, partners = list(imgs), [1.0] * len(imgs), {}
    for first, second in zip(order[0::2].tolist(), order[1::2].tolist()):
        cut = cutmix_alpha > 0 and (mixup_alpha <= 0 or rng.random() < switch_prob)
        alpha = cutmix_alpha if cut else mixup_alpha
        lam = float(rng.beta(alpha, alpha))
        sides = [min(pair) for pair in zip(imgs[first].shape[1:], imgs[second].shape[1:])]
        inner = [int(side * math.sqrt(1 - lam)) if cut else side for side in sides]
        place = [int(rng.integers(side - part + 1)) for side, part in zip(sides, inner)]
        for me, other in ((first, second), (second, first)):
            own, theirs = (_middle(imgs[i], sides, place, inner) for i in (me, other))
            here, there = imgs[me][own].float(), imgs[other][theirs].float()
            blend = there if cut else there.lerp(here, lam)
            mixed[me] = imgs[me].clone()
            mixed[me][own] = blend if imgs[me].is_floating_point() else blend.round()
            part = inner[0] * inner[1] / (imgs[me].shape[1] * imgs[me].shape[2])
            shares[me] = 1.0 - part if cut else 1.0 - (1.0 - lam) * part
            partners[me] = other
    return mixed, shares, partners


def _middle(img: Tensor, sides: list[int], place: list[int], inner: list[int]) -> tuple[slice, ...]:
    """A box of the overlap, in an image's own pixels."""
    starts = [(whole - side) // 2 + at for whole, side, at in zip(img.shape[1:], sides, place)]
    return slice(None), *(slice(start, start + part) for start, part in zip(starts, inner))


def pairwise_mixup_target(targets: Tensor, pair_to: dict[int, int], lam_list: list[float], *, num_classes: int,
                          smoothing: float = 0.0, multi_label: bool = False) -> Tensor:  # fmt: skip
    """(B,) classes, or (B, num_classes) of several labels -> (B, num_classes), each mixed with its partner's."""
    if multi_label:
        dense = targets.float() * (1.0 - smoothing) + smoothing / 2
    else:
        off = smoothing / num_classes
        dense = one_hot(targets, num_classes, 1.0 - smoothing + off, off)
    lam = torch.tensor(lam_list, device=dense.device)[:, None]
    other = torch.tensor([pair_to.get(i, i) for i in range(len(dense))], device=dense.device)
    return dense * lam + dense[other] * (1.0 - lam)


class NaFlexMixup:
    """Images of many shapes and their classes, mixed in pairs with a probability; from an epoch on no longer."""

    def __init__(self, *, num_classes: int, mixup_alpha: float = 0.8, cutmix_alpha: float = 1.0,
                 switch_prob: float = 0.5, prob: float = 1.0, local_shuffle: int = 4, label_smoothing: float = 0.0,
                 mixup_off_epoch: int = 0, multi_label: bool = False) -> None:  # fmt: skip
        self.num_classes, self.mixup_alpha, self.cutmix_alpha = num_classes, mixup_alpha, cutmix_alpha
        self.switch_prob, self.prob, self.local_shuffle = switch_prob, prob, local_shuffle
        self.smoothing, self.mixup_off_epoch, self.multi_label = label_smoothing, mixup_off_epoch, multi_label
        self.mixup_enabled = True

    def set_epoch(self, epoch: int) -> None:
        self.mixup_enabled = not self.mixup_off_epoch or epoch < self.mixup_off_epoch

    def __call__(self, imgs: list[Tensor], targets: Any) -> tuple[list[Tensor], list[Tensor]]:
        targets = targets if isinstance(targets, Tensor) else default_collate(list(targets))
        shares, partners = [1.0] * len(imgs), {}
        if self.mixup_enabled and len(imgs) > 1 and drawn().random() < self.prob:
            imgs, shares, partners = mix_batch_variable_size(
                imgs, mixup_alpha=self.mixup_alpha, cutmix_alpha=self.cutmix_alpha, switch_prob=self.switch_prob,
                local_shuffle=self.local_shuffle)  # fmt: skip
        dense = pairwise_mixup_target(targets, partners, shares, num_classes=self.num_classes,
                                      smoothing=self.smoothing, multi_label=self.multi_label)  # fmt: skip
        return imgs, dense.unbind(0)  # type: ignore[return-value]


class PatchRandomErasing:
    """Zero patches (B, N, P, Q, C), or fill them with noise, in place: those of a box, or any of them."""

    def __init__(self, erase_prob: float = 0.5, patch_drop_prob: float = 0.0, min_count: int = 1,
                 max_count: int | None = None, min_area: float = 0.02, max_area: float = 1 / 3,
                 min_aspect: float = 0.3, max_aspect: float | None = None, mode: str = "const", value: float = 0.0,
                 spatial_mode: str = "region", num_splits: int = 0, device: Any = "cuda") -> None:  # fmt: skip
        if spatial_mode not in ("region", "patch"):
            raise UsageError(f"spatial_mode is region or patch, not {spatial_mode!r}")
        if patch_drop_prob:
            raise UsageError("patches are not dropped here: the networks' patch_drop_rate does")
        self.erase_prob, self.mode, self.value, self.spatial_mode = erase_prob, mode or "const", value, spatial_mode
        self.num_splits, self.device = num_splits, device
        self.erase = Erase(erase_prob, self.mode, (min_count, max_count or min_count), (min_area, max_area),
                           (min_aspect, max_aspect or 1 / min_aspect))  # fmt: skip

    def __call__(self, patches: Tensor, patch_coord: Tensor, patch_valid: Tensor | None = None) -> Tensor:
        if patches.ndim not in (4, 5):
            raise UsageError(f"patches are (B, N, P, Q, C), or (B, N, P * Q, C), not {tuple(patches.shape)}")
        for i in range(len(patches) // self.num_splits if self.num_splits > 1 else 0, len(patches)):
            valid = (
                patch_valid[i] if patch_valid is not None else torch.ones_like(patch_coord[i, :, 0], dtype=torch.bool)
            )
            for gone in self._chosen(patch_coord[i], valid):
                shape = {"const": (), "rand": patches.shape[-1:], "pixel": (int(gone.sum()), *patches.shape[2:])}[
                    self.mode
                ]
                noise = torch.randn(shape, device=patches.device) if shape else torch.tensor(self.value)
                patches[i, gone] = noise.to(patches)
        return patches

    def _chosen(self, coord: Tensor, valid: Tensor) -> list[Tensor]:
        """Which patches of an image go, a mask (N,) for each value."""
        rng, (rows, columns) = drawn(), (coord[valid].amax(0) + 1).tolist()
        if self.spatial_mode == "region":
            down, across = coord.unbind(1)
            return [valid & (down >= top) & (down < top + high) & (across >= left) & (across < left + wide)
                    for top, left, high, wide in erase_boxes(self.erase, rng, rows, columns)]  # fmt: skip
        if rng.random() >= self.erase_prob:
            return []
        count = max(1, int(rng.uniform(*self.erase.area) * int(valid.sum())))
        places = rng.choice(valid.nonzero().flatten().tolist(), count, replace=False)
        return [torch.zeros_like(valid).index_fill_(0, torch.as_tensor(places, device=valid.device), True)]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p={self.erase_prob}, mode={self.mode}, spatial={self.spatial_mode})"

"""Batches of images of many shapes: as many in a batch as a budget of patches allows, put together and normalized."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from imgzoo.errors import UsageError
from imgzoo_data.rng import generator
from imgzoo_timm.layers._helpers import to_2tuple

from ._constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from ._dataset import OrderedDistributedSampler, worker_seeds
from ._factory import create_transform
from ._sequence import Patchify
from ._sequence_mixing import PatchRandomErasing

Batch = tuple[dict[str, Any], Tensor]
ROUNDING = {"floor": math.floor, "ceil": math.ceil, "round": round}


def calculate_naflex_batch_size(tokens_per_batch: int, seq_len: int, max_size: int | None = None, divisor: int = 1,
                                rounding: str = "floor") -> int:  # fmt: skip
    """Images in a batch of so many patches in all, a multiple of `divisor` where that is not none; at least one."""
    if rounding not in ROUNDING:
        raise UsageError(f"rounding is {', '.join(ROUNDING)}, not {rounding!r}")
    size = max(1, ROUNDING[rounding](tokens_per_batch / seq_len / divisor) * divisor)
    return size if max_size is None else min(size, max_size)


class NaFlexCollator:
    """Samples of patches as one batch of length `max_seq_len` (576): shorter ones filled up, longer ones cut."""

    def __init__(self, max_seq_len: int | None = None) -> None:
        self.max_seq_len = max_seq_len or 576

    def __call__(self, batch: list[Any]) -> Batch:
        rows, length, filled = [row for row, _ in batch], self.max_seq_len, {}
        for key in ("patches", "patch_coord", "patch_valid"):
            first = rows[0][key]
            filled[key] = first.new_zeros(len(rows), length, *first.shape[1:])
            for into, row in zip(filled[key], rows):
                into[: len(row[key])] = row[key][:length]
        return {**filled, "seq_len": length}, default_collate([target for _, target in batch])


class NaFlexMapDatasetWrapper(IterableDataset):
    """A dataset of images as batches of patches; each batch has a length, a patch size and as many images as fit.

    Which lengths follow one another is drawn once by `seed`, samples and order anew for each epoch; every process has
    the same lengths in the same order. `transform_factory(max_seq_len=, patch_size=)` makes the transform of a batch.
    """

    def __init__(
        self, base_dataset: Any, patch_size: Any = None, patch_size_choices: list[int] | None = None,
        patch_size_choice_probs: list[float] | None = None, seq_lens: tuple[int, ...] = (128, 256, 576, 784, 1024),
        max_tokens_per_batch: int = 16384, transform_factory: Callable[..., Any] | None = None,
        mixup_fn: Callable[..., Any] | None = None, seed: int = 42, shuffle: bool = True, distributed: bool = False,
        rank: int = 0, world_size: int = 1, epoch: int = 0, batch_divisor: int = 8,
        patchify_channels_last: bool = True,
    ) -> None:  # fmt: skip
        if not seq_lens:
            raise UsageError("seq_lens names at least one length")
        self.patch_sizes, self.patch_size_probs = patch_choices(patch_size, patch_size_choices, patch_size_choice_probs)
        self.variable_patch_size = len(self.patch_sizes) > 1
        self.base_dataset, self.seq_lens = base_dataset, sorted(set(seq_lens))
        self.max_tokens_per_batch, self.batch_divisor = max_tokens_per_batch, batch_divisor
        self.mixup_fn, self.seed, self.shuffle = mixup_fn, seed, shuffle
        self.distributed, self.rank, self.world_size = distributed, rank, world_size if distributed else 1
        make = transform_factory or (lambda **_: None)
        self.transforms = {(length, i): make(max_seq_len=length, patch_size=size)
                           for length in self.seq_lens for i, size in enumerate(self.patch_sizes)}  # fmt: skip
        self.patchifiers = [Patchify(size, not self.variable_patch_size, patchify_channels_last)
                            for size in self.patch_sizes]  # fmt: skip
        self.collate_fns = {length: NaFlexCollator(length) for length in self.seq_lens}
        self.shared_epoch = torch.tensor(epoch).share_memory_()  # living workers see it too
        self.share = -(-len(base_dataset) // self.world_size)
        self.schedule = self._schedule()

    def _schedule(self) -> list[tuple[int, int]]:
        """Length and size of each batch of a process."""
        rng, left, rows = generator(self.seed, 0), self.share, []
        while left:
            length = self.seq_lens[rng.integers(len(self.seq_lens))]
            rows.append((length, calculate_naflex_batch_size(self.max_tokens_per_batch, length, left,
                                                             self.batch_divisor)))  # fmt: skip
            left -= rows[-1][1]
        return rows

    def set_epoch(self, epoch: int) -> None:
        self.shared_epoch.fill_(epoch)
        self._tell_mixing(epoch)

    def _tell_mixing(self, epoch: int) -> None:
        if hasattr(self.mixup_fn, "set_epoch"):
            self.mixup_fn.set_epoch(epoch)  # type: ignore[union-attr]

    def __len__(self) -> int:
        return len(self.schedule)

    def __iter__(self) -> Iterator[Batch]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        epoch = int(self.shared_epoch)
        self._tell_mixing(epoch)  # a worker that lives on has its own
        rng, count = generator(self.seed, epoch, 1), len(self.base_dataset)
        samples = rng.permutation(count) if self.shuffle else np.arange(count)
        samples = np.resize(samples, self.share * self.world_size)[self.rank :: self.world_size]
        order = rng.permutation(len(self.schedule)) if self.shuffle else range(len(self.schedule))
        kinds = rng.choice(len(self.patch_sizes), len(self.schedule), p=self.patch_size_probs)
        start = 0
        for i, place in enumerate(order):
            length, size = self.schedule[place]
            if i % workers == worker:
                yield self._batch(samples[start : start + size].tolist(), length, int(kinds[place]))
            start += size

    def _batch(self, indices: list[int], length: int, kind: int) -> Batch:
        samples = [self.base_dataset[i] for i in indices]
        transform = self.transforms[length, kind]
        images = [image if transform is None else transform(image) for image, _ in samples]
        targets: Any = [target for _, target in samples]
        if self.mixup_fn is not None:
            images, targets = self.mixup_fn(images, default_collate(targets))
        rows = [self.patchifiers[kind](image) for image in images]
        return self.collate_fns[length](list(zip(rows, targets)))


def patch_choices(size: Any, choices: Any, shares: Any) -> tuple[list[tuple[int, int]], list[float]]:
    """Sizes of patches, and how often each is drawn."""
    if size is not None and choices is not None:
        raise UsageError("give one of patch_size and patch_size_choices")
    sizes = [to_2tuple(each) for each in choices or [16 if size is None else size]]
    shares = list(shares or [1.0] * len(sizes))
    if len(shares) != len(sizes) or min(shares) < 0 or not sum(shares):
        raise UsageError(f"patch_size_choice_probs is a share for each of {len(sizes)} sizes, not {shares}")
    return sizes, [share / sum(shares) for share in shares]  # type: ignore[return-value]


class NaFlexPrefetchLoader:
    """Batches of patches on the device, normalized there, erased if so asked."""

    def __init__(self, loader: DataLoader, mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN,
                 std: tuple[float, ...] = IMAGENET_DEFAULT_STD, channels: int = 3,
                 device: torch.device = torch.device("cuda"), img_dtype: torch.dtype | None = None,  # noqa: B008
                 re_prob: float = 0.0, re_mode: str = "const", re_count: int = 1, re_num_splits: int = 0,
                 patchify_channels_last: bool = True) -> None:  # fmt: skip
        self.loader, self.device, self.img_dtype = loader, torch.device(device), img_dtype or torch.float32
        self.channels, self.patchify_channels_last = channels, patchify_channels_last
        self.mean, self.std = (torch.tensor([255 * x for x in np.resize(each, channels)], device=self.device,
                                            dtype=self.img_dtype) for each in (mean, std))  # fmt: skip
        if re_prob > 0 and not patchify_channels_last:
            raise UsageError("patches with channels first are not erased: leave patchify_channels_last true")
        self.random_erasing = PatchRandomErasing(re_prob, mode=re_mode, max_count=re_count, num_splits=re_num_splits,
                                                 device=device) if re_prob > 0 else None  # fmt: skip

    def _normalized(self, patches: Tensor) -> Tensor:
        mean, std = self.mean, self.std
        if self.patchify_channels_last:
            return patches.unflatten(-1, (-1, self.channels)).sub(mean).div_(std).flatten(-2)
        if patches.ndim == 3:
            return patches.unflatten(-1, (self.channels, -1)).sub(mean[:, None]).div_(std[:, None]).flatten(-2)
        return patches.sub(mean[:, None, None]).div_(std[:, None, None])

    def __iter__(self) -> Iterator[Batch]:
        for batch, targets in self.loader:
            batch = {key: value.to(self.device, non_blocking=True) if isinstance(value, Tensor) else value
                     for key, value in batch.items()}  # fmt: skip
            patches = self._normalized(batch["patches"].to(self.img_dtype))
            if self.random_erasing is not None:
                pixels = patches.unflatten(-1, (-1, self.channels)) if patches.ndim == 3 else patches
                self.random_erasing(pixels, batch["patch_coord"], batch["patch_valid"])
            yield {**batch, "patches": patches}, targets.to(self.device, non_blocking=True)

    def __len__(self) -> int:
        return len(self.loader)

    @property
    def sampler(self) -> Any:
        return self.loader.sampler

    @property
    def batch_sampler(self) -> Any:
        return self.loader.batch_sampler

    @property
    def dataset(self) -> Any:
        return self.loader.dataset


def create_naflex_loader(
    dataset: Any, patch_size: Any = None, patch_size_choices: list[int] | None = None,
    patch_size_choice_probs: list[float] | None = None, train_seq_lens: tuple[int, ...] = (128, 256, 576, 784, 1024),
    max_seq_len: int = 576, batch_size: int = 32, is_training: bool = False, mixup_fn: Callable[..., Any] | None = None,
    no_aug: bool = False, re_prob: float = 0.0, re_mode: str = "const", re_count: int = 1, re_split: bool = False,
    train_crop_mode: str | None = None, scale: Any = None, ratio: Any = None, hflip: float = 0.5, vflip: float = 0.0,
    color_jitter: Any = 0.4, color_jitter_prob: float | None = None, grayscale_prob: float = 0.0,
    gaussian_blur_prob: float = 0.0, auto_augment: str | None = None, num_aug_repeats: int = 0,
    num_aug_splits: int = 0, interpolation: str = "bilinear", mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN,
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD, channels: int = 3, crop_pct: float | None = None,
    crop_mode: str | None = None, crop_border_pixels: int | None = None, num_workers: int = 4,
    distributed: bool = False, rank: int = 0, world_size: int = 1, seed: int = 42, epoch: int = 0,
    use_prefetcher: bool = True, pin_memory: bool = True, img_dtype: torch.dtype = torch.float32,
    device: Any = torch.device("cuda"), persistent_workers: bool = True, worker_seeding: Any = "all",  # noqa: B008
    patchify_channels_last: bool = True,
) -> Any:  # fmt: skip
    """Batches of patches of a dataset of images: of several lengths in training, of `max_seq_len` in evaluation.

    A training batch has as many patches as `batch_size` images of the longest length.
    """
    if num_aug_repeats or num_aug_splits or re_split:
        raise UsageError("batches of patches have no repeats and no splits: see create_loader for those")
    shared: dict[str, Any] = dict(
        is_training=is_training, no_aug=no_aug, train_crop_mode=train_crop_mode, scale=scale,
        ratio=ratio, hflip=hflip, vflip=vflip, color_jitter=color_jitter, color_jitter_prob=color_jitter_prob,
        grayscale_prob=grayscale_prob, gaussian_blur_prob=gaussian_blur_prob, auto_augment=auto_augment,
        interpolation=interpolation, mean=mean, std=std, crop_pct=crop_pct, crop_mode=crop_mode,
        crop_border_pixels=crop_border_pixels, re_prob=re_prob, re_mode=re_mode, re_count=re_count,
        use_prefetcher=use_prefetcher, naflex=True)  # fmt: skip
    options: dict[str, Any] = dict(num_workers=num_workers, pin_memory=pin_memory,
                                   persistent_workers=persistent_workers and num_workers > 0,
                                   worker_init_fn=worker_seeds(worker_seeding))  # fmt: skip
    if is_training:
        wrapped = NaFlexMapDatasetWrapper(
            dataset, patch_size, patch_size_choices, patch_size_choice_probs, train_seq_lens,
            batch_size * max(train_seq_lens), partial(create_transform, **shared), mixup_fn, seed, True, distributed,
            rank, world_size, epoch, patchify_channels_last=patchify_channels_last)  # fmt: skip
        loader: Any = DataLoader(wrapped, batch_size=None, **options)
    else:
        sizes, _ = patch_choices(patch_size, patch_size_choices, patch_size_choice_probs)
        if len(sizes) > 1:
            raise UsageError("an evaluation has one patch_size")
        dataset.transform = create_transform(**shared, patch_size=sizes[0], max_seq_len=max_seq_len, patchify=True,
                                             patchify_channels_last=patchify_channels_last)  # fmt: skip
        sampler = OrderedDistributedSampler(dataset, world_size, rank) if distributed else None
        loader = DataLoader(dataset, batch_size, collate_fn=NaFlexCollator(max_seq_len), sampler=sampler, **options)
    if not use_prefetcher:
        return loader
    return NaFlexPrefetchLoader(loader, mean, std, channels, device, img_dtype, re_prob if is_training and not no_aug
                                else 0.0, re_mode, re_count,
                                patchify_channels_last=patchify_channels_last)  # fmt: skip

"""Batches of several sizes, each of images of one size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler


class ScheduledBatchSampler(Sampler):
    """Batches of (sample, choice) pairs: the choice of a size is drawn for a whole run of batches, epoch by epoch.

    All processes that share a seed draw the same choices. `choice_schedule` "progressive" moves from the first choice
    to the last over `schedule_epochs`: weights fall off around a place that moves, with the width `schedule_spread`,
    and a share `schedule_random_mix` of them stays the same for all.
    """

    def __init__(self, sampler: Any, batch_sizes: Sequence[int], choice_weights: Sequence[float] | None = None,
                 seed: int = 0, drop_last: bool = True, shuffle_schedule: bool = True, num_batches: int | None = None,
                 choice_schedule: str = "constant", schedule_epochs: int | None = None,
                 schedule_spread: float = 0.65, schedule_random_mix: float = 0.1) -> None:  # fmt: skip
        if not batch_sizes or any(size < 1 for size in batch_sizes):
            raise ValueError(f"batch_sizes are one or more numbers of at least 1, not {list(batch_sizes)}")
        weights = [1.0] * len(batch_sizes) if choice_weights is None else [float(each) for each in choice_weights]
        if len(weights) != len(batch_sizes) or not all(0 <= each < math.inf for each in weights) or not sum(weights):
            raise ValueError(f"choice_weights are a share of at least 0 for each batch size, not {weights}")
        if num_batches is not None and num_batches < 1:
            raise ValueError(f"num_batches is at least 1, not {num_batches}")
        if choice_schedule not in ("constant", "progressive"):
            raise ValueError(f"choice_schedule is constant or progressive, not {choice_schedule!r}")
        if choice_schedule == "progressive" and (schedule_epochs is None or schedule_epochs < 1):
            raise ValueError("a progressive schedule needs schedule_epochs of at least 1")
        if schedule_spread <= 0 or not 0 <= schedule_random_mix <= 1:
            raise ValueError("schedule_spread is above 0, schedule_random_mix between 0 and 1")
        self.sampler, self.batch_sizes = sampler, tuple(batch_sizes)
        self.choice_weights = torch.tensor(weights, dtype=torch.float64) / sum(weights)
        self.seed, self.drop_last = seed, drop_last
        self.shuffle_schedule, self.num_batches = shuffle_schedule, num_batches
        self.choice_schedule, self.schedule_epochs = choice_schedule, schedule_epochs
        self.schedule_spread, self.schedule_random_mix = schedule_spread, schedule_random_mix
        self.set_epoch(0)

    def choice_weights_for_epoch(self, epoch: int) -> Tensor:
        """The share of batches of each size: (sizes,)."""
        count = len(self.batch_sizes)
        if self.choice_schedule == "constant" or count == 1:
            return self.choice_weights
        place = min(max(epoch / max((self.schedule_epochs or 1) - 1, 1), 0.0), 1.0) * (count - 1)
        near = torch.exp(-0.5 * ((torch.arange(count, dtype=torch.float64) - place) / self.schedule_spread) ** 2)
        near = near * self.choice_weights
        return (1 - self.schedule_random_mix) * near / near.sum() + self.schedule_random_mix / count

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)
        drawn = torch.Generator().manual_seed(self.seed)
        if self.choice_schedule != "constant":
            drawn.manual_seed(self.seed + epoch)
        weights, left, rows = self.choice_weights_for_epoch(epoch), len(self.sampler), []
        while left > 0 if self.num_batches is None else len(rows) < self.num_batches:
            choice = int(torch.multinomial(weights, 1, generator=drawn))
            size = self.batch_sizes[choice]
            if self.num_batches is None and size > left and self.drop_last:
                break
            rows.append((choice, size))
            left -= size
        if self.shuffle_schedule:
            order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(self.seed + epoch)).tolist()
            rows = [rows[i] for i in order]
        self.schedule = tuple(rows)

    def __len__(self) -> int:
        return len(self.schedule)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        indices = iter(self.sampler)
        for choice, size in self.schedule:
            batch = []
            for _ in range(size):
                index = next(indices, None)
                if index is None and self.num_batches is not None:  # more batches than samples: from the beginning
                    indices = iter(self.sampler)
                    index = next(indices, None)
                if index is None:
                    break
                batch.append((index, choice))
            if batch and (len(batch) == size or not self.drop_last):
                yield batch


class ScheduledTransformDataset(Dataset):
    """A dataset whose samples are asked for with the choice of a transform: `dataset[index, choice]`."""

    def __init__(self, dataset: Any, transforms: Sequence[Callable[..., Any]]) -> None:
        if not transforms:
            raise ValueError("one transform a choice, and there is none")
        self.dataset, self.transforms = dataset, list(transforms)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Any, Any]:
        index, choice = key
        image, target = self.dataset[index]
        return self.transforms[choice](image), target

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> Any:
        return self.dataset.filename(index, basename, absolute)

    def filenames(self, basename: bool = False, absolute: bool = False) -> Any:
        return self.dataset.filenames(basename, absolute)

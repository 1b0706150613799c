"""Batches of several sizes, each of images of one size."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


class ScheduledBatchSampler(Sampler):
    """Batches of (sample, choice) pairs: the choice of a size is drawn for each batch, of images of that size.

    All processes that share a seed draw the same choices. A "constant" schedule draws batches once, until no size with
    a weight fits what is left of the samples, and shuffles them every epoch; `num_batches` are drawn anew.
    A "progressive" one moves from the first choice to the last over `schedule_epochs`: weights fall off around a place
    that moves, with the width `schedule_spread` (0: the nearest choice alone), and a share `schedule_random_mix` of
    them is the same for all choices with a weight. It has as many batches every epoch: `num_batches`, or the samples
    over `average_batch_size`, the mean over its epochs. Samples begin anew where batches need more.

    Raises:
        ValueError: an option is out of its range, there are no samples, or not one batch is full.
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
        self.sampler, self.batch_sizes = sampler, tuple(batch_sizes)
        self.choice_weights = torch.tensor(weights, dtype=torch.float64) / sum(weights)
        self.seed, self.drop_last, self.epoch = seed, drop_last, 0
        self.shuffle_schedule, self.num_batches = shuffle_schedule, num_batches
        self.choice_schedule, self.schedule_epochs = choice_schedule, schedule_epochs
        self.schedule_spread, self.schedule_random_mix = schedule_spread, schedule_random_mix
        epochs = 1 if choice_schedule == "constant" else self._checked_epochs()
        sizes = torch.tensor(self.batch_sizes, dtype=torch.float64)
        shares = torch.stack([self.choice_weights_for_epoch(epoch) for epoch in range(epochs)])
        self.average_batch_size = float((shares @ sizes).mean())
        self._rows: list[tuple[int, int]] | None = None
        self._allot(len(sampler))

    def _checked_epochs(self) -> int:
        if self.schedule_epochs is None or self.schedule_epochs < 1:
            raise ValueError("a progressive schedule needs schedule_epochs of at least 1")
        if len(self.batch_sizes) < 2:
            raise ValueError("a progressive schedule needs at least two batch_sizes to move between")
        if self.schedule_spread < 0 or not 0 <= self.schedule_random_mix <= 1:
            raise ValueError("schedule_spread is at least 0, schedule_random_mix between 0 and 1")
        return self.schedule_epochs

    def _allot(self, count: int) -> None:
        """Settle how many batches there are."""
        if not count:
            raise ValueError("there are no samples: batches are of a non-empty sampler")
        if self.num_batches is None and self.choice_schedule == "progressive":
            found = count / self.average_batch_size
            self.num_batches = int(found) if self.drop_last else math.ceil(found)
        elif self.num_batches is None:
            self._rows = self._drawn(count)
        if not (self.num_batches or self._rows):
            raise ValueError(f"No full scheduled batch fits {count} samples: give smaller batch_sizes")

    def choice_weights_for_epoch(self, epoch: int) -> Tensor:
        """The share of batches of each size: (sizes,)."""
        count = len(self.batch_sizes)
        if self.choice_schedule == "constant":
            return self.choice_weights
        last = (self.schedule_epochs or 1) - 1
        place = (min(max(epoch / last, 0.0), 1.0) if last else 1.0) * (count - 1)
        away, active = (torch.arange(count, dtype=torch.float64) - place).abs(), (self.choice_weights > 0).double()
        if self.schedule_spread:
            near = torch.exp(-0.5 * (away / self.schedule_spread) ** 2) * self.choice_weights
        else:
            near = torch.zeros_like(away)
            near[away.masked_fill(active == 0, math.inf).argmin()] = 1.0
        return (1 - self.schedule_random_mix) * near / near.sum() + self.schedule_random_mix * active / active.sum()

    def _drawn(self, left: int) -> list[tuple[int, int]]:
        """Batches out of so many samples: the last is the part that is left, unless it is dropped."""
        drawn, rows = seeded(self.seed), []
        sizes, active = torch.tensor(self.batch_sizes), self.choice_weights > 0
        while left:
            fits = active & (sizes <= left)
            if not fits.any():
                if self.drop_last:
                    break
                fits = active
            choice = int(torch.multinomial(self.choice_weights * fits, 1, generator=drawn))
            rows.append((choice, min(self.batch_sizes[choice], left)))
            left -= rows[-1][1]
        return rows

    @property
    def schedule(self) -> tuple[tuple[int, int], ...]:
        """Choice and size of each batch of the epoch."""
        rows = self._rows
        if rows is None:
            weights, drawn = self.choice_weights_for_epoch(self.epoch), seeded(self.seed + self.epoch)
            found = [int(torch.multinomial(weights, 1, generator=drawn)) for _ in range(self.num_batches or 0)]
            rows = [(choice, self.batch_sizes[choice]) for choice in found]
        order = torch.randperm(len(rows), generator=seeded(self.seed + self.epoch + 1)).tolist()
        return tuple(rows[i] for i in order) if self.shuffle_schedule else tuple(rows)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self._rows) if self._rows is not None else self.num_batches or 0

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        indices = iter(self.sampler)
        for choice, size in self.schedule:
            batch = []
            while len(batch) < size:
                index = next(indices, None)
                if index is None:  # more batches than samples: from the beginning
                    indices = iter(self.sampler)
                    index = next(indices)
                batch.append((index, choice))
            yield batch


class ScheduledTransformDataset(Dataset):
    """A dataset whose samples are asked for with the choice of a transform: `dataset[index, choice]`."""

    def __init__(self, dataset: Any, transforms: Sequence[Callable[..., Any]]) -> None:
        if not transforms:
            raise ValueError("one transform a choice, and there is none")
        self.dataset, self.transforms = dataset, list(transforms)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Any, ...]:
        index, choice = key
        image, *rest = self.dataset[index]
        return (self.transforms[choice](image), *rest)

    def set_epoch(self, epoch: int) -> None:
        if hasattr(self.dataset, "set_epoch"):
            self.dataset.set_epoch(epoch)

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> Any:
        return self.dataset.filename(index, basename, absolute)

    def filenames(self, basename: bool = False, absolute: bool = False) -> Any:
        return self.dataset.filenames(basename, absolute)

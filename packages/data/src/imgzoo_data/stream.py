"""The loader of streaming sources: they keep their own order, which depends on the number of ranks and workers."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from imgzoo.errors import DataError, UsageError

from .loader import Loader
from .order import BatchKey
from .rng import generator
from .sources.base import Sample, StreamSource
from .worker import Fault, Fetched, Fetcher, same, start_worker

_READER = 1 << 40


class StreamOrder:
    """Counts the steps of a stream: whole batches of `num_samples` in training, as many as come in evaluation."""

    def __init__(
        self, source: StreamSource, batch_size: int, rank: int, world: int, training: bool, num_samples: int | None
    ):
        self.batch_size, self.rank, self.world, self.training = batch_size, rank, world, training
        try:
            self.samples: int | None = num_samples or len(source)
        except TypeError:
            self.samples = None
        if training and self.samples is None:
            raise UsageError(f"{source.name or 'the stream'} does not know its length; pass num_samples to train on it")

    def steps(self, epoch: int) -> int:
        """Steps of an epoch; an evaluation ends when the stream does."""
        if not self.training:
            return sys.maxsize
        assert self.samples is not None
        return max(1, self.samples // (self.batch_size * self.world))

    def position(self, epoch: int, step: int) -> int:
        """Place of this rank's first sample in the global batch."""
        return self.rank * self.batch_size


class StreamFetcher(IterableDataset):
    """In each worker: reads its share of the stream and makes every n-th batch of the rank."""

    def __init__(self, fetcher: Fetcher, order: StreamOrder, workers: int, prefetch: int):
        self.fetcher, self.order, self.workers, self.prefetch = fetcher, order, workers, prefetch
        self.start = torch.zeros(2, dtype=torch.int64, device="cpu").share_memory_()
        """Epoch and step at which the next loop begins; shared, so that living workers see it."""

    def __iter__(self) -> Iterator[Fetched]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info is not None else (0, 1)
        epoch, first = self.start.tolist()
        order, own = self.order, self.prefetch + 1
        samples = self._samples(epoch, order.rank * workers + worker, order.world * workers)
        skipped = len(range(worker, first, workers)) * order.batch_size
        for _ in range(skipped):
            if next(samples, None) is None:
                return
        first += (worker - first) % workers
        for number, step in enumerate(range(first, order.steps(epoch), workers)):
            key = BatchKey(epoch, step, worker * own + number % own, np.zeros(0, np.int64), np.zeros(0, np.int64), None)
            batch = self._batch(key, samples)
            if batch is None:
                return
            yield batch

    def _samples(self, epoch: int, reader: int, readers: int) -> Iterator[tuple[int, Sample]]:
        source, count = self.fetcher.source, 0
        turn = 0
        while True:
            before = count
            # beyond its own end a training stream begins again, in another order
            for sample in source.stream(self.fetcher.seed, epoch + (turn << 20), reader, readers, self.order.training):  # type: ignore[attr-defined]
                yield reader * _READER + count, sample
                count += 1
            if not self.order.training or count == before:
                return
            turn += 1

    def _batch(self, key: BatchKey, samples: Iterator[tuple[int, Sample]]) -> Fetched | None:
        rows: list[Any] = []
        faults: list[Fault] = []
        while len(rows) < self.order.batch_size:
            item = next(samples, None)
            if item is None:
                break
            index, sample = item
            try:
                images = self.fetcher.versions(sample, generator(self.fetcher.seed, key.epoch, index), key.size)
                rows.append((images, sample.target, index, 0))
            except (DataError, OSError) as error:
                faults.append(Fault(index, sample.key, "", str(error)))
                if self.fetcher.bad == "raise":
                    break
        if not rows and not faults:
            return None
        return self.fetcher.pack(key, rows, tuple(faults))


class StreamLoader(Loader):
    """As `Loader`, for a stream. The order depends on ranks and workers; a seek reads over what it skips."""

    def __init__(self, order: StreamOrder, fetcher: Fetcher, stage: Any, quarantine: Any, **options: Any):
        super().__init__(order, fetcher, stage, quarantine, **options)  # type: ignore[arg-type]
        self.reader = StreamFetcher(fetcher, order, self.workers, self.prefetch)

    def __len__(self) -> int:
        order: Any = self.order
        if order.training:
            return order.steps(self.epoch)
        if order.samples is None:
            raise TypeError("the stream does not know its length; pass num_samples")
        return -(-order.samples // (order.batch_size * order.world))

    def _position(self, epoch: int, step: int) -> None:
        self.reader.start[0], self.reader.start[1] = epoch, step

    def _make_engine(self) -> DataLoader:
        several = {"prefetch_factor": self.prefetch, "persistent_workers": True} if self.workers else {}
        return DataLoader(
            self.reader,
            batch_size=None,
            num_workers=self.workers,
            collate_fn=same,
            worker_init_fn=start_worker,
            multiprocessing_context=self.context if self.workers else None,
            generator=torch.Generator().manual_seed(0),
            **several,
        )

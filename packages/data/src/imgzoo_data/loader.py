"""The loader: torch's DataLoader, fed with work orders that depend on (seed, epoch, step) alone.

So the stream is the same for any number of workers, goes on from any step, and survives the death of a worker.
"""

from __future__ import annotations

import json
import logging
import re
import signal
import threading
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from imgzoo.errors import DataError, UsageError
from imgzoo.text import escaped

from .config import resolve_data_config
from .device import DeviceStage, overlapped
from .fetch import POLICIES, Fault, Fetched, Fetcher, Slots, same, start_worker
from .mixing import Mixer
from .order import BatchKey, Choice, Order, SizeSchedule
from .samplers import create_sampler
from .sequences import SequenceFetcher, SequenceStage
from .sources.base import Source, StreamSource, create_dataset
from .sources.views import as_source
from .transforms.create import create_transform
from .transforms.pipeline import Transform
from .transforms.sequences import SequenceCrop

log = logging.getLogger("imgzoo.data")
_PREFETCH = 2


class Batch(NamedTuple):
    """One batch of one rank. Targets: (B,) int64, or (B, num_classes) float32 when mixed, smoothed or multi-label."""

    images: Any
    """(B, C, H, W) on the device: float and normalized, or uint8 with `normalize=False`. `Patches` for sequences."""
    targets: torch.Tensor
    indices: torch.Tensor
    """(B,) int64 sample numbers, on the CPU."""


class _Orders:
    """The batch sampler: yields the work orders from a position to the end of its epoch."""

    def __init__(self, order: Order, slots: int):
        self.order, self.slots, self.epoch, self.step = order, slots, 0, 0

    def __iter__(self) -> Iterator[BatchKey]:
        for number, step in enumerate(range(self.step, self.order.steps(self.epoch))):
            yield self.order.batch(self.epoch, step, number % self.slots)

    def __len__(self) -> int:
        return max(0, self.order.steps(self.epoch) - self.step)


class Quarantine:
    """Counts bad samples against a budget and writes each once to a JSON-lines file."""

    def __init__(self, path: str | Path | None, budget: int, policy: str):
        self.path, self.budget, self.policy = Path(path) if path else None, budget, policy
        self.seen: set[str] = set()

    def take(self, faults: tuple[Fault, ...]) -> None:
        """Record faults; raises `DataError` under policy `raise`, and when the budget is spent."""
        for fault in faults:
            new = fault.key not in self.seen
            self.seen.add(fault.key)
            if new and self.path is not None:
                self._write(self.path, fault)
            if self.policy == "raise":
                raise DataError(
                    f"sample '{fault.key}' cannot be used: {fault.error}; see bad='skip' to go on without it"
                )
            if new:
                log.warning("left out '%s': %s", escaped(fault.key), escaped(fault.error))
            if len(self.seen) > self.budget:
                count, last = len(self.seen), f"'{fault.key}': {fault.error}"
                raise DataError(f"{count} bad samples exceed the budget of {self.budget}; the last is {last}")

    def _write(self, path: Path, fault: Fault) -> None:
        row = {"path": fault.key, "index": fault.index, "sha256": fault.sha256, "error": fault.error}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:  # what is written down is counted all the same
            log.warning("cannot write %s (%s); bad samples are no longer written down", path, error.strerror)
            self.path = None


class Loader:
    """Iterable of `Batch`. One `for` loop is one epoch, from the position set by `seek`; then the next epoch is due.

    A loop that is left early does not move the position: seek to where you want to go on.
    """

    def __init__(
        self,
        order: Order,
        fetcher: Fetcher,
        stage: DeviceStage,
        quarantine: Quarantine,
        *,
        workers: int = 0,
        prefetch: int = _PREFETCH,
        context: str | None = None,
        restarts: int = 3,
    ):
        self.order, self.fetcher, self.stage, self.quarantine = order, fetcher, stage, quarantine
        self.workers, self.prefetch, self.context, self.restarts = workers, prefetch, context, restarts
        self.epoch, self.step = 0, 0
        self._orders = _Orders(order, fetcher.slots.count)
        self._engine: DataLoader | None = None
        self._run = 0

    @property
    def source(self) -> Source:
        """The source that samples come from."""
        return self.fetcher.source

    @property
    def transform(self) -> Transform:
        """The transform that workers apply."""
        return self.fetcher.transform

    @property
    def mixer(self) -> Mixer | None:
        """Mixing on the device, if any."""
        return self.stage.mixer

    def seek(self, epoch: int, step: int = 0) -> None:
        """Go on from this step of this epoch, at no cost in steps; a step past the end is the end."""
        if epoch < 0 or step < 0:
            raise UsageError("epoch and step start at 0")
        self.epoch, self.step = epoch, step

    def __len__(self) -> int:
        """Batches of a whole epoch."""
        return self.order.steps(self.epoch)

    def __iter__(self) -> Iterator[Batch]:
        self._run += 1
        return overlapped(self._batches(self._run), self.stage.device)

    def _batches(self, run: int) -> Iterator[Batch]:
        epoch, fetches, batches = self.epoch, 0, 0
        for fetched in self._fetched(epoch, self.step, run):
            self.quarantine.take(fetched.faults)
            fetches += 1
            if len(fetched.indices):
                batches += 1
                yield Batch(*self.stage(fetched, self.order.position(epoch, fetched.key.step)))
            elif self.order.training:
                raise DataError(f"every sample of step {fetched.key.step} is bad; see the quarantine file")
        if fetches and not batches:
            raise DataError("every sample is bad; see the quarantine file")
        if run == self._run and self.epoch == epoch:
            self.seek(epoch + 1)

    def _fetched(self, epoch: int, step: int, run: int) -> Iterator[Fetched]:
        """The fetched batches in order; dead workers are replaced and their batches made again."""
        deaths, last = 0, self.order.steps(epoch)
        while step < last:
            if run != self._run:
                raise UsageError("another loop over this loader has begun; one at a time")
            self._position(epoch, step)
            iterator = self._start()
            try:
                while step < last:
                    fetched = next(iterator, None)
                    if fetched is None:
                        return
                    step = fetched.key.step + 1
                    yield fetched
                    if run != self._run:
                        raise UsageError("another loop over this loader has begun; one at a time")
            except (RuntimeError, OSError, EOFError) as error:
                dead = _dead_workers(iterator)
                if isinstance(error, UsageError | DataError) or not dead:
                    raise
                deaths += 1
                if deaths > self.restarts:
                    raise DataError(f"{deaths} workers died in one epoch; the machine may be out of memory") from error
                log.warning("worker %s died at step %d; starting others", ", ".join(map(str, dead)), step)
                self.close()

    def _position(self, epoch: int, step: int) -> None:
        self._orders.epoch, self._orders.step = epoch, step

    def _start(self) -> Any:
        if self._engine is None:
            self._engine = self._make_engine()
        with warnings.catch_warnings():  # more workers than cores is the caller's choice
            warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
            iterator = iter(self._engine)
        if self.workers:
            _watch_children()
        return iterator

    def _make_engine(self) -> DataLoader:
        several = {"prefetch_factor": self.prefetch, "persistent_workers": True} if self.workers else {}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
            return DataLoader(
                self.fetcher,  # type: ignore[arg-type]
                batch_sampler=self._orders,  # type: ignore[arg-type]
                num_workers=self.workers,
                collate_fn=same,
                worker_init_fn=start_worker,
                multiprocessing_context=self.context if self.workers else None,
                generator=torch.Generator().manual_seed(0),  # else it draws from, and so moves, the global generator
                **several,
            )

    def close(self) -> None:
        """End the workers; the next loop starts new ones."""
        iterator = getattr(self._engine, "_iterator", None)
        self._engine = None
        if iterator is not None:
            iterator._shutdown_workers()


def _dead_workers(iterator: Any) -> list[int]:
    return [worker.pid for worker in getattr(iterator, "_workers", []) if not worker.is_alive()]


_DEATH = re.compile(r"DataLoader worker \(pid\(?s?\)? ?[\d, ]+\) (is killed by signal|exited unexpectedly)")


def _watch_children() -> None:
    """Keep torch's child handler from raising in the middle of the caller's code when a worker dies.

    The loader notices by itself when it waits for the batch. Other errors of that handler pass.
    """
    if threading.current_thread() is not threading.main_thread():
        return
    handler = signal.getsignal(signal.SIGCHLD)
    if not callable(handler) or getattr(handler, "imgzoo", False):
        return
    signal.signal(signal.SIGCHLD, _quiet(handler))


def _quiet(handler: Callable[[int, Any], Any]) -> Callable[[int, Any], None]:
    def on_child(number: int, frame: Any) -> None:
        try:
            handler(number, frame)
        except RuntimeError as error:
            if not _DEATH.search(str(error)):
                raise

    on_child.imgzoo = True  # type: ignore[attr-defined]
    return on_child


def create_loader(
    source: Any,
    transform: Transform | Any = None,
    batch_size: int = 64,
    *,
    seed: int = 0,
    training: bool | None = None,
    workers: int = 0,
    rank: int = 0,
    world: int = 1,
    epoch: int = 0,
    start_step: int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    normalize: bool = True,
    channels_last: bool = False,
    mixer: Mixer | None = None,
    drop_last: bool | None = None,
    repeats: int = 1,
    schedule: SizeSchedule | None = None,
    steps_per_epoch: int | None = None,
    num_samples: int | None = None,
    sampler: Any = "shuffle",
    bad: str | None = None,
    budget: float = 0.001,
    quarantine: str | Path | None = None,
    prefetch: int = _PREFETCH,
    context: str | None = None,
) -> Loader:
    """Batches of a source, the same stream for any number of workers; ranks split each global batch.

    Args:
        source: an open source, its name as for `create_dataset`, a torch data set, or a list of (image, label).
        transform: from `create_transform`, or what that takes (a model, a mapping, None).
        batch_size: samples a rank takes each step.
        training: shuffled and augmented; else in order, every sample once. Defaults to the transform's.
        epoch, start_step: where to begin, as `seek`.
        mixer: mixup, CutMix and label smoothing on the device.
        repeats: repeated augmentation: each sample this many times in a global batch (1901.09335).
        schedule: batches of several sizes (and batch sizes).
        num_samples: length of a streaming source that does not know it.
        sampler: which samples an epoch of training draws: `shuffle` (all once), `balanced` (every class equally often),
            `sqrt` (by the square root of its size), or any iterable of sample numbers with a length.
        bad: what to do with a sample that cannot be read: `raise`, `skip` it, or (training only) `replace` it by a
        random other.
            Evaluation defaults to raise, training to replace.
        budget: bad samples allowed, a share of the source (at least one sample) or a count from 1 up; then `DataError`.
        quarantine: file to which bad samples are written (path, hash, error), one JSON line each.
        context: how workers start: `fork`, `spawn` or `forkserver`.
    """
    if not isinstance(transform, Transform):
        transform = create_transform(resolve_data_config(transform), training=bool(training))
    shuffled = transform.training if training is None else training
    if isinstance(source, str):
        source = create_dataset(source, "train" if shuffled else "validation")
    else:
        source = as_source(source)
    if source.range is not None:
        transform = replace(transform, config=replace(transform.config, range=source.range))
    policy = _policy(bad, shuffled)
    if mixer is not None and transform.splits > 1:
        raise UsageError("mixing and augmentation splits do not go together; use one of them")
    stage_options = {
        "device": device,
        "dtype": dtype,
        "normalize": normalize,
        "channels_last": channels_last,
        "mixer": mixer,
    }
    size = _slot_bytes(transform, batch_size, schedule)
    streaming = isinstance(source, StreamSource)
    slots = Slots(max(1, workers) * (prefetch + 1) if streaming else workers * prefetch + 1, size, context)
    sequences = isinstance(transform.crop, SequenceCrop)
    fetcher = (SequenceFetcher if sequences else Fetcher)(source, transform, slots, seed, policy)  # type: ignore[arg-type]
    stage = (SequenceStage if sequences else DeviceStage)(transform, slots, seed=seed, **stage_options)  # type: ignore[arg-type]
    engine = {"workers": workers, "prefetch": prefetch, "context": context}
    if streaming:
        if repeats > 1 or schedule is not None or steps_per_epoch is not None or sampler != "shuffle":
            raise UsageError(
                "repeats, schedule, sampler and steps_per_epoch need a source with random access, no stream"
            )
        from .stream import StreamLoader, StreamOrder

        counts = StreamOrder(source, batch_size, rank, world, shuffled, num_samples)
        share = _allowed(budget, counts.samples or 0)
        loader: Loader = StreamLoader(counts, fetcher, stage, Quarantine(quarantine, share, policy), **engine)
    else:
        if not shuffled and not (isinstance(sampler, str) and sampler == "shuffle"):
            raise UsageError("a sampler is for training; evaluation takes every sample once, in order")
        length, draw = create_sampler(sampler, source, seed)
        order = Order(
            length, batch_size, seed, rank, world, shuffled, drop_last, repeats, schedule, steps_per_epoch, draw
        )
        share = _allowed(budget, len(source))
        loader = Loader(order, fetcher, stage, Quarantine(quarantine, share, policy), **engine)
    loader.seek(epoch, start_step)
    return loader


def _allowed(budget: float, samples: int) -> int:
    """How many bad samples are allowed: a count from 1 up, or a share of the samples, at least one."""
    return int(budget) if budget >= 1 else max(1, int(budget * samples))


def _policy(bad: str | None, training: bool) -> str:
    policy = bad or ("replace" if training else "raise")
    if policy not in POLICIES:
        raise UsageError(f"bad='{policy}' is unknown; use {', '.join(POLICIES)}")
    if policy == "replace" and not training:
        raise UsageError("evaluation never replaces a sample by another; use bad='raise' or bad='skip'")
    return policy


def _slot_bytes(transform: Transform, batch_size: int, schedule: SizeSchedule | None) -> int:
    channels, *size = transform.config.input_size
    sequences = isinstance(transform.crop, SequenceCrop)
    if isinstance(transform.crop, SequenceCrop):
        size = transform.crop.size(None)
    choices = schedule.choices if schedule is not None else (Choice(size, batch_size),)
    areas = [c.batch_size * (c.size[0] ** 2 if sequences else c.size[0]) * c.size[1] for c in choices]
    return max(areas) * channels * transform.splits

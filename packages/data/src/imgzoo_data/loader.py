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
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch.utils.data import DataLoader

from imgzoo.errors import DataError, UsageError
from imgzoo.text import escaped

from .device import DeviceStage, overlapped
from .mixing import Mixer
from .order import BatchKey, Order
from .sources.base import Source
from .transforms.pipeline import Transform
from .worker import Fault, Fetched, Fetcher, same, start_worker

log = logging.getLogger("imgzoo.data")
PREFETCH = 2


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


ADVICE = "see bad='skip' to go on without it"


class BadSampleError(DataError):
    """A sample that cannot be used where none may be left out; `found` says why, without the `advice`, if any."""

    def __init__(self, found: str, advice: str = "") -> None:
        super().__init__(f"{found}; {advice or ADVICE}")
        self.found, self.advice = found, advice


class Quarantine:
    """Counts bad samples against a budget and writes each once to a JSON-lines file; ranks with one file share it."""

    def __init__(self, path: str | Path | None, budget: int, policy: str):
        self.path, self.budget, self.policy = Path(path) if path else None, budget, policy
        self.seen: set[str] = set()
        self.begin = self.path.stat().st_size if self.path and self.path.is_file() else 0
        """Where in the file this run begins: what a run before it met is met again, or was mended."""

    def take(self, faults: tuple[Fault, ...]) -> None:
        """Record faults; raises `DataError` under policy `raise`, and when the budget is spent."""
        for fault in faults:
            new = fault.key not in self.seen
            self.seen.add(fault.key)
            if new and self.path is not None:
                self._write(self.path, fault)
            if self.policy == "raise":
                raise BadSampleError(f"sample '{fault.key}' cannot be used: {fault.error}")
            if new:
                log.warning("left out '%s': %s", escaped(fault.key), escaped(fault.error))
            if len(self.seen) > self.budget:
                count, last = len(self.seen), f"'{fault.key}': {fault.error}"
                raise DataError(f"{count} bad samples exceed the budget of {self.budget}; the last is {last}")

    def _write(self, path: Path, fault: Fault) -> None:
        row = {"path": fault.key, "index": fault.index, "sha256": fault.sha256, "error": fault.error}
        try:
            line = json.dumps(row).encode()
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+b") as file:
                file.seek(0)
                if line not in file.read().split(b"\n"):  # another rank, or the run before it went on, may have met it
                    file.write(line + b"\n")
                file.seek(self.begin)
                self.seen |= {key for other in file.read().split(b"\n") if (key := _key_of(other)) is not None}
        except OSError as error:  # what is written down is counted all the same
            log.warning("cannot write %s (%s); bad samples are no longer written down", escaped(path), error.strerror)
            self.path = None


def _key_of(line: bytes) -> str | None:
    """The sample that a line of the file names; None for what is no such line."""
    try:
        return str(json.loads(line)["path"])
    except (ValueError, TypeError, KeyError, RecursionError):
        return None


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
        prefetch: int = PREFETCH,
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
            try:
                iterator = self._start()
                while step < last:
                    fetched = next(iterator, None)
                    if fetched is None:
                        return
                    step = fetched.key.step + 1
                    yield fetched
                    if run != self._run:
                        raise UsageError("another loop over this loader has begun; one at a time")
            except (RuntimeError, OSError, EOFError) as error:
                dead = _dead_workers(getattr(self._engine, "_iterator", None))
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
    """The workers that died, or are about to: what one leaves half said is noticed before its end is."""
    workers = getattr(iterator, "_workers", [])
    wait([worker.sentinel for worker in workers], 0.2)
    return [worker.pid for worker in workers if not worker.is_alive()]


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

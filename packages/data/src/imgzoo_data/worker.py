"""What runs inside a worker: read, decode, transform, and write the pixels of a batch into a shared slot."""

from __future__ import annotations

import functools
import hashlib
import mmap
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
import torch

from imgzoo.errors import DataError, UsageError
from imgzoo.memory import keep_memory

from .order import BatchKey
from .rng import Purpose, generator
from .sources.base import Sample, Source
from .transforms.pipeline import Transform

POLICIES = ("raise", "skip", "replace")
_REPLACE_TRIES = 20


class Fault(NamedTuple):
    """A sample that could not be used."""

    index: int
    key: str
    sha256: str
    error: str


class Fetched(NamedTuple):
    """A batch as a worker hands it over: the pixels lie in the slot."""

    key: BatchKey
    shape: tuple[int, ...]
    """Of the uint8 pixels in the slot: (B, C, H, W), or (B, L, D) for sequences."""
    targets: np.ndarray
    indices: np.ndarray
    views: np.ndarray
    faults: tuple[Fault, ...]
    extra: dict[str, np.ndarray]
    """Further arrays of the batch: patch coordinates and validity of sequences."""


class Slots:
    """Memory shared by the main process and its workers: one region a batch in flight, used again and again.

    Anonymous shared pages, so neither /dev/shm's size nor the number of open files matters, and pages are faulted in
    once.
    """

    def __init__(self, count: int, size: int, context: str | None = None):
        self.count, self.size = count, -(-size // mmap.PAGESIZE) * mmap.PAGESIZE
        try:
            if context in (None, "fork"):
                self.memory = torch.frombuffer(mmap.mmap(-1, count * self.size), dtype=torch.uint8)
            else:
                self.memory = torch.empty(count * self.size, dtype=torch.uint8, device="cpu").share_memory_()
        except (OSError, OverflowError, RuntimeError) as error:
            raise UsageError(
                f"there is no memory for {count} batches of {self.size / 2**30:.1f} GiB; take smaller batches or "
                "images, or fewer patches"
            ) from error

    def view(self, slot: int, shape: tuple[int, ...]) -> torch.Tensor:
        """The first bytes of a slot as uint8 of that shape."""
        size = int(np.prod(shape))
        if size > self.size:
            raise UsageError(f"a batch of {size} bytes does not fit its slot of {self.size}")
        return self.memory[slot * self.size : slot * self.size + size].view(shape)


class Fetcher:
    """The data set given to torch's DataLoader: one work order in, one `Fetched` out. Holds no state that changes."""

    def __init__(self, source: Source, transform: Transform, slots: Slots, seed: int, bad: str, num_classes: int = 0):
        self.source, self.transform, self.slots = source, transform, slots
        self.seed, self.bad, self.num_classes = seed, bad, num_classes

    def __len__(self) -> int:
        return len(self.source)

    def __getitems__(self, key: BatchKey) -> Fetched:
        faults: list[Fault] = []
        rows = []
        for row, found in self._rows(key):
            faults += found
            if row is not None:
                rows.append(row)
            if faults and self.bad == "raise":
                break
        return self.pack(key, rows, tuple(faults))

    def _rows(self, key: BatchKey) -> Iterator[tuple[Any, list[Fault]]]:
        """The rows of a batch in order: one by one in a worker, by threads in the main process."""
        places = [key.indices.tolist(), key.views.tolist()]
        count = torch.get_num_threads() if torch.utils.data.get_worker_info() is None else 1
        return (map if count == 1 else readers(count).map)(functools.partial(self._row, key), *places)

    def pack(self, key: BatchKey, rows: list[Any], faults: tuple[Fault, ...]) -> Fetched:
        """Lay out (pixels, target, index, view) rows as a batch; versions of a sample lie a whole set apart."""
        if not rows:
            none = np.zeros(0, np.int64)
            return Fetched(key, (0, *self.transform.config.input_size), none, none, none, faults, {})
        splits = len(rows[0][0])
        shape = (len(rows) * splits, *rows[0][0][0].shape)
        pixels = self.slots.view(key.slot, shape)
        for place, row in enumerate(rows):
            for version, image in enumerate(row[0]):
                pixels[version * len(rows) + place] = image
        targets = stack_targets([row[1] for row in rows])
        indices, views = (np.array([row[i] for row in rows], np.int64) for i in (2, 3))
        if splits > 1:
            indices, views = np.tile(indices, splits), np.concatenate([views + s * 65536 for s in range(splits)])
            targets = np.concatenate([targets] * splits)
        return Fetched(key, shape, targets, indices, views, faults, {})

    def versions(self, sample: Sample, rng: np.random.Generator, size: Any) -> list[torch.Tensor]:
        """The images that a sample becomes."""
        if self.transform.splits > 1:
            return self.transform.versions(sample.data, rng, size)
        return [self.transform.pixels(sample.data, rng, size)]

    def _row(self, key: BatchKey, index: int, view: int) -> tuple[Any, list[Fault]]:
        """(images, target, index, view) of a sample or of the one that replaces it, None when it is left out; and what
        was at fault.
        """
        found, fault = self.load(key, index, view)
        faults = [fault] if fault else []
        if fault and self.bad == "replace":
            rng = generator(self.seed, key.epoch, index, view, Purpose.REPLACE)
            for _ in range(_REPLACE_TRIES):
                found, fault = self.load(key, int(rng.integers(len(self.source))), view)
                if fault is None:
                    break
                faults.append(fault)
        return (None if found is None else (*found, view)), faults

    def load(self, key: BatchKey, index: int, view: int) -> tuple[Any, Fault | None]:
        """Read and transform a sample: its row, or the fault that hinders it."""
        sample = None
        try:
            sample = self.source[index]
            rng = generator(self.seed, key.epoch, index, view)
            images = self.versions(sample, rng, key.size)
            return (images, sample.target, index), None
        except (DataError, OSError) as error:
            return None, self._fault(index, sample, error)

    def _fault(self, index: int, sample: Sample | None, error: Exception) -> Fault:
        data = sample.data if sample is not None and isinstance(sample.data, bytes | bytearray) else b""
        try:
            name = sample.key if sample is not None else self.source.key(index)
        except (DataError, OSError):
            name = f"sample {index}"
        return Fault(index, name, hashlib.sha256(data).hexdigest() if data else "", str(error))


@functools.cache
def readers(count: int) -> ThreadPoolExecutor:
    """Threads that read samples, each with one thread for torch's operations."""
    pool, together, before = ThreadPoolExecutor(count, "imgzoo-data"), threading.Barrier(count), torch.get_num_threads()

    def settle(_: int) -> None:
        torch.set_num_threads(1)
        torch.get_num_threads()  # a thread takes the number over at its first question, and keeps it
        together.wait()

    list(pool.map(settle, range(count)))
    torch.set_num_threads(before)
    return pool


def stack_targets(targets: list[Any]) -> np.ndarray:
    """Class numbers as (B,) int64, other numbers as (B,) float32, vectors as (B, num_classes) float32.

    Raises `DataError` for what is neither, or for vectors of several lengths: a `target_transform` may give anything.
    """
    try:
        rows = np.stack(targets) if isinstance(targets[0], np.ndarray) else np.array(targets)
    except (TypeError, ValueError):
        rows = np.array(None)
    if rows.dtype.kind not in "biuf":
        shown = next((t for t in targets if not isinstance(t, int | float)), targets[0])
        raise DataError(f"a target is a number, or a vector as long as the others; one of this batch is {shown!r:.80}")
    return rows.astype(np.int64 if rows.ndim == 1 and rows.dtype.kind != "f" else np.float32, copy=False)


def same(value: Any) -> Any:
    """The collate function: a fetcher's batches are complete."""
    return value


def start_worker(worker: int) -> None:
    """Set up a worker process: one thread, no signal handlers of the parent, memory kept rather than given back."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    keep_memory()

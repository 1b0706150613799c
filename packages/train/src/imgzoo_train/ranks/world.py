"""Ranks: who this process is, sums over all of them, and agreement. Everything is a no-op in a single process."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from imgzoo.errors import ImgzooError, UsageError

CPU = torch.device("cpu")


LOST = "another rank has ended, and this one with it"
_CLOSED = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "Socket closed")


class RankLost(ImgzooError):
    """A rank ended while this one talked to it; what it died of, it says itself."""

    exit_code = 1


@dataclass(frozen=True)
class World:
    """This process among all: `rank` of `size`, on `device`."""

    rank: int = 0
    size: int = 1
    device: torch.device = CPU
    control: dist.ProcessGroup | None = None
    """All ranks, to agree through the CPU and wait for no device."""

    @property
    def main(self) -> bool:
        """Whether this rank writes files and speaks."""
        return self.rank == 0

    def reduce(self, tensor: torch.Tensor, op: str = "sum") -> torch.Tensor:
        """All-reduce in place over all ranks: `sum`, `min` or `max`; returns `tensor`."""
        if self.size > 1:
            dist.all_reduce(tensor, getattr(dist.ReduceOp, op.upper()))
        return tensor

    def vote(self, flag: int) -> Callable[[], int]:
        """Begin to find the largest `flag` of any rank; the function returned waits until all have voted."""
        if self.size == 1:
            return lambda: flag
        largest = torch.tensor(flag, device="cpu")
        work = dist.all_reduce(largest, dist.ReduceOp.MAX, self.control, async_op=True)
        assert work is not None

        def result() -> int:
            work.wait()
            return int(largest)

        return result

    def barrier(self) -> None:
        """Wait until every rank is here."""
        if self.size > 1:
            dist.barrier(self.control)

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        """Rows of all ranks, one rank after another; ranks may have different numbers of rows."""
        if self.size == 1:
            return tensor
        counts = torch.zeros(self.size, dtype=torch.int64, device=tensor.device)
        counts[self.rank] = len(tensor)
        self.reduce(counts)
        longest = int(counts.max())
        padded = tensor.new_zeros((longest, *tensor.shape[1:]))
        padded[: len(tensor)] = tensor
        parts = [torch.empty_like(padded) for _ in range(self.size)]
        dist.all_gather(parts, padded)
        return torch.cat([part[: int(count)] for part, count in zip(parts, counts)])


def pick_device(name: str = "") -> torch.device:
    """The device called `name`, or the best one here; raises `UsageError` for one that is not there."""
    if not name:
        name = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"  # type: ignore[union-attr]
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device '{name}' cannot be used here; try --device cpu") from error
    return device


@contextlib.contextmanager
def join_world(device_name: str = "", timeout: float = 600.0) -> Iterator[World]:
    """The world that torchrun's environment variables describe, or a single process without them.

    A process group that the caller has made is used, and left to the caller.
    """
    size = int(os.environ.get("WORLD_SIZE", "1"))
    device = pick_device(device_name)
    if size == 1:
        yield World(device=device)
        return

    if device.type != "cpu" and device.index is None:
        device = torch.device(device.type, int(os.environ.get("LOCAL_RANK", "0")))
        torch.accelerator.set_device_index(device)
    limit, given = timedelta(seconds=timeout or 86400.0), dist.is_initialized()
    if not given:
        backend = "gloo" if device.type == "cpu" else dist.get_default_backend_for_device(device)
        dist.init_process_group(backend, timeout=limit)
    control: Any = dist.new_group(backend="gloo", timeout=limit)
    try:
        yield World(dist.get_rank(), dist.get_world_size(), device, control)
    except RuntimeError as error:
        if isinstance(error, ImgzooError) or not any(words in str(error) for words in _CLOSED):
            raise
        raise RankLost(LOST) from error
    finally:
        dist.destroy_process_group(control if given else None)

"""Everything a run is at one moment: model, optimizer, averages, counters. Saved and restored as a whole."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from imgzoo_train.files.packing import gathered, map_tensors
from imgzoo_train.ranks.world import World
from imgzoo_train.techniques.averages import Average
from imgzoo_train.techniques.precision import FP32, Precision

from .meters import Meters


@dataclass
class State:
    """`model` is what the step calls (perhaps wrapped), `plain` the network whose weights are saved.

    Techniques are applied from outside, in this order: load weights, adapters and freezing, device and layout,
    batch-norm conversion, precision of the weights, sharding, optimizer, averages, compile, data parallel.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    plain: nn.Module = None  # type: ignore[assignment]
    world: World = field(default_factory=World)
    precision: Precision = FP32
    averages: dict[str, Average] = field(default_factory=dict)
    seed: int = 0
    step: int = 0
    """Updates done."""
    shift: int = 0
    """Updates done minus those that the present batch size would have taken so far: `position` is counted in its."""
    updates: int = 1
    """Updates an epoch takes."""
    samples: int = 1
    """Samples an update takes, on all ranks."""
    rows_done: int | None = None
    """Rows that already ran at this step; None when all of them did."""
    micro: int = 1
    """Parts a batch is cut into, since the device had no memory for it in one."""
    best: dict[str, Any] = field(default_factory=dict)
    """Scores so far: what decides about best, early stop and plateau."""
    bad_steps: int = 0
    skipped: list[int] = field(default_factory=list)
    """Updates that are left out, since they broke once."""
    pinned: list[int] = field(default_factory=list)
    """Steps whose checkpoints stay for ever."""
    lr_factor: float = 1.0
    stop: bool = False
    meters: Meters = field(default_factory=Meters)
    sharded: bool = False

    def __post_init__(self) -> None:
        if self.plain is None:
            self.plain = self.model

    @property
    def position(self) -> int:
        """Updates of the present size that the samples seen so far amount to: what epochs and schedules count."""
        return self.step - self.shift

    @property
    def device(self) -> torch.device:
        return self.world.device

    def no_sync(self) -> contextlib.AbstractContextManager[Any]:
        """Keep gradients local: all but the last batch of an accumulated step."""
        if hasattr(self.model, "no_sync"):
            return self.model.no_sync()  # type: ignore[operator]
        return contextlib.nullcontext()

    def parts(self) -> dict[str, Any]:
        """What a checkpoint holds, by file. Every rank must call it: sharded state is gathered."""
        from imgzoo_train.ranks.sharding import optimizer_state

        parts: dict[str, Any] = {
            "model": dict(self.plain.state_dict()),
            "optimizer": optimizer_state(self),
            "progress": {
                "step": self.step,
                "seen": {
                    "epochs": self.position // self.updates,
                    "samples": self.position % self.updates * self.samples,
                },
                "rows_done": self.rows_done,
                "micro": self.micro,
                "best": self.best,
                "bad_steps": self.bad_steps,
                "skipped": self.skipped,
                "pinned": self.pinned,
                "lr_factor": self.lr_factor,
                "seed": self.seed,
                "stop": self.stop,
            },
            "meters": self.meters.state_dict(),
            "precision": self.precision.state_dict(),
        }
        for name, average in self.averages.items():
            parts[f"average-{name}"] = average.state_dict()
        if self.world.size > 1:
            parts["local"] = self.gather_local()
        return map_tensors(parts, gathered) if self.sharded else parts

    def local_buffers(self) -> list[torch.Tensor]:
        """What differs between ranks: running statistics of the model and of its averages."""
        names = [name for name, buffer in self.plain.named_buffers() if buffer.is_floating_point()]
        own = dict(self.plain.named_buffers())
        tables = [own, *(average.tensors for average in self.averages.values())]
        return [table[name] for table in tables for name in names if name in table]

    def gather_local(self) -> dict[str, torch.Tensor]:
        """`{"buffers": (ranks, N)}` on every rank (collective)."""
        buffers = self.local_buffers()
        flat = (
            torch.cat([buffer.detach().double().flatten().to(self.device) for buffer in buffers]) if buffers else None
        )
        return {} if flat is None else {"buffers": self.world.gather(flat[None])}

    @torch.no_grad()
    def load_local(self, saved: dict[str, torch.Tensor]) -> None:
        """Take over this rank's statistics; on another number of ranks, the mean of all."""
        if "buffers" not in saved:
            return
        table = saved["buffers"]
        row = table[self.world.rank] if len(table) == self.world.size else table.mean(0)
        buffers = self.local_buffers()
        for buffer, part in zip(buffers, row.split([buffer.numel() for buffer in buffers])):
            buffer.copy_(part.view(buffer.shape))

    def load(self, parts: dict[str, Any]) -> None:
        """Take over what `parts` returned, on this run or another number of ranks."""
        from imgzoo_train.ranks.sharding import load_model, load_optimizer

        load_model(self, parts["model"])
        load_optimizer(self, parts["optimizer"])
        for name, value in parts["progress"].items():
            if hasattr(self, name) and name != "seed":
                setattr(self, name, value)
        self.load_position(parts["progress"].get("seen"))
        self.meters.load_state_dict(parts["meters"])
        self.precision.load_state_dict(parts["precision"])
        for name, average in self.averages.items():
            if f"average-{name}" in parts:
                average.load_state_dict(parts[f"average-{name}"])
            else:
                average.restart(self.plain)
        self.load_local(parts.get("local", {}))

    def load_position(self, seen: dict[str, int] | None) -> None:
        """Go on after the samples seen, whatever number of updates they were."""
        if seen is None:
            return
        inside = min(self.updates, seen["samples"] // self.samples)
        moved = seen["epochs"] * self.updates + inside - self.position
        self.shift -= moved
        if moved and inside:
            self.rows_done = None

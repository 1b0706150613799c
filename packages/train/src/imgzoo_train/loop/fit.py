"""The training loop: an update is one optimizer step over `accumulate` batches; what is periodic is a row."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from imgzoo.memory import is_short
from imgzoo_optim.clip import gathered
from imgzoo_train.ranks.seeds import reseed

from .nonfinite import Guard
from .state import State

LossFn = Callable[[nn.Module, Any], torch.Tensor]
"""`(model, batch) -> mean loss of the batch`: where distillation, splits and tasks differ."""

Row = tuple[int, Callable[[State], None]]
"""`(every, action)`: the action runs after each update whose position is a multiple of `every`."""

Clip = Callable[[list[torch.Tensor]], torch.Tensor]
"""Limits the gradients of parameters in place and returns their norm before that."""


class ScheduleLike(Protocol):
    def apply(self, optimizer: Any, update: int) -> Any: ...


def fit(
    state: State,
    batches: Iterable[Any],
    loss_fn: LossFn,
    schedule: ScheduleLike | None,
    steps: int,
    *,
    rows: Sequence[Row] = (),
    accumulate: int = 1,
    clip: Clip | None = None,
    guard: Guard | None = None,
) -> State:
    """Train until `state.step == steps`, `state.stop`, or the end of `batches`; returns `state`.

    `batches` start at the first batch of update `state.step`. A last group shorter than `accumulate` is an update of
    its own with the right weights: gradients are those of the mean loss over all its samples on all ranks, so
    `accumulate` batches of b equal one of `accumulate * b`. Nothing waits for the device between rows, except a guard
    that skips or rolls back.
    """
    guard = guard or Guard()
    run_rows(state, rows, resumed=True)
    groups = grouped(batches, accumulate)
    while state.step < steps and not state.stop:
        start = time.perf_counter()
        group = next(groups, None)
        if group is None:
            break
        loaded = time.perf_counter()
        if schedule is not None:
            schedule.apply(state.optimizer, state.position)
            if state.lr_factor != 1.0:
                for row in state.optimizer.param_groups:
                    row["lr"] *= state.lr_factor
        update(state, group, loss_fn, clip, guard)
        state.meters.wait_seconds += loaded - start
        state.meters.step_seconds += time.perf_counter() - loaded
        run_rows(state, rows)
    return state


def grouped(batches: Iterable[Any], size: int) -> Iterator[list[Any]]:
    """Lists of `size` batches; the last may be shorter."""
    iterator = iter(batches)
    while group := list(itertools.islice(iterator, size)):
        yield group


def run_rows(state: State, rows: Sequence[Row], *, resumed: bool = False) -> None:
    """Run the rows due at this step. A checkpoint taken inside one remembers which were done before it."""
    if resumed and state.rows_done is None:
        return
    first = state.rows_done or 0
    for index, (every, action) in enumerate(rows):
        if index >= first and every and state.position % every == 0:
            state.rows_done = index
            action(state)
    state.rows_done = None


def update(state: State, group: list[Any], loss_fn: LossFn, clip: Clip | None, guard: Guard) -> None:
    """One optimizer step over `group`; a step that is not finite leaves weights, buffers and averages as they were."""
    if state.step in state.skipped:
        state.step += 1
        return
    state.model.train()
    parameters = [item for row in state.optimizer.param_groups for item in row["params"]]
    guard.protect(state)
    loss = _backward_with_memory(state, group, loss_fn)
    scaler = state.precision.scaler
    if scaler is not None:
        scaler.unscale_(state.optimizer)
    norm = clip(parameters) if clip is not None else gradient_norm(parameters)

    images = state.world.size * sum(len(batch.targets) for batch in group)
    if guard.allows(state, loss, norm, group, loss_fn):
        if scaler is not None:
            scaler.step(state.optimizer)
            scaler.update()
        else:
            state.optimizer.step()
        for average in state.averages.values():
            average.update(state.plain)
        state.meters.add(loss, norm, images)
    else:
        state.meters.skip(images)
    state.optimizer.zero_grad(set_to_none=True)
    state.step += 1


def gradient_norm(parameters: Sequence[torch.Tensor]) -> torch.Tensor:
    """The 2-norm of all gradients, as a tensor."""
    gradients = [item.grad for item in parameters if item.grad is not None]
    return gathered(torch.nn.utils.get_total_norm(gradients)) if gradients else torch.zeros(())


def _backward_with_memory(state: State, group: list[Any], loss_fn: LossFn) -> torch.Tensor:
    """Gradients of the group; a single process out of memory cuts its batches in half and tries again."""
    while True:
        try:
            return _backward(state, group, loss_fn)
        except (RuntimeError, MemoryError) as error:
            largest = max(len(batch.targets) for batch in group)
            if not is_short(error) or state.world.size > 1 or state.micro >= largest:
                raise
            state.optimizer.zero_grad(set_to_none=True)
            state.micro *= 2


def _backward(state: State, group: list[Any], loss_fn: LossFn) -> torch.Tensor:
    """Add up the gradients of the mean loss over every sample of the group on all ranks; returns that loss."""
    world, scaler = state.world, state.precision.scaler
    batches = [part for batch in group for part in split(batch, state.micro)]
    count = sum(len(batch.targets) for batch in group)
    share: Any = 1.0 / count
    if world.size > 1:  # ranks average their gradients, so each weighs its samples by world / all samples
        total = world.reduce(torch.full((), count, dtype=torch.float64, device=world.device))
        share = (world.size / total).float()

    sums: list[torch.Tensor] = []
    for index, batch in enumerate(batches):
        reseed(state.seed, state.step, index, world)
        last = index == len(batches) - 1
        set_sync = getattr(state.model, "set_requires_gradient_sync", None)
        if set_sync is not None:
            set_sync(last)
        with state.no_sync() if not last else torch.enable_grad():
            with state.precision.forward(world.device):
                loss = loss_fn(state.model, batch)
            part = loss * (len(batch.targets) * share)
            (scaler.scale(part) if scaler is not None else part).backward()
        sums.append(part.detach().double())

    mean = torch.stack(sums).sum()
    return world.reduce(mean) / world.size if world.size > 1 else mean


def split(batch: Any, parts: int) -> list[Any]:
    """A batch as `parts` smaller ones of the same type."""
    if parts <= 1:
        return [batch]
    columns = [torch.chunk(column, parts) if column is not None else None for column in batch]
    count = len(next(column for column in columns if column is not None))
    return [type(batch)(*(column[i] if column is not None else None for column in columns)) for i in range(count)]

"""What a run would do, without doing it: the plan, the best learning rate, the largest batch, a profile."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from imgzoo.memory import is_short
from imgzoo.text import counted
from imgzoo_train.config.settings import Config
from imgzoo_train.files.storage import make_folder
from imgzoo_train.loop.fit import fit
from imgzoo_train.loop.state import State
from imgzoo_train.ranks.world import World, pick_device

from . import assembly, checks


class Parts:
    """The parts of a run on one process."""

    def __init__(self, config: Config) -> None:
        checks.check_settings(config, output=False)
        if config.run.threads:
            torch.set_num_threads(config.run.threads)
        self.config = config
        self.world = World(device=pick_device(config.run.device))
        self.sources = assembly.open_sources(config)
        self.model = assembly.build_model(config, self.sources.classes, self.sources.names)
        self.transform = assembly.data_config(config, self.model, self.sources)
        self.loaders = assembly.build_loaders(config, self.model, self.sources, self.transform, self.world)
        self.state: State = assembly.build_state(config, self.model, self.world, self.loaders.updates)
        self.loss = assembly.build_loss(config, self.sources, self.state)


def dry_run(config: Config) -> str:
    """The plan of a run and its schedule as text; raises what the run would raise before its first batch."""
    checks.check_output(Path(config.run.output), resume=False)
    parts = Parts(config)
    schedule = assembly.build_schedule(config, parts.state, parts.loaders.updates)
    updates, total = parts.loaders.updates, config.run.epochs * parts.loaders.updates
    trained = sum(p.numel() for p in parts.model.parameters() if p.requires_grad)
    frozen = sum(p.numel() for p in parts.model.parameters() if not p.requires_grad)
    transform = parts.transform
    lines = [
        f"model       {config.model.name}, {trained / 1e6:.3f}M parameters train, {frozen / 1e6:.3f}M are fixed",
        f"data        {config.data.source}: {counted(len(parts.sources.train), 'image')} to train on, "
        f"{len(parts.sources.validation):,} to validate, "
        f"{counted(parts.sources.classes, 'value' if config.loss.task == 'regression' else 'class')}",
        *(f"  {line}" for line in parts.sources.splits.lines()),
        *(f"  {line}" for line in getattr(parts.model, "changes", ())),
        f"images      {_shape(config, transform)}, {transform.interpolation}, "
        f"mean {_numbers(transform.mean)}, std {_numbers(transform.std)}",
        f"batches     {config.data.batch_size} x {config.optim.accumulate} images a step and rank, "
        f"{updates} steps an epoch, {total} in {counted(config.run.epochs, 'epoch')}",
        f"optimizer   {config.optim.name}",
    ]
    lines += [f"  {line}" for line in checks.worth_saying(config, len(parts.sources.train))]
    for group in parts.state.optimizer.param_groups:
        count = sum(p.numel() for p in group["params"])
        scale = f", scale {group['lr_scale']:.3g}" if group.get("lr_scale", 1.0) != 1.0 else ""
        lines.append(
            f"  group     {len(group['params'])} tensors, {count / 1e6:.3f}M, decay {group['weight_decay']:g}{scale}"
        )
    lines.append(f"schedule    {config.schedule.name}")
    peak = max(1e-30, max(schedule(step) for step in range(0, max(1, total), max(1, total // 200))))
    for step in sorted({round(share * (total - 1) / 10) for share in range(11)} if total else ()):
        rate = schedule(step)
        lines.append(f"  step {step:7d}  epoch {step / updates:7.2f}  lr {rate:.3e}  {'#' * round(40 * rate / peak)}")
    return "\n".join(lines)


def _shape(config: Config, transform: Any) -> str:
    if config.data.sequence:
        return f"at their own shape, as {' or '.join(map(str, config.data.sequence))} patches at most"
    return "x".join(map(str, transform.input_size))


def _numbers(values: Any) -> str:
    return "/".join(f"{value:.3g}" for value in values)


def find_learning_rate(config: Config, low: float = 1e-6, high: float = 1.0, steps: int = 60) -> str:
    """Raise the learning rate from `low` to `high` and name the one where the loss falls fastest (arXiv:1506.01186)."""
    parts = Parts(config)
    rates, losses = learning_rate_curve(parts, low, high, steps)
    best = steepest(rates, losses)
    least = min(losses)
    lines = [f"lr {rate:.2e}  loss {loss:8.4f}  {'#' * round(40 * min(1.0, least / loss))}" for rate, loss in
             zip(rates, losses)]  # fmt: skip
    return "\n".join([*lines[:: max(1, len(lines) // 20)], f"the loss falls fastest at --lr {best:.1e}"])


def learning_rate_curve(parts: Parts, low: float, high: float, steps: int) -> tuple[list[float], list[float]]:
    """Rates and smoothed losses until the loss is four times its least."""
    rates, losses, smooth, state = [], [], 0.0, parts.state

    class Rising:
        def apply(self, optimizer: Any, update: int) -> None:
            for group in optimizer.param_groups:
                group["lr"] = low * (high / low) ** (update / max(1, steps - 1)) * group.get("lr_scale", 1.0)

    def look(state: State) -> None:
        nonlocal smooth
        loss = state.meters.take().get("loss", math.nan)
        smooth = 0.9 * smooth + 0.1 * loss
        losses.append(smooth / (1 - 0.9 ** len(rates + [0.0])))
        rates.append(low * (high / low) ** ((state.step - 1) / max(1, steps - 1)))
        state.stop = not math.isfinite(loss) or losses[-1] > 4 * min(losses)

    from imgzoo_train.loop.nonfinite import NonFiniteError

    epoch = 0
    try:
        while state.step < steps and not state.stop:
            parts.loaders.train.seek(epoch, 0)
            fit(state, parts.loaders.train, parts.loss, Rising(), steps, rows=[(1, look)])
            epoch += 1
    except NonFiniteError:
        pass
    return rates, losses


def steepest(rates: list[float], losses: list[float]) -> float:
    """The rate at which the smoothed loss falls fastest per decade, before its least."""
    last = losses.index(min(losses))
    if last < 2:
        return rates[last]
    span = range(1, last + 1)
    slopes = {i: (losses[i] - losses[i - 1]) / math.log(rates[i] / rates[i - 1]) for i in span}
    return rates[min(slopes, key=lambda i: slopes[i])]


def find_batch_size(config: Config, seconds: float = 60.0) -> str:
    """Double the batch until memory, the data or `seconds` end, and name the fastest."""
    parts = Parts(config)
    channels, height, width = parts.transform.input_size
    device, size, rows, start = parts.world.device, 2, [], time.perf_counter()
    while size <= len(parts.sources.train) and time.perf_counter() - start < seconds:
        images = torch.randn(size, channels, height, width, device=device)
        targets = torch.zeros(size, dtype=torch.int64, device=device)
        if config.loss.task != "classification":
            targets = torch.zeros(size, parts.sources.classes, device=device)
        batch = _Batch(images, targets)
        try:
            times = [_timed(parts, batch) for _ in range(3)]
        except (RuntimeError, MemoryError) as error:
            if not is_short(error) or not rows:
                raise
            break
        rows.append((size, size / min(times)))
        size *= 2
    lines = [f"batch {size:6d}  {rate:9.1f} img/s" for size, rate in rows]
    fastest = max(rows, key=lambda row: row[1])[0]
    return "\n".join([*lines, f"the largest that fits is {rows[-1][0]}, the fastest is --batch-size {fastest}"])


class _Batch:
    def __init__(self, images: torch.Tensor, targets: torch.Tensor) -> None:
        self.images, self.targets = images, targets


def _timed(parts: Parts, batch: _Batch) -> float:
    start = time.perf_counter()
    parts.state.model.train()
    parts.loss(parts.state.model, batch).backward()
    parts.state.optimizer.zero_grad(set_to_none=True)
    if parts.world.device.type != "cpu":
        torch.get_device_module(parts.world.device).synchronize()
    return time.perf_counter() - start


def profile(config: Config, updates: int = 10) -> str:
    """Trace some updates into `trace.json` (for chrome://tracing) and list the most expensive operations."""
    from torch.profiler import profile as record

    parts = Parts(config)
    folder = make_folder(Path(config.run.output))
    with record() as trace:
        fit(parts.state, parts.loaders.train, parts.loss, None, updates, accumulate=config.optim.accumulate)
    trace.export_chrome_trace(str(folder / "trace.json"))
    table = trace.key_averages().table(sort_by="self_cpu_time_total", row_limit=15, max_name_column_width=50)
    return f"{table}\ntrace in {folder / 'trace.json'}"


ACTIONS: dict[str, Callable[[Config], str]] = {
    "dry-run": dry_run,
    "find-lr": find_learning_rate,
    "find-batch": find_batch_size,
    "profile": profile,
}


def act(name: str, config: Config) -> str:
    """Do one of `ACTIONS`; what it dies of is said as a run says it."""
    with checks.explained(config):
        return ACTIONS[name](config)

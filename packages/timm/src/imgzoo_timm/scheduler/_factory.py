"""Schedulers by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from imgzoo.errors import UsageError

from ._schedulers import (
    CosineLRScheduler,
    MultiStepLRScheduler,
    PlateauLRScheduler,
    PolyLRScheduler,
    Scheduler,
    StepLRScheduler,
    TanhLRScheduler,
    WSDLRScheduler,
)

OPTIONS = {
    "sched": "sched", "epochs": "num_epochs", "decay_epochs": "decay_epochs", "decay_milestones": "decay_milestones",
    "warmup_epochs": "warmup_epochs", "cooldown_epochs": "cooldown_epochs", "patience_epochs": "patience_epochs",
    "decay_rate": "decay_rate", "min_lr": "min_lr", "warmup_lr": "warmup_lr", "warmup_prefix": "warmup_prefix",
    "lr_noise": "noise", "lr_noise_pct": "noise_pct", "lr_noise_std": "noise_std", "seed": "noise_seed",
    "lr_cycle_mul": "cycle_mul", "lr_cycle_decay": "cycle_decay", "lr_cycle_limit": "cycle_limit",
    "lr_k_decay": "k_decay", "decay_fn": "decay_fn", "stable_timescale": "stable_timescale",
}  # fmt: skip
DEFAULTS = {"sched": "cosine", "num_epochs": 300, "decay_epochs": 90, "decay_milestones": [30, 60],
            "warmup_epochs": 5, "cooldown_epochs": 0, "patience_epochs": 10, "decay_rate": 0.1, "min_lr": 0.0,
            "warmup_lr": 1e-5, "warmup_prefix": False, "noise": None, "noise_pct": 0.67, "noise_std": 1.0,
            "noise_seed": 42, "cycle_mul": 1.0, "cycle_decay": 0.1, "cycle_limit": 1, "k_decay": 1.0,
            "decay_fn": None, "stable_timescale": None}  # fmt: skip


def scheduler_kwargs(cfg: Any, decreasing_metric: bool | None = None) -> dict[str, Any]:
    """Arguments of `create_scheduler_v2` from a script's options (`sched`, `epochs`, `lr_noise`, ...)."""
    found = {key: getattr(cfg, word, DEFAULTS[key]) for word, key in OPTIONS.items()}
    falling = getattr(cfg, "eval_metric", "top1") == "loss" if decreasing_metric is None else decreasing_metric
    return {**found, "plateau_mode": "min" if falling else "max",
            "step_on_epochs": not getattr(cfg, "sched_on_updates", False)}  # fmt: skip


def create_scheduler(args: Any, optimizer: torch.optim.Optimizer, updates_per_epoch: int = 0) -> tuple[Any, int]:
    return create_scheduler_v2(optimizer, **scheduler_kwargs(args), updates_per_epoch=updates_per_epoch)


def create_scheduler_v2(  # noqa: C901  (one branch a name)
    optimizer: torch.optim.Optimizer, sched: str = "cosine", num_epochs: int = 300, decay_epochs: float | None = None,
    decay_milestones: Sequence[int] = (90, 180, 270), cooldown_epochs: int = 0, patience_epochs: int = 10,
    decay_rate: float = 0.1, min_lr: float = 0.0, warmup_lr: float = 1e-5, warmup_epochs: int = 0,
    warmup_prefix: bool = False, noise: Any = None, noise_pct: float = 0.67, noise_std: float = 1.0,
    noise_seed: int = 42, cycle_mul: float = 1.0, cycle_decay: float = 0.1, cycle_limit: int = 1,
    k_decay: float = 1.0, decay_fn: str | None = None, stable_timescale: float | None = None,
    plateau_mode: str = "max", step_on_epochs: bool = True, updates_per_epoch: int = 0,
) -> tuple[Scheduler | None, int]:  # fmt: skip
    """The scheduler `sched` and how many epochs it lasts."""
    unit = 1 if step_on_epochs else updates_per_epoch
    if not unit:
        raise UsageError("a scheduler that steps on updates needs updates_per_epoch")
    total, warm = num_epochs * unit, warmup_epochs * unit
    held = total if warmup_prefix else total - warm
    decay: Any = (90.0 if decay_epochs is None else decay_epochs) * unit
    decay = int(decay) if float(decay).is_integer() else decay
    span: Any = None
    if noise is not None:
        parts = list(noise) if isinstance(noise, (list, tuple)) else [noise]
        span = [part * total for part in parts]
        span = span[0] if len(span) == 1 else span
    shared: dict[str, Any] = dict(warmup_t=warm, warmup_lr_init=warmup_lr, noise_range_t=span, noise_pct=noise_pct,
                  noise_std=noise_std, noise_seed=noise_seed)  # fmt: skip
    timed: dict[str, Any] = dict(t_in_epochs=step_on_epochs, warmup_prefix=warmup_prefix)
    cycles: dict[str, Any] = dict(t_initial=total, lr_min=min_lr, cycle_mul=cycle_mul, cycle_decay=cycle_decay,
                  cycle_limit=cycle_limit)  # fmt: skip
    made: Any
    if sched == "cosine":
        made = CosineLRScheduler(optimizer, **cycles, **shared, **timed, k_decay=k_decay)
    elif sched == "tanh":
        made = TanhLRScheduler(optimizer, **cycles, **shared, **timed)
    elif sched == "poly":
        made = PolyLRScheduler(optimizer, **cycles, **shared, **timed, power=decay_rate, k_decay=k_decay)
    elif sched == "step":
        made = StepLRScheduler(optimizer, decay, decay_rate, **shared, **timed)
    elif sched == "multistep":
        steps = [each * unit for each in decay_milestones]
        made = MultiStepLRScheduler(optimizer, steps, decay_rate, **shared, **timed)
    elif sched == "constant":
        made = StepLRScheduler(optimizer, 1, **shared, **timed)
    elif sched in ("wsd", "rsqrt"):
        share = 0.2 if decay_epochs is None else decay_epochs  # below 1 it is a share of what is not warm-up
        made = WSDLRScheduler(optimizer, held, round(share * held) if share < 1 else decay, min_lr,
                              stable_fn="rsqrt" if sched == "rsqrt" else "constant",
                              decay_fn=decay_fn or ("linear" if sched == "rsqrt" else "1-sqrt"),
                              stable_timescale=stable_timescale and stable_timescale * unit,
                              t_in_epochs=step_on_epochs, **shared)  # fmt: skip
    elif sched == "plateau":
        if not step_on_epochs:
            raise UsageError("plateau looks at the metric of an epoch: step_on_epochs=True")
        made = PlateauLRScheduler(optimizer, decay_rate, patience_epochs, lr_min=min_lr, mode=plateau_mode, **shared)
    elif sched in ("none", ""):
        return None, num_epochs + warmup_epochs * warmup_prefix
    else:
        raise UsageError(
            f"there is no scheduler '{sched}': cosine, tanh, poly, step, multistep, wsd, rsqrt, constant, plateau, none"
        )
    if hasattr(made, "get_cycle_length"):
        length = made.get_cycle_length()
        if step_on_epochs:
            return made, int(length) + cooldown_epochs
        return made, int(length) // updates_per_epoch + cooldown_epochs
    return made, num_epochs + warmup_epochs * warmup_prefix

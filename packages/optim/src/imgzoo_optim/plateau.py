"""The schedule with a memory: a factor whenever a metric has stopped getting better."""

from __future__ import annotations

from typing import Any

from imgzoo.errors import UsageError

from .schedules import Groups, noise_factor, write


class PlateauSchedule:
    """`apply(optimizer, update, metric)` watches the metric; `schedule(update)` is the value as of what it has seen.

    After `patience` reports no better than the best by `threshold` (relative), the value falls by `decay_rate`, then
    `cooldown` reports are not counted. Warm-up ignores the metric. `state_dict` holds the memory.
    """

    def __init__(
        self,
        *,
        total: float = 0,
        base: float = 1.0,
        warmup: float = 0,
        warmup_start: float = 0.0,
        min_lr: float = 0.0,
        decay_rate: float = 0.1,
        patience: int = 10,
        cooldown: int = 0,
        threshold: float = 1e-4,
        mode: str = "max",
        noise: tuple[float, float] | None = None,
        noise_pct: float = 0.67,
        noise_std: float = 1.0,
        noise_seed: int = 42,
        noise_type: str = "normal",
        updates_per_epoch: int | None = None,
        field: str = "lr",
    ):
        if mode not in ("max", "min"):
            raise UsageError(f"mode must be max or min, got '{mode}'")
        self.base, self.field, self.warmup, self.warmup_start, self.min_lr = base, field, warmup, warmup_start, min_lr
        self.decay_rate, self.patience, self.cooldown = decay_rate, patience, cooldown
        self.threshold, self.mode = threshold, mode
        self.noise, self.draw = noise, (noise_pct, noise_std, noise_seed, noise_type)
        self.unit = updates_per_epoch or 1
        self.length = int(total) * self.unit
        self.factor, self.best, self.bad, self.resting = 1.0, None, 0, 0

    def at(self, update: int, base: float) -> float:
        """The value for a group whose base value is `base`, as of the metrics seen."""
        t = update // self.unit
        if t <= self.warmup and self.warmup:
            return self.warmup_start + t * (base - self.warmup_start) / self.warmup
        value = max(self.min_lr, base * self.factor) if self.factor < 1 else base
        return value if self.noise is None else value * noise_factor(t, self.noise, *self.draw)

    def __call__(self, update: int) -> float:
        return self.at(update, self.base)

    def apply(self, optimizer: Groups, update: int, metric: float | None = None) -> None:
        """Take in the metric, if one came, and set the field of every group."""
        if metric is not None and (not self.warmup or update // self.unit > self.warmup):
            self.observe(float(metric))
        write(optimizer, self.field, lambda base: self.at(update, base))

    def observe(self, metric: float) -> None:
        """Count a report of the metric and lower the value when patience is over."""
        if self._better(metric):
            self.best, self.bad = metric, 0
        else:
            self.bad += 1
        if self.resting:
            self.resting -= 1
            self.bad = 0
        if self.bad > self.patience:
            self.factor *= self.decay_rate
            self.resting, self.bad = self.cooldown, 0

    def _better(self, metric: float) -> bool:
        if self.best is None:
            return metric == metric  # not NaN
        if self.mode == "min":
            return metric < self.best * (1 - self.threshold)
        return metric > self.best * (1 + self.threshold)

    def state_dict(self) -> dict[str, Any]:
        """What it has seen."""
        return {"factor": self.factor, "best": self.best, "bad": self.bad, "resting": self.resting}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned."""
        self.factor, self.best, self.bad, self.resting = (state[k] for k in ("factor", "best", "bad", "resting"))

"""The field's schedulers: objects that set a field of an optimizer's groups, by epoch or by update."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch

from imgzoo_optim import schedules as native
from imgzoo_optim.plateau import PlateauSchedule

Range = float | Sequence[float] | None


class Scheduler(abc.ABC):
    """`step(epoch)` at the end of each epoch, `step_update(updates)` after each update: which of them acts,
    `t_in_epochs` says. A subclass gives the values at a time by `_get_lr(t)`."""

    def __init__(self, optimizer: torch.optim.Optimizer, param_group_field: str, t_in_epochs: bool = True,
                 noise_range_t: Range = None, noise_type: str = "normal", noise_pct: float = 0.67,
                 noise_std: float = 1.0, noise_seed: int | None = None, initialize: bool = True) -> None:  # fmt: skip
        self.optimizer, self.param_group_field = optimizer, param_group_field
        self._initial_param_group_field = f"initial_{param_group_field}"
        for i, group in enumerate(optimizer.param_groups):
            if initialize:
                if param_group_field not in group:
                    raise KeyError(f"group {i} of the optimizer has no {param_group_field}")
                group.setdefault(self._initial_param_group_field, group[param_group_field])
            elif self._initial_param_group_field not in group:
                raise KeyError(f"group {i} of the optimizer has no {self._initial_param_group_field}: initialize it")
        self.base_values = [group[self._initial_param_group_field] for group in optimizer.param_groups]
        self.metric = None
        self.t_in_epochs = t_in_epochs
        self.noise_range_t, self.noise_pct, self.noise_type = noise_range_t, noise_pct, noise_type
        self.noise_std, self.noise_seed = noise_std, 42 if noise_seed is None else noise_seed
        self.update_groups(self.base_values)

    def state_dict(self) -> dict[str, Any]:
        return {key: value for key, value in vars(self).items() if key not in ("optimizer", "schedule")}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update(state_dict)

    @abc.abstractmethod
    def _get_lr(self, t: int) -> list[float]: ...

    def _get_values(self, t: int, on_epoch: bool = True) -> list[float] | None:
        name = "get_epoch_values" if on_epoch else "get_update_values"
        if hasattr(self, name):  # what subclasses of earlier versions have
            return getattr(self, name)(t)
        return self._get_lr(t) if on_epoch == self.t_in_epochs else None

    def step(self, epoch: int, metric: float | None = None) -> None:
        self.metric = metric
        self._set(self._get_values(epoch, on_epoch=True), epoch)

    def step_update(self, num_updates: int, metric: float | None = None) -> None:
        self.metric = metric
        self._set(self._get_values(num_updates, on_epoch=False), num_updates)

    def _set(self, values: list[float] | None, t: int) -> None:
        if values is not None:
            self.update_groups(self._add_noise(values, t))

    def update_groups(self, values: float | Sequence[float]) -> None:
        """Set the field of every group, times its `lr_scale`."""
        each = values if isinstance(values, (list, tuple)) else [values] * len(self.optimizer.param_groups)
        for group, value in zip(self.optimizer.param_groups, each):
            new = value * group.get("lr_scale", 1.0)
            if isinstance(group[self.param_group_field], torch.Tensor):
                group[self.param_group_field].fill_(new)
            else:
                group[self.param_group_field] = new

    def _add_noise(self, lrs: list[float], t: int) -> list[float]:
        return [v + v * self._calculate_noise(t) for v in lrs] if self._is_apply_noise(t) else lrs

    def _is_apply_noise(self, t: int) -> bool:
        if self.noise_range_t is None:
            return False
        if isinstance(self.noise_range_t, (list, tuple)):
            return self.noise_range_t[0] <= t < self.noise_range_t[1]
        return t >= self.noise_range_t  # type: ignore[operator]

    def _calculate_noise(self, t: int) -> float:
        whole = (-math.inf, math.inf)
        return native.noise_factor(t, whole, self.noise_pct, self.noise_std, self.noise_seed, self.noise_type) - 1


class Curve(Scheduler):
    """A scheduler by one of imgzoo's schedules, which is built anew whenever its numbers are loaded."""

    def _start(self, optimizer: Any, t_in_epochs: bool, noise: tuple[Any, ...], initialize: bool,
               **numbers: Any) -> None:  # fmt: skip
        span, pct, std, seed = noise
        super().__init__(optimizer, "lr", t_in_epochs, span, noise_pct=pct, noise_std=std, noise_seed=seed,
                         initialize=initialize)  # fmt: skip
        vars(self).update(numbers)
        self.schedule = self._schedule()
        if self.warmup_t:
            top = [self._at_warmup_end(value) for value in self.base_values]
            self.warmup_steps = [(value - self.warmup_lr_init) / self.warmup_t for value in top]
            self.update_groups(self.warmup_lr_init)
        else:
            self.warmup_steps = [1 for _ in self.base_values]

    warmup_t: int
    warmup_lr_init: float

    def _at_warmup_end(self, base: float) -> float:
        return base

    def _shape(self) -> native.Shape:
        raise NotImplementedError

    def _schedule(self) -> native.Schedule:
        return native.Schedule(self._shape(), warmup=self.warmup_t, warmup_start=self.warmup_lr_init,
                               warmup_prefix=getattr(self, "warmup_prefix", False))  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.schedule = self._schedule()

    def _get_lr(self, t: int) -> list[float]:
        return [self.schedule.at(t, base) for base in self.base_values]


class Cyclic(Curve):
    t_initial: int
    lr_min: float
    cycle_mul: float
    cycle_decay: float
    cycle_limit: int
    warmup_prefix: bool

    def _cycles(self) -> dict[str, Any]:
        return dict(min_lr=self.lr_min, cycle_mul=self.cycle_mul, cycle_decay=self.cycle_decay,
                    cycle_limit=self.cycle_limit)  # fmt: skip

    def get_cycle_length(self, cycles: int = 0) -> int:
        cycles = max(1, cycles or self.cycle_limit)
        if self.cycle_mul == 1.0:
            t = self.t_initial * cycles
        else:
            t = math.floor(-self.t_initial * (self.cycle_mul**cycles - 1) / (1 - self.cycle_mul))
        return t + self.warmup_t if self.warmup_prefix else t


class CosineLRScheduler(Cyclic):
    def __init__(self, optimizer: torch.optim.Optimizer, t_initial: int, lr_min: float = 0.0, cycle_mul: float = 1.0,
                 cycle_decay: float = 1.0, cycle_limit: int = 1, warmup_t: int = 0, warmup_lr_init: float = 0.0,
                 warmup_prefix: bool = False, t_in_epochs: bool = True, noise_range_t: Range = None,
                 noise_pct: float = 0.67, noise_std: float = 1.0, noise_seed: int = 42, k_decay: float = 1.0,
                 initialize: bool = True) -> None:  # fmt: skip
        self._start(optimizer, t_in_epochs, (noise_range_t, noise_pct, noise_std, noise_seed), initialize,
                    t_initial=t_initial, lr_min=lr_min, cycle_mul=cycle_mul, cycle_decay=cycle_decay,
                    cycle_limit=cycle_limit, warmup_t=warmup_t, warmup_lr_init=warmup_lr_init,
                    warmup_prefix=warmup_prefix, k_decay=k_decay)  # fmt: skip

    k_decay: float

    def _shape(self) -> native.Shape:
        return native.cosine(self.t_initial, k_decay=self.k_decay, **self._cycles())


class TanhLRScheduler(Cyclic):
    def __init__(self, optimizer: torch.optim.Optimizer, t_initial: int, lb: float = -7.0, ub: float = 3.0,
                 lr_min: float = 0.0, cycle_mul: float = 1.0, cycle_decay: float = 1.0, cycle_limit: int = 1,
                 warmup_t: int = 0, warmup_lr_init: float = 0.0, warmup_prefix: bool = False,
                 t_in_epochs: bool = True, noise_range_t: Range = None, noise_pct: float = 0.67,
                 noise_std: float = 1.0, noise_seed: int = 42, initialize: bool = True) -> None:  # fmt: skip
        self._start(optimizer, t_in_epochs, (noise_range_t, noise_pct, noise_std, noise_seed), initialize, lb=lb,
                    ub=ub, t_initial=t_initial, lr_min=lr_min, cycle_mul=cycle_mul, cycle_decay=cycle_decay,
                    cycle_limit=cycle_limit, warmup_t=warmup_t, warmup_lr_init=warmup_lr_init,
                    warmup_prefix=warmup_prefix)  # fmt: skip

    lb: float
    ub: float

    def _at_warmup_end(self, base: float) -> float:
        return base if self.warmup_prefix else self.schedule.shape.value(self.warmup_t, base)

    def _shape(self) -> native.Shape:
        return native.tanh(self.t_initial, lower=self.lb, upper=self.ub, **self._cycles())


class PolyLRScheduler(Cyclic):
    def __init__(self, optimizer: torch.optim.Optimizer, t_initial: int, power: float = 0.5, lr_min: float = 0.0,
                 cycle_mul: float = 1.0, cycle_decay: float = 1.0, cycle_limit: int = 1, warmup_t: int = 0,
                 warmup_lr_init: float = 0.0, warmup_prefix: bool = False, t_in_epochs: bool = True,
                 noise_range_t: Range = None, noise_pct: float = 0.67, noise_std: float = 1.0, noise_seed: int = 42,
                 k_decay: float = 1.0, initialize: bool = True) -> None:  # fmt: skip
        self._start(optimizer, t_in_epochs, (noise_range_t, noise_pct, noise_std, noise_seed), initialize,
                    t_initial=t_initial, power=power, lr_min=lr_min, cycle_mul=cycle_mul, cycle_decay=cycle_decay,
                    cycle_limit=cycle_limit, warmup_t=warmup_t, warmup_lr_init=warmup_lr_init,
                    warmup_prefix=warmup_prefix, k_decay=k_decay)  # fmt: skip

    power: float
    k_decay: float

    def _shape(self) -> native.Shape:
        return native.poly(self.t_initial, power=self.power, k_decay=self.k_decay, **self._cycles())


class StepLRScheduler(Curve):
    def __init__(self, optimizer: torch.optim.Optimizer, decay_t: float, decay_rate: float = 1.0, warmup_t: int = 0,
                 warmup_lr_init: float = 0.0, warmup_prefix: bool = True, t_in_epochs: bool = True,
                 noise_range_t: Range = None, noise_pct: float = 0.67, noise_std: float = 1.0, noise_seed: int = 42,
                 initialize: bool = True) -> None:  # fmt: skip
        self._start(optimizer, t_in_epochs, (noise_range_t, noise_pct, noise_std, noise_seed), initialize,
                    decay_t=decay_t, decay_rate=decay_rate, warmup_t=warmup_t, warmup_lr_init=warmup_lr_init,
                    warmup_prefix=warmup_prefix)  # fmt: skip

    decay_t: float
    decay_rate: float

    def _shape(self) -> native.Shape:
        return native.step(math.inf, self.decay_t, self.decay_rate)._replace(length=0)


class MultiStepLRScheduler(Curve):
    def __init__(self, optimizer: torch.optim.Optimizer, decay_t: list[int], decay_rate: float = 1.0,
                 warmup_t: int = 0, warmup_lr_init: float = 0.0, warmup_prefix: bool = True, t_in_epochs: bool = True,
                 noise_range_t: Range = None, noise_pct: float = 0.67, noise_std: float = 1.0, noise_seed: int = 42,
                 initialize: bool = True) -> None:  # fmt: skip
        self._start(optimizer, t_in_epochs, (noise_range_t, noise_pct, noise_std, noise_seed), initialize,
                    decay_t=decay_t, decay_rate=decay_rate, warmup_t=warmup_t, warmup_lr_init=warmup_lr_init,
                    warmup_prefix=warmup_prefix)  # fmt: skip

    decay_t: list[int]
    decay_rate: float

    def _shape(self) -> native.Shape:
        return native.multistep(math.inf, self.decay_t, self.decay_rate)._replace(length=0)


class WSDLRScheduler(Curve):
    def __init__(self, optimizer: torch.optim.Optimizer, t_initial: int, decay_t: int, lr_min: float = 0.0,
                 stable_fn: str = "constant", stable_timescale: float | None = None, stable_power: float = 0.5,
                 decay_fn: str | Callable[[float], float] = "1-sqrt", decay_power: float = 0.5,
                 decay_ratio: float = 0.1, warmup_t: int = 0, warmup_lr_init: float = 0.0, t_in_epochs: bool = True,
                 noise_range_t: Range = None, noise_pct: float = 0.67, noise_std: float = 1.0, noise_seed: int = 42,
                 initialize: bool = True) -> None:  # fmt: skip
        if stable_fn == "rsqrt" and stable_timescale is None:
            stable_timescale = warmup_t
        self._start(optimizer, t_in_epochs, (noise_range_t, noise_pct, noise_std, noise_seed), initialize,
                    t_initial=t_initial, decay_t=decay_t, lr_min=lr_min, stable_fn=stable_fn,
                    stable_timescale=stable_timescale, stable_power=stable_power, decay_fn=decay_fn,
                    decay_power=decay_power, decay_ratio=decay_ratio, warmup_t=warmup_t,
                    warmup_lr_init=warmup_lr_init)  # fmt: skip

    def _shape(self: Any) -> native.Shape:
        span = float(self.decay_t) if self.decay_t > 1 else self.decay_t / self.t_initial
        return native.wsd(self.t_initial + self.warmup_t, self.lr_min, self.warmup_t, self.stable_fn,
                          self.stable_timescale, self.stable_power, span, self.decay_fn, self.decay_power,
                          self.decay_ratio)  # fmt: skip

    def get_cycle_length(self: Any, cycles: int = 0) -> int:
        return self.t_initial + self.warmup_t


class PlateauLRScheduler(Scheduler):
    """A factor whenever the metric of `step(epoch, metric)` has stopped getting better."""

    def __init__(self, optimizer: torch.optim.Optimizer, decay_rate: float = 0.1, patience_t: int = 10,
                 threshold: float = 1e-4, cooldown_t: int = 0, warmup_t: int = 0, warmup_lr_init: float = 0.0,
                 lr_min: float = 0.0, mode: str = "max", noise_range_t: Range = None, noise_type: str = "normal",
                 noise_pct: float = 0.67, noise_std: float = 1.0, noise_seed: int | None = None,
                 initialize: bool = True) -> None:  # fmt: skip
        super().__init__(optimizer, "lr", True, noise_range_t, noise_type, noise_pct, noise_std, noise_seed, initialize)
        self.plateau = PlateauSchedule(warmup=warmup_t, warmup_start=warmup_lr_init, min_lr=lr_min, mode=mode,
                                       decay_rate=decay_rate, patience=patience_t, cooldown=cooldown_t,
                                       threshold=threshold)  # fmt: skip
        self.warmup_t, self.warmup_lr_init = warmup_t, warmup_lr_init
        if warmup_t:
            self.update_groups(warmup_lr_init)

    def state_dict(self) -> dict[str, Any]:
        return self.plateau.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.plateau.load_state_dict(state_dict)

    def step(self, epoch: int, metric: float | None = None) -> None:
        if metric is not None and (not self.warmup_t or epoch > self.warmup_t):
            self.plateau.observe(float(metric))
        self._set(self._get_lr(epoch), epoch)

    def step_update(self, num_updates: int, metric: float | None = None) -> None:
        return None

    def _is_apply_noise(self, t: int) -> bool:
        warms_up = bool(self.warmup_t) and t <= self.warmup_t
        return not warms_up and super()._is_apply_noise(t)

    def _get_lr(self, t: int) -> list[float]:
        return [self.plateau.at(t, base) for base in self.base_values]

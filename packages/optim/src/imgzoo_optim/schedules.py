"""Schedules: pure functions of the update number that scale a field of the parameter groups."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from imgzoo.errors import OptionError, PluginError, UsageError
from imgzoo.options import check_kinds
from imgzoo.registry import registry

from .options import accepted, plain


class Groups(Protocol):
    """Whatever has parameter groups: an optimizer."""

    param_groups: list[dict[str, Any]]


class Shape(NamedTuple):
    """The curve after warm-up: `value(t, base)`, how long it runs, and how it meets the warm-up."""

    value: Callable[[float, float], float]
    length: float
    meets: bool = False
    """Warm-up rises to the curve's own value rather than to the base."""
    prefix: bool | None = None
    """True or False where the curve itself decides whether warm-up comes before it."""


# curves: each takes `total` and its options and returns a Shape


class Cycles(NamedTuple):
    """Restarts: cycle `i` lasts `total * mul**i`, starts from `base * decay**i`; after `limit` cycles, the minimum."""

    total: float
    mul: float
    decay: float
    limit: int

    def locate(self, t: float) -> tuple[int, float, float]:
        """Number of the cycle that holds `t`, time inside it, its length."""
        if self.mul == 1:
            i = int(t // self.total)
            return i, t - i * self.total, self.total
        passed = 1 - t / self.total * (1 - self.mul)
        i = math.floor(math.log(passed, self.mul)) if passed > 0 else self.limit
        return i, t - (1 - self.mul**i) / (1 - self.mul) * self.total, self.total * self.mul**i

    @property
    def length(self) -> float:
        if self.mul == 1:
            return self.total * self.limit
        return math.floor(-self.total * (self.mul**self.limit - 1) / (1 - self.mul))


def _restarting(cycles: Cycles, min_lr: float, fall: Callable[[float, float], float], meets: bool = False) -> Shape:
    """A curve that falls from the cycle's peak to `min_lr` as `fall(time, length)` goes from 1 to 0.

    A base below `min_lr` stays where it is.
    """

    def value(t: float, base: float) -> float:
        i, time, length = cycles.locate(t)
        floor = min(min_lr, base)
        if i >= cycles.limit:
            return floor
        return floor + (max(base * cycles.decay**i, floor) - floor) * fall(time, length)

    return Shape(value, cycles.length, meets)


def cosine(
    total: float,
    min_lr: float = 0.0,
    cycle_mul: float = 1.0,
    cycle_decay: float = 1.0,
    cycle_limit: int = 1,
    k_decay: float = 1.0,
) -> Shape:
    """Half a cosine from base to `min_lr` (1608.03983); `k_decay` bends it (2004.05909)."""

    def fall(time: float, length: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * (time / length) ** k_decay))

    return _restarting(Cycles(total, cycle_mul, cycle_decay, cycle_limit), min_lr, fall)


def tanh(
    total: float,
    min_lr: float = 0.0,
    lower: float = -7.0,
    upper: float = 3.0,
    cycle_mul: float = 1.0,
    cycle_decay: float = 1.0,
    cycle_limit: int = 1,
) -> Shape:
    """A hyperbolic tangent between its arguments `lower` and `upper` (1806.01593)."""
    if lower >= upper:
        raise UsageError(f"tanh needs lower < upper, got {lower} and {upper}")

    def fall(time: float, length: float) -> float:
        share = time / length
        return 0.5 * (1 - math.tanh(lower * (1 - share) + upper * share))

    return _restarting(Cycles(total, cycle_mul, cycle_decay, cycle_limit), min_lr, fall, meets=True)


def poly(
    total: float,
    min_lr: float = 0.0,
    power: float = 0.5,
    cycle_mul: float = 1.0,
    cycle_decay: float = 1.0,
    cycle_limit: int = 1,
    k_decay: float = 1.0,
) -> Shape:
    """`(1 - t^k / total^k) ^ power` from base to `min_lr`."""

    def fall(time: float, length: float) -> float:
        return (1 - (time / length) ** k_decay) ** power

    return _restarting(Cycles(total, cycle_mul, cycle_decay, cycle_limit), min_lr, fall)


def step(total: float, decay_every: float = 30, decay_rate: float = 0.1) -> Shape:
    """Times `decay_rate` every `decay_every`."""
    if decay_every <= 0:
        raise UsageError(f"decay_every must be positive, got {decay_every}")
    return Shape(lambda t, base: base * decay_rate ** (t // decay_every), total)


def multistep(total: float, milestones: Sequence[float] = (90, 180, 270), decay_rate: float = 0.1) -> Shape:
    """Times `decay_rate` at each of `milestones`."""
    if list(milestones) != sorted(milestones):
        raise UsageError(f"milestones must rise, got {list(milestones)}")
    return Shape(lambda t, base: base * decay_rate ** bisect_right(milestones, t + 1), total)


def constant(total: float) -> Shape:
    """The base value."""
    return Shape(lambda t, base: base, total)


DECAYS: dict[str, Callable[[float, float, float], float]] = {  # (share passed, power, ratio) -> share left
    "linear": lambda x, power, ratio: 1 - x,
    "1-sqrt": lambda x, power, ratio: 1 - math.sqrt(x),
    "cosine": lambda x, power, ratio: 0.5 * (1 + math.cos(math.pi * x)),
    "power": lambda x, power, ratio: 1 - x**power,
    "exp": lambda x, power, ratio: (ratio**x - ratio) / (1 - ratio),
}


def wsd(
    total: float,
    min_lr: float = 0.0,
    warmup: float = 0,
    stable: str = "constant",
    stable_timescale: float | None = None,
    stable_power: float = 0.5,
    decay: float = 0.1,
    decay_fn: str | Callable[[float], float] | None = None,
    decay_power: float = 0.5,
    decay_ratio: float = 0.1,
) -> Shape:
    """Stay, then decay over the last `decay` (a share of the run, or a count of updates when above 1) to `min_lr`.

    `stable` is `constant`, `rsqrt` (2106.04560) or `power`: `(scale / (scale + t)) ^ power`, the scale being the
    warm-up's length unless given. `decay_fn` is `linear`, `1-sqrt` (2404.06395), `cosine`, `power`, `exp` (its base is
    `decay_ratio`) or a function from the share passed to the share left. Warm-up is part of `total`.
    """
    length = total - warmup
    span = decay * length if decay <= 1 else decay
    scale = stable_timescale or warmup
    decay_fn = decay_fn or ("linear" if stable == "rsqrt" else "1-sqrt")
    if stable not in ("constant", "rsqrt", "power"):
        raise UsageError(f"stable must be constant, rsqrt or power, got '{stable}'")
    if isinstance(decay_fn, str) and decay_fn not in DECAYS:
        raise UsageError(f"decay_fn must be one of {', '.join(DECAYS)} or a function, got '{decay_fn}'")
    for name, number, fits in (
        ("decay", decay, decay > 0),
        ("stable_power", stable_power, stable_power >= 0),
        ("decay_power", decay_power, decay_power > 0),
        ("decay_ratio", decay_ratio, 0 < decay_ratio < 1),
        ("stable_timescale", stable_timescale, stable_timescale is None or stable_timescale > 0),
    ):
        if not fits:
            bound = {"stable_power": "at least 0", "decay_ratio": "between 0 and 1"}.get(name, "above 0")
            raise UsageError(f"{name} must be {bound}, got {number:g}")
    if callable(decay_fn) and not all(0 <= decay_fn(x) <= 1 for x in (0.0, 0.5, 1.0)):
        raise UsageError("decay_fn must go from a share passed to a share left, both between 0 and 1")
    if span > length:
        raise UsageError(f"the decay of {span:g} is longer than the {length:g} updates after warm-up")
    if stable != "constant" and not scale > 0:
        raise UsageError(f"stable='{stable}' without warm-up needs a positive stable_timescale")
    exponent = {"constant": 0.0, "rsqrt": 0.5, "power": stable_power}[stable]

    def value(t: float, base: float) -> float:
        floor = min(min_lr, base)
        level = max(base * (scale / (scale + t)) ** exponent, floor) if exponent else base
        x = (t - (length - span)) / span if span else float(t >= length)
        if t >= length:
            return floor
        if x <= 0:
            return level
        left = DECAYS[decay_fn](x, decay_power, decay_ratio) if isinstance(decay_fn, str) else decay_fn(x)
        return floor + (level - floor) * left

    return Shape(value, length, prefix=True)


# the schedule around a curve


def noise_factor(t: float, noise: tuple[float, float], pct: float, std: float, seed: int, kind: str) -> float:
    """`1 + n`, where `n` is drawn for this `t` alone: normal within `pct`, or uniform over twice that width."""
    if not noise[0] <= t < noise[1]:
        return 1.0
    import torch

    generator = torch.Generator().manual_seed(int(seed + t))
    if kind == "uniform":
        return 1 + 2 * (torch.rand(1, generator=generator).item() - 0.5) * pct
    while True:
        drawn = torch.randn(1, generator=generator).item() * std
        if abs(drawn) < pct:
            return 1 + drawn


class Schedule:
    """A pure function of the update number: `schedule(update)` is the value for `base`.

    `apply(optimizer, update)` sets `field` of each parameter group to its own base's value times its `lr_scale`.
    `length` counts the updates of the whole run: warm-up, cycles, cooldown.
    """

    def __init__(
        self,
        shape: Shape,
        *,
        base: float = 1.0,
        warmup: float = 0,
        warmup_start: float = 0.0,
        warmup_prefix: bool = False,
        cooldown: float = 0,
        noise: tuple[float, float] | None = None,
        noise_pct: float = 0.67,
        noise_std: float = 1.0,
        noise_seed: int = 42,
        noise_type: str = "normal",
        updates_per_epoch: int | None = None,
        field: str = "lr",
    ):
        self.shape, self.base, self.field = shape, base, field
        self.warmup, self.warmup_start, self.cooldown = warmup, warmup_start, cooldown
        self.prefix = shape.prefix if shape.prefix is not None else warmup_prefix
        self.noise, self.draw = noise, (noise_pct, noise_std, noise_seed, noise_type)
        self.unit = updates_per_epoch or 1
        whole = shape.length + (warmup if self.prefix else 0) + cooldown
        self.length = math.ceil(whole) * self.unit

    def at(self, update: int, base: float) -> float:
        """The value at `update` for a group whose base value is `base`."""
        t = update // self.unit
        if t < self.warmup:
            start, peak = self.warmup_start, base
            if self.shape.meets and not self.prefix:
                peak = self.shape.value(self.warmup, base)
            value = start + t * (peak - start) / self.warmup
        else:
            value = self.shape.value(t - self.warmup if self.prefix else t, base)
        return value if self.noise is None else value * noise_factor(t, self.noise, *self.draw)

    def __call__(self, update: int) -> float:
        return self.at(update, self.base)

    def apply(self, optimizer: Groups, update: int, metric: float | None = None) -> None:
        """Set the field of every group for this update; `metric` is for schedules with a memory."""
        write(optimizer, self.field, lambda base: self.at(update, base))


def write(optimizer: Groups, field: str, value: Callable[[float], float]) -> None:
    """Set `field` of each group to `value(base) * lr_scale`; a tensor field is filled in place."""
    for group in optimizer.param_groups:
        if field not in group:
            raise UsageError(f"this optimizer's groups have no field '{field}'")
        current = group[field]
        if f"base_{field}" not in group:
            group[f"base_{field}"] = float(current)
        new = value(group[f"base_{field}"]) * group.get("lr_scale", 1.0)
        if hasattr(current, "fill_"):
            current.fill_(new)
        else:
            group[field] = new


def _check(total: float, warmup: float, base: float, options: dict[str, Any]) -> None:
    for name, number in (("total", total), ("warmup", warmup), ("base", base)):
        if not math.isfinite(number) or number < 0 or (name == "total" and number == 0):
            raise UsageError(f"{name} must be a number {'above' if name == 'total' else 'of at least'} 0, got {number}")
    for name in ("min_lr", "warmup_start", "cooldown", "decay_rate"):
        if name in options and not (options[name] >= 0 and math.isfinite(options[name])):
            raise UsageError(f"{name} must be a number of at least 0, got {options[name]}")
    for name in ("cycle_limit", "cycle_mul", "cycle_decay", "k_decay", "power", "noise_pct", "noise_std"):
        if name in options and not (options[name] > 0 and math.isfinite(options[name])):
            raise UsageError(f"{name} must be a positive number, got {options[name]}")
    for name, number in options.items():
        if isinstance(number, float) and not math.isfinite(number):
            raise UsageError(f"{name} must be a finite number, got {number}")
    if options.get("noise_type", "normal") not in ("normal", "uniform"):
        raise UsageError(f"noise_type must be normal or uniform, got '{options['noise_type']}'")


def noise_range(noise: float | Sequence[float] | None, total: float) -> tuple[float, float] | None:
    """Where noise acts: a share of the run from which on, or a pair of shares."""
    if noise is None:
        return None
    pair = (float(noise), math.inf) if isinstance(noise, int | float) else tuple(noise)
    if len(pair) != 2 or not 0 <= pair[0] <= pair[1]:
        raise UsageError(f"noise must be a share of the run or a rising pair of shares, got {noise}")
    return pair[0] * total, pair[1] * total


def create_scheduler(
    name: str,
    optimizer: Groups | None = None,
    *,
    total: float,
    warmup: float = 0,
    base: float | None = None,
    per: str = "update",
    updates_per_epoch: int | None = None,
    noise: float | Sequence[float] | None = None,
    **options: Any,
) -> Any:
    """Build the schedule `name`: a callable from update number to value, with `apply(optimizer, update)`.

    `total`, `warmup` and every other time are counted in updates, or in epochs with `per="epoch"` and
    `updates_per_epoch`. Values are learning rates when an `optimizer` or a `base` is given, factors of 1 otherwise.
    Raises `UnknownNameError` for a name nobody brings and `OptionError`, listing the valid ones, for a wrong option.
    """
    if per not in ("update", "epoch"):
        raise UsageError(f"per must be 'update' or 'epoch', got {per!r}")
    total, warmup, base, updates_per_epoch, noise = map(plain, (total, warmup, base, updates_per_epoch, noise))
    options = {key: plain(value) for key, value in options.items()}
    spec = registry("schedulers").resolve(name.lower())
    build, what = spec.load(), f"schedule '{name}'"
    times = {"total": total, "warmup": warmup, "base": base, "noise": noise, "updates_per_epoch": updates_per_epoch}
    check_kinds(what, create_scheduler, times)
    for taker in (Schedule.__init__, build):
        check_kinds(what, taker, options)
    if base is None:
        group = optimizer.param_groups[0] if optimizer else {}
        field = options.get("field", "lr")
        base = float(group.get(f"base_{field}", group.get(field, 1.0)))
    if per == "epoch" and (updates_per_epoch or 0) < 1:
        raise UsageError("a schedule per epoch needs updates_per_epoch, at least 1")
    _check(total, warmup, base, options)
    around = {
        "base": base,
        "warmup": warmup,
        "noise": noise_range(noise, total),
        "updates_per_epoch": updates_per_epoch if per == "epoch" else None,
    }
    curve, outer = accepted(build), accepted(Schedule.__init__)
    if isinstance(build, type):
        curve, outer = curve | outer, set()
        options = options | {"total": total}
    given = {**spec.kwargs, **options}
    valid = (curve | outer) - {"shape", "self", *around, "total"} | {"noise", "warmup", "base"}
    wrong = sorted(set(options) - valid - {"total"})
    if wrong:
        names = ", ".join(sorted(valid))
        raise OptionError(f"{what} takes no option {', '.join(wrong)}; valid options are {names}")
    if isinstance(build, type):
        return build(**{key: value for key, value in (around | given).items() if key in curve})
    mine = {key: value for key, value in given.items() if key in curve}
    if "warmup" in curve:
        mine["warmup"] = warmup
    shape = build(total, **mine)
    if not isinstance(shape, Shape):
        if not callable(shape):
            made = type(shape).__name__
            raise PluginError(f"plugin '{spec.plugin}': {spec.target} makes a {made}, and no function of the update")
        shape = Shape(shape, total)  # pyright: ignore[reportArgumentType]
    return Schedule(shape, **around, **{key: value for key, value in given.items() if key not in curve})

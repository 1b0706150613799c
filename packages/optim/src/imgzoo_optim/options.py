"""Which options a constructor takes, and checks of their values."""

from __future__ import annotations

import difflib
import inspect
import math
import numbers
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from imgzoo.errors import OptionError, UsageError
from imgzoo.specs import NOTHING


def accepted(build: Callable[..., Any]) -> set[str]:
    """Names of the arguments that `build` takes."""
    return {name for name, p in inspect.signature(build).parameters.items() if p.kind is not p.VAR_KEYWORD} - {"self"}


def takes_any(build: Callable[..., Any]) -> bool:
    """Whether `build` has `**kwargs`."""
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(build).parameters.values())


def check_names(what: str, build: Callable[..., Any], options: Mapping[str, Any], extra: set[str]) -> None:
    """Raise `OptionError` listing the valid names when `options` holds another."""
    if takes_any(build):
        return
    valid = (accepted(build) | extra) - {"params"}
    wrong = sorted(set(options) - valid)
    if wrong:
        near = difflib.get_close_matches(wrong[0], valid, 1)
        hint = f" (did you mean {near[0]}?)" if near else ""
        names = ", ".join(sorted(valid))
        raise OptionError(f"{what} takes no option {', '.join(wrong)}{hint}; valid options are {names}")


class Range(NamedTuple):
    """Where a number may lie; `above` and `below` leave the ends out."""

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    below: bool = False

    def has(self, value: float) -> bool:
        low = self.low < value if self.above else self.low <= value
        return low and (value < self.high if self.below else value <= self.high)

    def __str__(self) -> str:
        if self.high == math.inf:
            return f"a finite number {'above' if self.above else 'of at least'} {self.low:g}"
        if self.low == -math.inf:
            return f"a finite number {'below' if self.below else 'of at most'} {self.high:g}"
        return f"a number in {'(' if self.above else '['}{self.low:g}, {self.high:g}{')' if self.below else ']'}"


NOT_NEGATIVE, POSITIVE, COUNT = Range(0), Range(0, above=True), Range(1)
SHARE, AVERAGE = Range(0, 1), Range(0, 1, below=True)
RANGES: dict[str, Range] = {
    **dict.fromkeys(("lr", "adamw_lr", "fallback_lr_scale", "lr_1d_factor", "weight_decay", "wd_ratio"), NOT_NEGATIVE),
    **dict.fromkeys(("eps", "eps_scale", "dampening", "trust_coeff", "delta", "gamma", "hessian_power"), NOT_NEGATIVE),
    **dict.fromkeys(("initial_accumulator_value", "lr_decay", "momentum_decay", "schedule_decay"), NOT_NEGATIVE),
    **dict.fromkeys(("decay_offset", "warmup_steps", "rho"), NOT_NEGATIVE),
    **dict.fromkeys(("clipping_threshold", "clip_threshold", "safety_factor", "precond_init_scale"), POSITIVE),
    **dict.fromkeys(("max_grad_norm",), POSITIVE),
    **dict.fromkeys(("update_each", "n_samples", "ns_steps", "min_dim_size_to_factor"), COUNT),
    **dict.fromkeys(("clip_exp", "precond_lr", "preconditioner_update_probability"), SHARE),
    **dict.fromkeys(("momentum", "alpha", "beta2_cap", "betas", "betas_1d"), AVERAGE),
    **dict.fromkeys(("r", "weight_lr_power"), Range(0, 10)),
}
"""By name of the option; a rule's own `ranges` come first, and any other number must be finite."""


def check_values(what: str, options: Mapping[str, Any], ranges: Mapping[str, Range] = NOTHING) -> None:
    """Raise `UsageError` for a number outside its range: a rate below zero, a beta of one, a count of none."""
    for name, value in options.items():
        values = value if name.startswith("betas") and isinstance(value, (list, tuple)) else [value]
        allowed = ranges.get(name) or RANGES.get(name, Range())
        for each in values:
            if isinstance(each, bool) or not (isinstance(each, numbers.Real) or getattr(each, "shape", None) == ()):
                continue
            number = float(each)
            if not (math.isfinite(number) and allowed.has(number)):
                raise UsageError(f"{what}: {name} must be {allowed}, got {number:g}")
    if options.get("nesterov") and options.get("momentum") == 0 and options.get("dampening", 0) == 0:
        raise UsageError(f"{what}: Nesterov momentum needs momentum above 0")

"""Which options a constructor takes, and checks of their values. No torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from imgzoo.errors import UsageError
from imgzoo.options import Range, check_ranges, plain_numbers
from imgzoo.specs import NOTHING


def accepted(build: Callable[..., Any]) -> set[str]:
    """Names of the arguments that `build` takes."""
    return {name for name, p in inspect.signature(build).parameters.items() if p.kind is not p.VAR_KEYWORD} - {"self"}


def takes_any(build: Callable[..., Any]) -> bool:
    """Whether `build` has `**kwargs`."""
    return any(p.kind is p.VAR_KEYWORD for p in inspect.signature(build).parameters.values())


def plain(value: Any) -> Any:
    """A number of numpy's as Python's, which a saved state may hold; tensors, which a step need not read, stay."""
    row = value if isinstance(value, list | tuple) else [value]
    return value if any(hasattr(each, "requires_grad") for each in row) else plain_numbers(value)


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
    check_ranges(what, options, {**RANGES, **ranges})
    if options.get("nesterov") and options.get("momentum") == 0 and options.get("dampening", 0) == 0:
        raise UsageError(f"{what}: Nesterov momentum needs momentum above 0")

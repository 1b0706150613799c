"""Which options a constructor takes, and checks of their values."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from imgzoo.errors import OptionError, UsageError


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


def _number(value: Any) -> float:
    return float(value)


def check_values(what: str, options: Mapping[str, Any]) -> None:
    """Raise `UsageError` for a rate below zero, a beta outside [0, 1), a step count below one."""
    for name in ("lr", "weight_decay", "eps", "momentum", "dampening"):
        value = options.get(name)
        if value is not None and not (_number(value) >= 0 and math.isfinite(_number(value))):
            raise UsageError(f"{what}: {name} must be a finite number of at least 0, got {_number(value):g}")
    for name in ("clipping_threshold", "clip_threshold"):
        value = options.get(name)
        if value is not None and not (_number(value) > 0 and math.isfinite(_number(value))):
            raise UsageError(f"{what}: {name} must be a finite number above 0, got {_number(value):g}")
    for name in ("betas", "betas_1d"):
        betas = options.get(name)
        if isinstance(betas, float | int | str):
            raise UsageError(f"{what}: {name} is a list of numbers, not {betas!r}")
        if betas is not None and not all(b is None or 0 <= _number(b) < 1 for b in betas):
            raise UsageError(f"{what}: betas must lie in [0, 1), got {tuple(betas)}")
    if options.get("nesterov") and options.get("momentum") == 0 and options.get("dampening", 0) == 0:
        raise UsageError(f"{what}: Nesterov momentum needs momentum above 0")

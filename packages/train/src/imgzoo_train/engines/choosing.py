"""The engines there are, and the fastest of them here: measured on an example, in turns, and told why."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

from imgzoo.errors import UsageError

from .base import Engine
from .eager import Eager
from .inductor import Inductor
from .onnxruntime import OnnxRuntime
from .openvino import OpenVino

ENGINES: dict[str, Engine] = {engine.name: engine for engine in (OpenVino(), OnnxRuntime(), Eager(), Inductor())}
"""In the order they are tried: what is cheap to make first."""
AUTO = "auto"
SECONDS = 2.0
"""Time spent on comparing engines."""
LEAST, MOST = 5, 40
CLOSE = 1.25
"""What takes at most this many times as long as the fastest is compared once more, as long again."""


def engine_named(name: str) -> Engine:
    """The engine of a name. Raises `UsageError` for a name that is none."""
    if name not in ENGINES:
        raise UsageError(f"there is no engine '{name}'; use {', '.join([AUTO, *ENGINES])}")
    return ENGINES[name]


def in_turns(calls: Mapping[str, Callable[[], Any]], budget: float = SECONDS) -> dict[str, float]:
    """Median seconds of each call; they take turns, so that what else runs here slows all of them alike.

    Those that come close to the fastest take turns once more without the rest; the better median counts.
    """
    for call in calls.values():
        call()
    found = _heat(calls, budget)
    close = {name: call for name, call in calls.items() if found[name] <= CLOSE * min(found.values())}
    again = _heat(close, budget) if len(close) > 1 else {}
    return found | {name: min(found[name], taken) for name, taken in again.items()}


def _heat(calls: Mapping[str, Callable[[], Any]], budget: float) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in calls}
    end = time.perf_counter() + budget
    for number in range(MOST):
        if number >= LEAST and time.perf_counter() > end:
            break
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(time.perf_counter() - start)
    return {name: statistics.median(found) for name, found in times.items()}


def reason(times: Mapping[str, float], notes: Mapping[str, str], batch: int, threads: int) -> str:
    """Why the first of `times` (seconds, fastest first) was chosen, in a sentence or two."""
    first, *others = times
    told = f"{first} takes {1e3 * times[first]:.3g} ms"
    if others:
        told += ", " + ", ".join(f"{name} {1e3 * times[name]:.3g}" for name in others)
    told += f" (batch of {batch}, {threads} thread{'s' * (threads > 1)})"
    return "; ".join([told, *(f"{name}: {note}" for name, note in notes.items())])

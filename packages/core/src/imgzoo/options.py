"""The options of a network's constructor: which there are, and a line about each. No torch."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

Parameters = Mapping[str, inspect.Parameter]
NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def parameters_of(build: Callable[..., Any]) -> tuple[Parameters, bool]:
    """The options a constructor takes, those it hands to its base class included; True if it takes any."""
    if not inspect.isclass(build):
        parameters = inspect.signature(build).parameters
        return _named(parameters), _is_open(parameters)
    found: dict[str, inspect.Parameter] = {}
    for cls in build.__mro__:
        if "__init__" not in cls.__dict__:
            continue
        parameters = inspect.signature(cls.__init__).parameters
        found = {**_named(parameters), **found}
        found.pop("self", None)
        if not _is_open(parameters):
            return found, False
    return found, True


def _named(parameters: Parameters) -> dict[str, inspect.Parameter]:
    return {name: each for name, each in parameters.items() if each.kind in NAMED}


def _is_open(parameters: Parameters) -> bool:
    return any(each.kind is each.VAR_KEYWORD for each in parameters.values())

"""Plain data from outside (JSON, TOML, checkpoints), told apart in a way that a type checker follows. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard


def is_table(value: Any) -> TypeGuard[Mapping[str, Any]]:
    """Whether a value is a mapping; what its keys are is for the caller to look at."""
    return isinstance(value, Mapping)


def is_list(value: Any) -> TypeGuard[list[Any]]:
    """Whether a value is a list, as JSON has them."""
    return isinstance(value, list)

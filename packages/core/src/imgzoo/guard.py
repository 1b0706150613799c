"""How code of a plugin is called where its fault must stay its own. No torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def attempt(action: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    """What `action` returns, or what it fails with: `SystemExit` and a Rust panic too, but Ctrl-C goes through."""
    try:
        return action(), None
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        return None, error

"""Optimizers of the package `pytorch-optimizer`, fetched by class name."""

from __future__ import annotations

from typing import Any

from imgzoo.errors import MissingDependencyError


def __getattr__(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    try:
        import pytorch_optimizer  # type: ignore[import-not-found]
    except ImportError as error:
        raise MissingDependencyError(f"{name} comes with pytorch-optimizer: pip install pytorch-optimizer") from error
    return getattr(pytorch_optimizer, name)

"""Optimizers of bitsandbytes and apex under the names the field uses, imported when asked for."""

from __future__ import annotations

import importlib
from typing import Any

from imgzoo.errors import MissingDependencyError


def _load(module: str, cls: str, install: str) -> Any:
    try:
        return getattr(importlib.import_module(module), cls)
    except ImportError as error:
        raise MissingDependencyError(
            f"{cls} is part of {module.partition('.')[0]}, which is not here: {install}"
        ) from error


def bitsandbytes(params: Any, cls: str, **options: Any) -> Any:
    """An optimizer of bitsandbytes (needs an accelerator that it supports)."""
    return _load("bitsandbytes.optim", cls, "pip install bitsandbytes")(params, **options)


def apex(params: Any, cls: str, **options: Any) -> Any:
    """A fused optimizer of NVIDIA apex (needs a CUDA device and a build from source)."""
    install = "build it from https://github.com/NVIDIA/apex, or use the name without 'fused'"
    return _load("apex.optimizers", cls, install)(params, **options)

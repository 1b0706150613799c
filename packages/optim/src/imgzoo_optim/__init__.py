"""Optimizers, schedules, parameter groups and clipping for imgzoo. Importing this package does not import torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {  # public name -> module that holds it
    "create_optimizer": "factory",
    "optimizer_options": "factory",
    "create_scheduler": "schedules",
    "Schedule": "schedules",
    "PlateauSchedule": "plateau",
    "clip_gradients": "clip",
    "decay_groups": "groups",
    "explain": "groups",
    "layer_scales": "groups",
    "Optimizer": "base",
    "Lookahead": "lookahead",
    "SAM": "sam",
}

__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from .base import Optimizer as Optimizer
    from .clip import clip_gradients as clip_gradients
    from .factory import create_optimizer as create_optimizer
    from .factory import optimizer_options as optimizer_options
    from .groups import decay_groups as decay_groups
    from .groups import explain as explain
    from .groups import layer_scales as layer_scales
    from .lookahead import Lookahead as Lookahead
    from .plateau import PlateauSchedule as PlateauSchedule
    from .sam import SAM as SAM
    from .schedules import Schedule as Schedule
    from .schedules import create_scheduler as create_scheduler


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'imgzoo_optim' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return list(__all__)

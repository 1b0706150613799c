"""Training, evaluation, prediction and export for imgzoo. Importing this package does not import torch."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

_HOME = {  # public name -> module that holds it
    "Config": "config",
    "State": "state",
    "fit": "loop",
    "train": "run",
    "evaluate": "evaluation",
    "create_loss": "losses",
    "Checkpoints": "checkpoints",
    "deploy": "deployment",
    "export": "exporting",
    "Predictor": "prediction",
}

__all__ = sorted(_HOME)

if TYPE_CHECKING:
    from .checkpoints import Checkpoints as Checkpoints
    from .config import Config as Config
    from .deployment import deploy as deploy
    from .evaluation import evaluate as evaluate
    from .exporting import export as export
    from .loop import fit as fit
    from .losses import create_loss as create_loss
    from .prediction import Predictor as Predictor
    from .run import train as train
    from .state import State as State


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'imgzoo_train' has no attribute '{name}'")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return list(__all__)

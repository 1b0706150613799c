"""Training, evaluation, prediction and export for imgzoo. Importing this package does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imgzoo._door import lazy_door

_HOME = {  # public name -> module that holds it
    "Checkpoints": "imgzoo_train.checkpoints",
    "Config": "imgzoo_train.config",
    "Predictor": "imgzoo_train.prediction",
    "State": "imgzoo_train.state",
    "create_loss": "imgzoo_train.losses",
    "Teacher": "imgzoo_train.distill",
    "class_weights": "imgzoo_train.weighting",
    "deploy": "imgzoo_train.deployment",
    "distillation": "imgzoo_train.distill",
    "evaluate": "imgzoo_train.evaluation",
    "export": "imgzoo_train.exporting",
    "fit": "imgzoo_train.loop",
    "supervised": "imgzoo_train.build",
    "train": "imgzoo_train.run",
}

__all__ = [*_HOME]

if TYPE_CHECKING:
    from imgzoo_train.build import supervised as supervised
    from imgzoo_train.checkpoints import Checkpoints as Checkpoints
    from imgzoo_train.config import Config as Config
    from imgzoo_train.deployment import deploy as deploy
    from imgzoo_train.distill import Teacher as Teacher
    from imgzoo_train.distill import distillation as distillation
    from imgzoo_train.evaluation import evaluate as evaluate
    from imgzoo_train.exporting import export as export
    from imgzoo_train.loop import fit as fit
    from imgzoo_train.losses import create_loss as create_loss
    from imgzoo_train.prediction import Predictor as Predictor
    from imgzoo_train.run import train as train
    from imgzoo_train.state import State as State
    from imgzoo_train.weighting import class_weights as class_weights
else:
    __getattr__, __dir__ = lazy_door(__name__, _HOME)

"""Training, evaluation, prediction and export for imgzoo. Importing this package does not import torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imgzoo.door import lazy_door

_HOME = {  # public name -> module that holds it
    "ActivationStats": "imgzoo_train.techniques.activations",
    "Calibration": "imgzoo_train.models.quantizing",
    "Checkpoints": "imgzoo_train.files.checkpoints",
    "Config": "imgzoo_train.config.settings",
    "Predictor": "imgzoo_train.models.prediction",
    "State": "imgzoo_train.loop.state",
    "create_loss": "imgzoo_train.loop.losses",
    "Teacher": "imgzoo_train.loop.distillation",
    "class_weights": "imgzoo_train.loop.weighting",
    "deploy": "imgzoo_train.models.deployment",
    "distillation": "imgzoo_train.loop.distillation",
    "evaluate": "imgzoo_train.scores.evaluation",
    "export": "imgzoo_train.models.exporting",
    "fit": "imgzoo_train.loop.fit",
    "freeze": "imgzoo_train.techniques.adapters",
    "load_deployed": "imgzoo_train.models.deployed",
    "supervised": "imgzoo_train.runs.assembly",
    "train": "imgzoo_train.runs.run",
    "unfreeze": "imgzoo_train.techniques.adapters",
}

__all__ = ["__version__", *_HOME]

if TYPE_CHECKING:
    __version__: str

    from imgzoo_train.config.settings import Config as Config
    from imgzoo_train.files.checkpoints import Checkpoints as Checkpoints
    from imgzoo_train.loop.distillation import Teacher as Teacher
    from imgzoo_train.loop.distillation import distillation as distillation
    from imgzoo_train.loop.fit import fit as fit
    from imgzoo_train.loop.losses import create_loss as create_loss
    from imgzoo_train.loop.state import State as State
    from imgzoo_train.loop.weighting import class_weights as class_weights
    from imgzoo_train.models.deployed import load_deployed as load_deployed
    from imgzoo_train.models.deployment import deploy as deploy
    from imgzoo_train.models.exporting import export as export
    from imgzoo_train.models.prediction import Predictor as Predictor
    from imgzoo_train.models.quantizing import Calibration as Calibration
    from imgzoo_train.runs.assembly import supervised as supervised
    from imgzoo_train.runs.run import train as train
    from imgzoo_train.scores.evaluation import evaluate as evaluate
    from imgzoo_train.techniques.activations import ActivationStats as ActivationStats
    from imgzoo_train.techniques.adapters import freeze as freeze
    from imgzoo_train.techniques.adapters import unfreeze as unfreeze
else:
    __getattr__, __dir__ = lazy_door(__name__, _HOME)

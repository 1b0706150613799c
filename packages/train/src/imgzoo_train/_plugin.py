"""What imgzoo-train brings: commands, losses, loggers, the trainer. No torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from imgzoo.plugin import CommandSpec, ComponentSpec, hookimpl

if TYPE_CHECKING:
    from pluggy import PluginManager

IMGZOO_API = (1, 0)

_COMMANDS = {
    "train": "Train a model, or go on with a run.",
    "launch": "Start training on several ranks or machines.",
    "validate": "Score models or run folders on data.",
    "report": "Write the page of a run anew, or of two to compare.",
    "predict": "Name what images show, or write their features.",
    "embed": "Write the features of every image of a source.",
    "probe": "Score frozen features by nearest neighbors and a linear classifier.",
    "search": "Find the images most like a query among embedded ones.",
    "explain": "Show which pixels an answer rests on.",
    "benchmark": "Measure speed and cost of models.",
    "export": "Write a model as torch.export, ONNX, TorchScript or for an engine, with a parity report.",
    "average": "Average the weights of checkpoints.",
    "clean": "Reduce a checkpoint to weights that can be shared.",
    "sweep": "Train over a grid or random draws of settings.",
    "recommend": "Find the best model within a latency, measured here.",
    "push": "Upload a run to the hub with a model card.",
}

_LOSSES = {  # name -> (class, options, paper)
    "cross-entropy": ("losses:CrossEntropy", {}, ""),
    "smoothing": ("losses:CrossEntropy", {"smoothing": 0.1}, "1512.00567"),
    "soft-target": ("losses:CrossEntropy", {}, "1710.09412"),
    "bce": ("multilabel_losses:BinaryCrossEntropy", {}, "2110.00476"),
    "focal": ("losses:Focal", {}, "1708.02002"),
    "sigmoid-focal": ("multilabel_losses:SigmoidFocal", {}, "1708.02002"),
    "class-balanced": ("losses:ClassBalanced", {}, "1901.05555"),
    "jsd": ("losses:JensenShannon", {}, "1912.02781"),
    "asymmetric": ("multilabel_losses:AsymmetricMultiLabel", {}, "2009.14119"),
    "asymmetric-single": ("losses:AsymmetricSingle", {}, "2009.14119"),
    "poly": ("losses:Poly", {}, "2204.12511"),
    "poly-bce": ("multilabel_losses:PolyBinary", {}, "2204.12511"),
    "two-way": ("multilabel_losses:TwoWay", {}, ""),
    "zlpr": ("multilabel_losses:Zlpr", {}, "2208.02955"),
    "distribution-balanced": ("multilabel_losses:DistributionBalanced", {}, "2007.09654"),
    "mse": ("losses:Squared", {}, ""),
    "l1": ("losses:Absolute", {}, ""),
    "huber": ("losses:Huber", {}, ""),
}

_LOGGERS = {
    "tensorboard": ("TensorBoard", "TensorBoard event files (pip install tensorboard)"),
    "wandb": ("WeightsAndBiases", "Weights & Biases (pip install wandb)"),
    "trackio": ("Trackio", "trackio (pip install trackio)"),
}


@hookimpl
def imgzoo_commands():
    return [CommandSpec(name, f"imgzoo_train.cli.{name}:command", help) for name, help in _COMMANDS.items()]


@hookimpl
def imgzoo_losses():
    return [
        ComponentSpec(name, f"imgzoo_train.loop.{target}", options, paper=paper)
        for name, (target, options, paper) in _LOSSES.items()
    ]


@hookimpl
def imgzoo_loggers():
    return [
        ComponentSpec(name, f"imgzoo_train.runs.loggers:{cls}", help=help) for name, (cls, help) in _LOGGERS.items()
    ]


@hookimpl
def imgzoo_trainers():
    return [ComponentSpec("standard", "imgzoo_train.runs.run:train", help="supervised training, the default")]


@hookimpl
def imgzoo_addhooks(pluginmanager: PluginManager) -> None:
    from . import hookspecs

    pluginmanager.add_hookspecs(hookspecs)

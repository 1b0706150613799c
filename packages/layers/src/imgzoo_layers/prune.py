"""Cut a network to recorded tensor shapes, as published pruned checkpoints need."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files

from torch import nn


def fit_to_file(model: nn.Module, package: str | None, name: str) -> None:
    """Cut `model` to the shapes of `catalog/pruned/<name>.json` in a package: {"layer.weight": [out, in, ...]}."""
    text = files(str(package)).joinpath("catalog", "pruned", f"{name}.json").read_text("utf-8")
    fit_shapes(model, json.loads(text))


def fit_shapes(model: nn.Module, shapes: Mapping[str, Sequence[int]]) -> None:
    """Rebuild each convolution, batch norm and linear layer of `model` whose weight has another shape in `shapes`."""
    for name, module in model.named_modules():
        shape = shapes.get(f"{name}.weight")
        if shape is None or tuple(module.weight.shape) == tuple(shape):
            continue
        if isinstance(module, nn.Conv2d):
            depthwise = module.groups > 1
            module.out_channels, module.in_channels = shape[0], shape[0] if depthwise else shape[1]
            module.groups = shape[0] if depthwise else 1
        elif isinstance(module, nn.BatchNorm2d):
            module.num_features = shape[0]
            module.running_mean = module.running_mean.new_zeros(shape[0])
            module.running_var = module.running_var.new_ones(shape[0])
        elif isinstance(module, nn.Linear):
            module.out_features, module.in_features = shape
        for key, parameter in list(module.named_parameters(recurse=False)):
            new_shape = tuple(shape) if key == "weight" else (shape[0],)
            setattr(module, key, nn.Parameter(parameter.new_empty(new_shape)))
        module.reset_parameters()


def out_channels(module: nn.Module) -> int:
    """Channels that a stage puts out: those of its last convolution on the main path."""
    convs = [m for n, m in module.named_modules() if isinstance(m, nn.Conv2d) and "downsample" not in n]
    return convs[-1].out_channels

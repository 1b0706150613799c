"""Cut a network to recorded tensor shapes, as published pruned checkpoints need."""

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any, cast

from torch import nn


def fit_to_file(model: nn.Module, package: str | None, name: str, pooled: int = 1) -> None:
    """Cut `model` to the shapes of `catalog/pruned/<name>.json` in a package: {"layer.weight": [out, in, ...]}.

    The recorded shapes are those of a network for color images and 1000 classes: channels of the image and classes stay
    the model's, and the classifier reads `pooled` times the channels.
    """
    known = {file.name.removesuffix(".json"): file for file in files(str(package)).joinpath("catalog/pruned").iterdir()}
    if name not in known:
        raise ValueError(f"pruned is one of {', '.join(sorted(known))}, not {name!r}")
    shapes: dict[str, list[int]] = json.loads(known[name].read_text("utf-8"))
    modules = dict(model.named_modules())
    stem = next(key for key, module in modules.items() if isinstance(module, nn.Conv2d))
    shapes[f"{stem}.weight"][1] = modules[stem].in_channels  # type: ignore[assignment]
    for key, module in modules.items():
        if isinstance(module, nn.Linear) and f"{key}.weight" in shapes:
            shapes[f"{key}.weight"] = [module.out_features, pooled * shapes[f"{key}.weight"][1]]
    fit_shapes(model, shapes)


def fit_shapes(model: nn.Module, shapes: Mapping[str, Sequence[int]]) -> None:
    """Rebuild each convolution, batch norm and linear layer of `model` whose weight has another shape in `shapes`."""
    for name, module in cast(Iterable[tuple[str, Any]], model.named_modules()):
        shape = shapes.get(f"{name}.weight")
        if shape is None or not hasattr(module, "weight") or tuple(module.weight.shape) == tuple(shape):
            continue
        if isinstance(module, nn.Conv2d):
            depthwise = module.groups > 1
            module.out_channels, module.in_channels = shape[0], shape[0] if depthwise else shape[1]
            module.groups = shape[0] if depthwise else 1
        elif isinstance(module, nn.BatchNorm2d):
            module.num_features = shape[0]
            module.running_mean = module.running_mean.new_zeros(shape[0])  # type: ignore[union-attr]
            module.running_var = module.running_var.new_ones(shape[0])  # type: ignore[union-attr]
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

"""A model in training as TorchScript."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import nn

from imgzoo.errors import UsageError
from imgzoo_train.models.modes import evaluating
from imgzoo_train.techniques.precision import FP32, Precision

from . import small_maps


def scripted(model: nn.Module, how: str, device: torch.device, precision: Precision = FP32) -> Any:
    """The model through TorchScript, by `trace` or `script`; it shares its parameters with `model`.

    Raises `UsageError` where a script would take a gradient that `techniques.small_maps` replaces.
    """
    size: Any = model.pretrained_cfg["input_size"]  # type: ignore
    images = precision.inputs(torch.zeros(2, *size, device=device))
    if how == "script":
        small_maps.release(model)
        if precision.low and _meets_small_maps(model, images, precision):
            raise UsageError(
                f"images of {images.shape[-1]} leave maps smaller than a kernel, which low precision on a CPU must not "
                "train in a script: use --torchscript trace, --precision fp32 or a larger --input-size"
            )
        return torch.jit.script(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        return torch.jit.trace(model, images, check_trace=False)


def _meets_small_maps(model: nn.Module, images: torch.Tensor, precision: Precision) -> bool:
    with torch.no_grad(), precision.forward(images.device), small_maps.SmallMaps() as watch, evaluating(model):
        model(images)
    return watch.seen > 0

"""Change what of a finished model is trained: freezing, low-rank adapters, TorchScript."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from imgzoo.errors import UsageError

from .precision import FP32, Precision
from .techniques import small_maps

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


def head_parameters(model: nn.Module) -> set[int]:
    """Ids of the parameters of the classifier."""
    classifier: Any = model.get_classifier()  # type: ignore[operator]
    parts = classifier if isinstance(classifier, (tuple, list)) else [classifier]
    return {id(parameter) for part in parts for parameter in part.parameters()}


def freeze(model: nn.Module, what: Sequence[str]) -> list[nn.Module]:
    """Stop training of `backbone` (all but the classifier), `norm` layers, or parameters whose name holds a text.

    Returns the modules that must stay in evaluation mode, so that their running statistics do not move either. Raises
    `UsageError` for a text that matches nothing.
    """
    heads = head_parameters(model) if "backbone" in what else set()
    for text in what:
        chosen = list(_chosen(model, text, heads))
        if not chosen:
            raise UsageError(f"--freeze {text} matches no parameter of this model")
        for parameter in chosen:
            parameter.requires_grad_(False)
    return [
        module
        for module in model.modules()
        if isinstance(module, NORMS)
        and any(True for _ in module.parameters())
        and not any(parameter.requires_grad for parameter in module.parameters())
    ]


def _chosen(model: nn.Module, text: str, heads: set[int]) -> Iterable[nn.Parameter]:
    if text == "norm":
        for module in model.modules():
            if isinstance(module, NORMS):
                yield from module.parameters()
        return
    for name, parameter in model.named_parameters():
        if (text == "backbone" and id(parameter) not in heads) or (text != "backbone" and text in name):
            yield parameter


def unfreeze(model: nn.Module) -> None:
    """Let every parameter train."""
    for parameter in model.parameters():
        parameter.requires_grad_(True)


class LoraLinear(nn.Linear):
    """A linear layer plus a low-rank change (arXiv:2106.09685); at the start it changes nothing."""

    lora_down: nn.Parameter
    lora_up: nn.Parameter
    lora_scale: float

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return F.linear(input, self.weight + self.delta(), self.bias)

    def delta(self) -> torch.Tensor:
        """(out, in): the change of the weight."""
        return (self.lora_up @ self.lora_down) * self.lora_scale


class LoraConv2d(nn.Conv2d):
    """A convolution plus a low-rank change of its kernel, seen as an (out, in * height * width) matrix."""

    lora_down: nn.Parameter
    lora_up: nn.Parameter
    lora_scale: float

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(input, self.weight + self.delta(), self.bias)

    def delta(self) -> torch.Tensor:
        """(out, in, height, width): the change of the kernel."""
        return ((self.lora_up @ self.lora_down) * self.lora_scale).view_as(self.weight)


_LORA = {nn.Linear: LoraLinear, nn.Conv2d: LoraConv2d}


def add_lora(model: nn.Module, rank: int, alpha: float | None = None, layers: Sequence[str] = ()) -> list[str]:
    """Give linear and convolution layers adapters of `rank`, and freeze everything but them and the classifier.

    `layers` limits it to names that hold one of the texts. Grouped convolutions and the classifier are left alone.
    Returns the names of the adapted layers; raises `UsageError` when there is none.
    """
    heads = head_parameters(model)
    adapted: list[str] = []
    modules: list[tuple[str, Any]] = list(model.named_modules())
    for name, module in modules:
        kind = _LORA.get(type(module))
        if kind is None or id(module.weight) in heads or getattr(module, "groups", 1) > 1:
            continue
        if layers and not any(text in name for text in layers):
            continue
        _adapt(module, kind, min(rank, *module.weight.flatten(1).shape), alpha or float(rank))
        adapted.append(name)
    if not adapted:
        raise UsageError("this model has no layer that low-rank adapters fit")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name or id(parameter) in heads)
    return adapted


def _adapt(module: Any, kind: type[nn.Module], rank: int, alpha: float) -> None:
    out, into = module.weight.flatten(1).shape
    module.__class__ = kind
    module.lora_scale = alpha / rank
    module.lora_down = nn.Parameter(module.weight.new_empty(rank, into))
    module.lora_up = nn.Parameter(module.weight.new_zeros(out, rank))
    nn.init.kaiming_uniform_(module.lora_down, a=math.sqrt(5))


@torch.no_grad()
def merge_lora(model: nn.Module) -> nn.Module:
    """Add the adapters into their layers' weights and take them off; outputs stay the same."""
    modules: list[Any] = list(model.modules())
    for module in modules:
        for plain, kind in _LORA.items():
            if type(module) is kind:
                module.weight.add_(module.delta())
                del module.lora_down, module.lora_up
                module.__class__ = plain
    return model


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
    training = model.training
    with torch.no_grad(), precision.forward(images.device), small_maps.SmallMaps() as watch:
        model.eval()(images)
    model.train(training)
    return watch.seen > 0

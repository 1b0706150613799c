"""Fold batch norms into the layers that feed them, and let modules reparameterize; no answer moves but by rounding."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

CONVS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def reparameterize(model: nn.Module) -> int:
    """Call every module's own `reparameterize()`, outermost first; returns how many had one.

    A module reads its branches as they were made; those that it then goes without are not asked.
    """
    count, asked, waiting = 0, set(), [model]
    while waiting:
        module = waiting.pop()
        if module in asked:
            continue
        asked.add(module)
        rewrite = getattr(module, "reparameterize", None)
        if callable(rewrite) and module is not model:
            rewrite()
            count += 1
        waiting.extend(module.children())
    return count


@torch.no_grad()
def fold_batch_norms(model: nn.Module, example: torch.Tensor) -> int:
    """Fold each batch norm into the convolution or linear layer that alone feeds it; returns how many.

    What feeds what is seen in one run on `example` (B, C, H, W): a pair is folded when the norm's input is the layer's
    output, nothing else reads that output, and both run once. Activations inside a norm module stay.
    """
    pairs = feeding_pairs(model, example)
    names = {id(module): name for name, module in model.named_modules()}
    for layer, norm in pairs:
        _fold(layer, norm)
        _replace(model, names[id(norm)], norm)
    return len(pairs)


def feeding_pairs(model: nn.Module, example: torch.Tensor) -> list[tuple[Any, Any]]:
    """`(layer, batch norm)` pairs of which the layer's output goes to the norm and nowhere else."""
    outputs: dict[int, tuple[nn.Module, torch.Tensor]] = {}
    found: list[tuple[Any, Any]] = []
    runs: dict[nn.Module, int] = {}

    def watch(module: nn.Module, inputs: Any, output: Any) -> None:
        runs[module] = runs.get(module, 0) + 1
        if isinstance(module, CONVS) and isinstance(output, torch.Tensor):
            outputs[id(output)] = (module, output)

    def look(module: nn.Module, inputs: Any) -> None:
        source = outputs.get(id(inputs[0])) if inputs else None
        if source is not None and source[1] is inputs[0]:
            found.append((source[0], module))

    handles = []
    for module in model.modules():
        if isinstance(module, CONVS):
            handles.append(module.register_forward_hook(watch))
        elif isinstance(module, BATCH_NORMS):
            handles.append(module.register_forward_pre_hook(look))
            handles.append(module.register_forward_hook(watch))
    try:
        with UseCounter() as uses:
            model(example)
    finally:
        for handle in handles:
            handle.remove()
    readers = {id(layer): uses.count(output) for layer, output in outputs.values()}
    return [
        (layer, norm)
        for layer, norm in found
        if runs[layer] == runs[norm] == 1 and readers[id(layer)] == 1 and _foldable(layer, norm)
    ]


class UseCounter(TorchDispatchMode):
    """Counts in how many operations each tensor is read; keeps tensors alive, so that ids stay unique."""

    def __init__(self) -> None:
        super().__init__()
        self.reads: dict[int, int] = {}
        self.kept: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in _tensors((args, kwargs or {})):
            self.reads[id(tensor)] = self.reads.get(id(tensor), 0) + 1
            self.kept.append(tensor)
        return func(*args, **(kwargs or {}))

    def count(self, tensor: torch.Tensor) -> int:
        return self.reads.get(id(tensor), 0)


def _tensors(value: Any) -> Iterator[torch.Tensor]:
    if isinstance(value, torch.Tensor):
        yield value
    elif isinstance(value, dict):
        yield from _tensors(list(value.values()))
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)


def _foldable(layer: Any, norm: Any) -> bool:
    """Whether the layer's weights may be changed: shared by nothing, and the norm has fixed statistics."""
    return (
        norm.running_mean is not None
        and layer.weight.shape[0] == norm.num_features
        and not hasattr(layer, "parametrizations")
        and type(layer).forward in (kind.forward for kind in CONVS)
    )


def _fold(layer: Any, norm: Any) -> None:
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    if norm.bias is not None:
        shift = shift + norm.bias.double()
    weight = layer.weight.double() * scale.view(-1, *[1] * (layer.weight.ndim - 1))
    bias = shift if layer.bias is None else layer.bias.double() * scale + shift
    dtype = layer.weight.dtype
    layer.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    layer.bias = nn.Parameter(bias.to(dtype), requires_grad=False)


def _replace(model: nn.Module, name: str, norm: Any) -> None:
    """Put what the norm did besides normalizing (an activation, dropout) in its place."""
    rest = [module for module in (getattr(norm, "drop", None), getattr(norm, "act", None)) if module is not None]
    rest = [module for module in rest if not isinstance(module, nn.Identity)]
    replacement = nn.Identity() if not rest else rest[0] if len(rest) == 1 else nn.Sequential(*rest)
    parent, _, attribute = name.rpartition(".")
    setattr(model.get_submodule(parent), attribute, replacement)

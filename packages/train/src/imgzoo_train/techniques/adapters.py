"""Change what of a finished model is trained: freezing and low-rank adapters."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from imgzoo.errors import UsageError
from imgzoo.model.swapping import mixins_of, plain_class, swap_in, swap_out

NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm)


def head_parameters(model: nn.Module) -> set[int]:
    """Ids of the parameters of the classifier."""
    classifier: Any = model.get_classifier()  # type: ignore[operator]
    parts = classifier if isinstance(classifier, (tuple, list)) else [classifier]
    return {id(parameter) for part in parts for parameter in part.parameters()}


class Still:
    """A norm that stays in evaluation mode: its running statistics are fixed, whatever `train()` asks."""

    def train(self, mode: bool = True) -> Any:
        return super().train(False)  # type: ignore[misc]


def freeze(model: nn.Module, what: Sequence[str]) -> None:
    """Stop training of `backbone` (all but the classifier), `norm` layers, or parameters whose name holds a text.

    Norms without a parameter that trains keep their running statistics, in any loop. Raises `UsageError` for a text
    that matches nothing.
    """
    _switch(model, what, False)


def unfreeze(model: nn.Module, what: Sequence[str] | None = None) -> None:
    """Let parameters train again, chosen as by `freeze`, None for all of them; their norms follow batches again."""
    _switch(model, what, True)


def _switch(model: nn.Module, what: Sequence[str] | None, enable: bool) -> None:
    heads = head_parameters(model) if what and "backbone" in what else set()
    for text in [""] if what is None else what:
        chosen = list(_chosen(model, text, heads))
        if not chosen:
            raise UsageError(f"--freeze {text} matches no parameter of this model")
        for parameter in chosen:
            parameter.requires_grad_(enable)
    for module in model.modules():
        own = [parameter.requires_grad for parameter in module.parameters()]
        if isinstance(module, NORMS) and own and not any(own):
            swap_in(module, Still)
            module.eval()
        elif Still in mixins_of(module):
            swap_out(module, Still)
            module.train(model.training)


def _chosen(model: nn.Module, text: str, heads: set[int]) -> Iterable[nn.Parameter]:
    if text == "norm":
        for module in model.modules():
            if isinstance(module, NORMS):
                yield from module.parameters()
        return
    for name, parameter in model.named_parameters():
        if (text == "backbone" and id(parameter) not in heads) or (text != "backbone" and text in name):
            yield parameter


class Adapted:
    """A layer plus a low-rank change of its weight (arXiv:2106.09685); at the start it changes nothing."""

    weight: nn.Parameter
    lora_down: nn.Parameter
    lora_up: nn.Parameter
    lora_scale: float

    def delta(self) -> torch.Tensor:
        """The change of the weight, in its shape; a kernel is seen as an (out, in * height * width) matrix."""
        return ((self.lora_up @ self.lora_down) * self.lora_scale).view_as(self.weight)


class AdaptedLinear(Adapted):
    bias: nn.Parameter | None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return F.linear(input, self.weight + self.delta(), self.bias)


class AdaptedConv2d(Adapted):
    bias: nn.Parameter | None

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(input, self.weight + self.delta(), self.bias)  # type: ignore[attr-defined]


_ADAPTED = {nn.Linear: AdaptedLinear, nn.Conv2d: AdaptedConv2d}


def add_lora(model: nn.Module, rank: int, alpha: float | None = None, layers: Sequence[str] = ()) -> list[str]:
    """Give linear and convolution layers adapters of `rank`, and freeze everything but them and the classifier.

    `layers` limits it to names that hold one of the texts. Grouped convolutions and the classifier are left alone.
    Returns the names of the adapted layers; raises `UsageError` when there is none.
    """
    heads = head_parameters(model)
    adapted: list[str] = []
    modules: list[tuple[str, Any]] = list(model.named_modules())
    for name, module in modules:
        mixin = _ADAPTED.get(plain_class(module))
        if mixin is None or id(module.weight) in heads or getattr(module, "groups", 1) > 1:
            continue
        if layers and not any(text in name for text in layers):
            continue
        _adapt(module, mixin, min(rank, *module.weight.flatten(1).shape), alpha or float(rank))
        adapted.append(name)
    if not adapted:
        raise UsageError("this model has no layer that low-rank adapters fit")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name or id(parameter) in heads)
    return adapted


def _adapt(module: Any, mixin: type, rank: int, alpha: float) -> None:
    out, into = module.weight.flatten(1).shape
    swap_in(module, mixin)
    module.lora_scale = alpha / rank
    module.lora_down = nn.Parameter(module.weight.new_empty(rank, into))
    module.lora_up = nn.Parameter(module.weight.new_zeros(out, rank))
    nn.init.kaiming_uniform_(module.lora_down, a=math.sqrt(5))


@torch.no_grad()
def merge_lora(model: nn.Module) -> nn.Module:
    """Add the adapters into their layers' weights and take them off; outputs stay the same."""
    modules: list[Any] = list(model.modules())
    for module in modules:
        for mixin in _ADAPTED.values():
            if mixin in mixins_of(module):
                module.weight.add_(module.delta())
                del module.lora_down, module.lora_up, module.lora_scale
                swap_out(module, mixin)
    return model

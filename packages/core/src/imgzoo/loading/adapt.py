"""Fit a state dict to a model with another classifier, other input channels, or another grid."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo.errors import WeightsError

State = dict[str, Tensor]


def adapt_input(kernel: Tensor, chans: int, cells: int = 1, planes_apart: bool = False) -> Tensor:
    """Kernels (D, C, ...) for another number of channels: summed to one, else repeated in turn and rescaled.

    Where the image's cells were moved into channels first, the channels of each of the `cells` are adapted;
    they lie side by side, or `planes_apart`.
    """
    if planes_apart:
        turned = adapt_input(_turned(kernel, -1, cells), chans, cells)
        return _turned(turned, cells, -1)
    wide: Any = kernel if kernel.dtype == torch.float64 else kernel.float()
    parts = wide.unflatten(1, (cells, -1))
    source = parts.shape[2]
    if source == chans:
        return kernel
    if chans == 1:
        parts = parts.sum(2, keepdim=True)
    else:
        turns = [chan % source for chan in range(chans)]
        parts = parts[:, :, turns] * (source / chans)
    return parts.flatten(1, 2).to(kernel.dtype)


def _turned(kernel: Any, outer: int, inner: int) -> Tensor:
    """Kernels whose channels are `outer` times `inner`, with the two in the other order."""
    return kernel.unflatten(1, (outer, inner)).transpose(1, 2).flatten(1, 2)


def image_kernels(own: State, chans: int, other: State | None) -> dict[str, int]:
    """Kernels that see the image, with the cells moved into their channels: those that differ in a model (`other`)
    made for another number of channels."""
    if other is None:
        return {}
    changed = (key for key, value in own.items() if key in other and value.shape != other[key].shape)
    return {key: own[key].shape[1] // chans for key in changed if own[key].ndim > 1}


def first_conv(model: Any) -> str:
    """Path of the convolution that sees the image."""
    return next((name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)), "")


def fit_state(
    state: State, model: Any, own: State, label_offset: int = 0, twin: Callable[[int], State | None] | None = None
) -> tuple[State, list[str]]:
    """A copy of `state` fitted to `model`, and a sentence for every change.

    `twin(chans)` gives the tensors of the same network for images of so many channels; without it, the first
    convolution is taken to be all that sees the image.
    """
    notes: list[str] = []
    state = dict(state)
    _fit_pointwise(state, own, notes)
    _fit_input(state, model, own, notes, twin)
    for path in model._heads() if hasattr(model, "_heads") else ():
        _fit_classifier(state, model, path, label_offset, notes)
    if hasattr(model, "fit_state"):
        notes += model.fit_state(state)
    return state, notes


def _fit_pointwise(state: State, own: State, notes: list[str]) -> None:
    """A linear layer (out, in) and a convolution (out, in, 1, 1) of one pixel hold the same."""
    found = [key for key, value in own.items() if key in state and {value.ndim, state[key].ndim} == {2, 4}]
    found = [key for key in found if {own[key].shape[2:], state[key].shape[2:]} == {(), (1, 1)}]
    for key in found:
        state[key] = state[key].reshape(*state[key].shape[:2], *own[key].shape[2:])
    if found:
        notes.append(f"{len(found)} layers turned between linear and convolutions of one pixel")


def _fit_input(
    state: State, model: Any, own: State, notes: list[str], twin: Callable[[int], State | None] | None
) -> None:
    differ = [k for k, v in own.items() if k in state and v.ndim > 1 and _others(v) == _others(state[k])]
    differ = [key for key in differ if state[key].shape[1] != own[key].shape[1]]
    if not differ:
        return
    chans = model.in_chans
    kernels = image_kernels(own, chans, twin(3 if chans != 3 else 4)) if twin is not None else {}
    for key, cells in (kernels or {f"{first_conv(model)}.weight": 1}).items():
        if key in differ and state[key].shape[1] % cells == 0:
            notes.append(f"{key}: {state[key].shape[1] // cells} input channels made {chans}")
            state[key] = adapt_input(state[key], chans, cells, getattr(model, "planes_apart", False))


def _others(x: Tensor) -> tuple[int, ...]:
    """The shape without the axis of input channels."""
    return (*x.shape[:1], *x.shape[2:])


def _fit_classifier(state: State, model: Any, path: str, label_offset: int, notes: list[str]) -> None:
    """Keep the classifier where the classes agree, strip a background class, drop it where they differ."""
    weight = state.get(f"{path}.weight")
    if weight is None:
        return
    keys = [key for key in (f"{path}.weight", f"{path}.bias") if key in state]
    if label_offset and weight.ndim and weight.shape[0] == model.num_classes + label_offset:
        for key in keys:
            state[key] = state[key][label_offset:]
        notes.append(f"{path}: {label_offset} background class stripped")
        return
    own = dict(model.named_modules()).get(path)  # a pruned network has none
    if own is None or isinstance(own, nn.Identity) or tuple(own.weight.shape) != tuple(weight.shape):
        for key in keys:
            del state[key]
        now = model.num_classes or "no"
        held = f"{weight.shape[0]} classes" if weight.ndim else "a single number"
        notes.append(f"{path}: {held} dropped, the model has {now}")


def check_fit(state: State, own: State, name: str) -> tuple[list[str], list[str]]:
    """Names the model has and the state lacks, and the reverse; another shape is a `WeightsError`."""
    wrong = [
        f"{key} is {tuple(value.shape)}, not {tuple(own[key].shape)}"
        for key, value in state.items()
        if key in own and value.shape != own[key].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise WeightsError(f"these weights do not fit {name}: {'; '.join(wrong[:3])}{more}")
    return [key for key in own if key not in state], [key for key in state if key not in own]


def cast_like(state: State, own: State) -> State:
    """Tensors in the model's types: files of half precision become float32 unless the model is half itself."""
    return {k: v if k not in own or v.dtype == own[k].dtype else v.to(own[k].dtype) for k, v in state.items()}

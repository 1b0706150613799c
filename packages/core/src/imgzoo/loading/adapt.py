"""Fit a state dict to a model with another classifier, other input channels, or another grid."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from imgzoo.errors import WeightsError

State = dict[str, Tensor]


def adapt_input(kernel: Tensor, chans: int) -> Tensor:
    """Kernels (D, C, h, w) for another number of channels: summed to one, else repeated in turn and rescaled."""
    source = kernel.shape[1]
    if source == chans:
        return kernel
    dtype, kernel = kernel.dtype, kernel.float()
    if chans == 1:
        return kernel.sum(1, keepdim=True).to(dtype)
    repeats = -(-chans // source)
    return (kernel.repeat(1, repeats, 1, 1)[:, :chans] * (source / chans)).to(dtype)


def first_conv(model: nn.Module) -> str:
    """Path of the convolution that sees the image."""
    return next((name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)), "")


def fit_state(state: State, model: Any, own: State, label_offset: int = 0) -> tuple[State, list[str]]:
    """A copy of `state` fitted to `model`, and a sentence for every change."""
    state, notes = dict(state), []
    _fit_input(state, model, own, notes)
    for path in model._heads() if hasattr(model, "_heads") else ():
        _fit_classifier(state, model, path, label_offset, notes)
    if hasattr(model, "fit_state"):
        notes += model.fit_state(state)
    return state, notes


def _fit_input(state: State, model: Any, own: State, notes: list[str]) -> None:
    """Adapt the first convolution, and with it those beside it that see the image too."""
    first = f"{first_conv(model)}.weight"
    if first not in state or first not in own or state[first].ndim != 4:
        return
    given, wanted = state[first].shape[1], own[first].shape[1]
    if given == wanted:
        return
    for key, kernel in state.items():
        if kernel.ndim == 4 and key in own and kernel.shape[1] == given and own[key].shape[1] == wanted:
            state[key] = adapt_input(kernel, wanted)
            notes.append(f"{key}: {given} input channels made {wanted}")


def _fit_classifier(state: State, model: Any, path: str, label_offset: int, notes: list[str]) -> None:
    """Keep the classifier where the classes agree, strip a background class, drop it where they differ."""
    weight = state.get(f"{path}.weight")
    if weight is None:
        return
    keys = [key for key in (f"{path}.weight", f"{path}.bias") if key in state]
    if label_offset and weight.shape[0] == model.num_classes + label_offset:
        for key in keys:
            state[key] = state[key][label_offset:]
        notes.append(f"{path}: {label_offset} background class stripped")
        return
    own = dict(model.named_modules()).get(path)  # a pruned network has none
    if own is None or isinstance(own, nn.Identity) or tuple(own.weight.shape) != tuple(weight.shape):
        for key in keys:
            del state[key]
        now = model.num_classes or "no"
        notes.append(f"{path}: {weight.shape[0]} classes dropped, the model has {now}")


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

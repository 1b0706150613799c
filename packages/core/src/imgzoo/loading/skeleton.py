"""Build a network without wasting time on initial values: none where weights follow, each once where none do.

A placeholder is ordinary memory that nobody has written to, so it costs address space and nothing else.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial, wraps
from typing import Any

import torch
from torch import Tensor, nn

INITIALIZERS = ("uniform_", "normal_", "trunc_normal_", "constant_", "ones_", "zeros_", "kaiming_uniform_",
                "kaiming_normal_", "xavier_uniform_", "xavier_normal_", "orthogonal_")  # fmt: skip
SMALL = 4096
"""Below so many elements a second initialization costs less than keeping track of the first."""
MARK = 1.7014e-25
"""A value that no initializer draws; with a NaN in front it fills what is to be initialized later."""


class _Build(threading.local):
    """What this thread is building: how many parameters came so far, and which of them are to be real."""

    on = False
    count = 0
    real: Collection[int] = ()
    numbers: dict[int, int]  # id of a placeholder -> its number
    keep: list[Any]  # placeholders stay alive, so that their ids stay theirs
    later: dict[int, tuple[Tensor, Callable[[], Any]]] | None = None  # id of a parameter -> it, its last initializer


_build = _Build()
_lock = threading.Lock()
_builders = 0
_originals: dict[str, Any] = {}


def _register_placeholder(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
    """`register_parameter` that remembers placeholders; buffers are as always, so derived tables are right."""
    if _build.on and param is not None:
        if _build.count not in _build.real:
            _build.numbers[id(param)] = _build.count
            _build.keep.append(param)
        _build.count += 1
    _originals["register_parameter"](self, name, param)


def _unless_placeholder(initialize: Callable[..., Any]) -> Callable[..., Any]:
    """An initializer that leaves placeholders alone, or puts itself off until the network stands."""

    @wraps(initialize)
    def wrapped(tensor: Tensor, *args: Any, **kwargs: Any) -> Any:
        if _build.on and id(tensor) in _build.numbers:
            return tensor
        if _build.later is None or not _can_wait(tensor):
            return initialize(tensor, *args, **kwargs)
        if _build.later.pop(id(tensor), None) is None:
            flat = tensor.detach().view(-1)
            flat.fill_(MARK)[0] = torch.nan
        _build.later[id(tensor)] = (tensor, partial(initialize, tensor, *args, **kwargs))
        return tensor

    return wrapped


def _can_wait(tensor: Tensor) -> bool:
    plain = tensor.is_cpu and tensor.dtype == torch.float32 and tensor.is_contiguous()
    return plain and isinstance(tensor, nn.Parameter) and tensor.numel() >= SMALL


@contextmanager
def _patched() -> Iterator[None]:
    """While any thread builds a skeleton, torch's registration and initializers ask whether it is this thread."""
    global _builders
    with _lock:
        if _builders == 0:
            _originals["register_parameter"] = nn.Module.register_parameter
            nn.Module.register_parameter = _register_placeholder  # type: ignore[method-assign]
            for name in INITIALIZERS:
                _originals[name] = getattr(nn.init, name)
                setattr(nn.init, name, _unless_placeholder(_originals[name]))
        _builders += 1
    try:
        yield
    finally:
        with _lock:
            _builders -= 1
            if _builders == 0:
                nn.Module.register_parameter = _originals["register_parameter"]  # type: ignore[method-assign]
                for name in INITIALIZERS:
                    setattr(nn.init, name, _originals[name])


def build_skeleton(construct: Callable[[], Any], real: Collection[int] = ()) -> tuple[Any, dict[int, int]]:
    """The network `construct` makes with placeholder parameters and real buffers, and numbers by placeholder's id.

    Parameters whose number is in `real` are made and initialized as always.
    """
    state = torch.random.get_rng_state() if not real else None
    with _patched():
        _build.on, _build.count, _build.real, _build.numbers, _build.keep = True, 0, real, {}, []
        try:
            model = construct()
            numbers = _build.numbers
        finally:
            _build.on, _build.keep, _build.numbers = False, [], {}
    if state is not None:
        torch.random.set_rng_state(state)
    return model, numbers


def build_initialized(construct: Callable[[], Any]) -> Any:
    """The network `construct` makes, where a parameter that is initialized twice is filled once.

    Torch's layers fill their weights, and a family then fills them again. Here the last initializer of each parameter
    runs, when the network stands. A constructor that reads or changes weights by other means in between is noticed by
    the marks it disturbs or spreads; it then runs again, as it is.
    """
    state = torch.random.get_rng_state()
    with _patched():
        _build.later = {}
        try:
            model = construct()
            later = _build.later
        finally:
            _build.later = None
    if _undisturbed(model, later):
        for _, initialize in later.values():
            initialize()
        return model
    torch.random.set_rng_state(state)
    return construct()


def _undisturbed(model: Any, later: Mapping[int, tuple[Tensor, Any]]) -> bool:
    """Whether every mark stands as it was set, and none shows in another tensor of the model."""
    for tensor, _ in later.values():
        flat = tensor.detach().view(-1)
        if not flat[0].isnan() or not (flat[1:] == MARK).all():
            return False
    if not isinstance(model, nn.Module):
        return not later
    others = [t.detach() for t in (*model.parameters(), *model.buffers()) if id(t) not in later]
    return not any(t.isnan().any() or (t == MARK).any() for t in others if t.is_floating_point() and not t.is_meta)


def assign(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Put the tensors of `state` into the model as they are, without copying; names and shapes were checked before."""
    for prefix, module in model.named_modules():
        dot = f"{prefix}." if prefix else ""
        for name, param in module._parameters.items():
            value = state.get(dot + name)
            if param is not None and value is not None:
                module._parameters[name] = nn.Parameter(value, requires_grad=param.requires_grad)
        for name in module._buffers:
            value = state.get(dot + name)
            if value is not None and name not in module._non_persistent_buffers_set:
                module._buffers[name] = value

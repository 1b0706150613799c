"""Build a network without spending time on initial values: parameters are placeholders until weights are assigned."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

_active = threading.local()
_register = nn.Module.register_parameter


def _register_placeholder(self: nn.Module, name: str, param: nn.Parameter | None) -> None:
    """`register_parameter` that keeps shape and type only; buffers stay real, so derived tables are right."""
    if getattr(_active, "on", False) and param is not None and not param.is_meta:
        param = nn.Parameter(param.detach().to("meta"), requires_grad=param.requires_grad)
    _register(self, name, param)


@contextmanager
def placeholders() -> Iterator[None]:
    """Within this context (and this thread) new parameters live on the meta device, and initializing them is free."""
    nn.Module.register_parameter = _register_placeholder  # type: ignore[method-assign]
    before = getattr(_active, "on", False)
    _active.on = True
    try:
        yield
    finally:
        _active.on = before


def build_skeleton(construct: Callable[[], Any]) -> Any:
    """The network `construct` makes, with placeholder parameters and real buffers."""
    state = torch.random.get_rng_state()
    try:
        with placeholders():
            return construct()
    finally:
        torch.random.set_rng_state(state)

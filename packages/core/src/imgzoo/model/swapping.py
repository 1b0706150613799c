"""Techniques from outside: a module's class is swapped for one with a mixin in front, its name, keys and state stay.

Several mixins combine on one module; what carries them can be copied, pickled and given to `torch.save`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint


class Swapped:
    """In front of the classes that `swap_in` makes: they are rebuilt from their parts, not found by name."""

    plain_class: type
    mixins: tuple[type, ...]

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return rebuild, (self.plain_class, self.mixins), self.__getstate__()


@cache
def combined(plain: type, mixins: tuple[type, ...]) -> type:
    """The class of `plain` with the mixins in front, the last one outermost; without any it is `plain` itself."""
    if not mixins:
        return plain
    body = {"__module__": plain.__module__, "__qualname__": plain.__qualname__, "__doc__": plain.__doc__}
    body |= {"plain_class": plain, "mixins": mixins}
    return type(plain.__name__, (Swapped, *reversed(mixins), plain), body)  # type: ignore[call-overload]


def rebuild(plain: type, mixins: tuple[type, ...]) -> Any:
    """An empty instance, for copying and unpickling to fill."""
    cls: Any = combined(plain, mixins)
    return cls.__new__(cls)


def plain_class(module: nn.Module) -> type:
    """The class of a module without what was swapped in."""
    return module.plain_class if isinstance(module, Swapped) else type(module)


def mixins_of(module: nn.Module) -> tuple[type, ...]:
    """What was swapped in, in the order it came."""
    return module.mixins if isinstance(module, Swapped) else ()


def swap_in(module: nn.Module, mixin: type) -> None:
    """Put `mixin` in front of the module's class, whose methods it calls by `super()`; twice is once."""
    if mixin not in mixins_of(module):
        module.__class__ = combined(plain_class(module), (*mixins_of(module), mixin))


def swap_out(module: nn.Module, mixin: type) -> None:
    """Take `mixin` away again, wherever it stands among others."""
    if mixin in mixins_of(module):
        module.__class__ = combined(plain_class(module), tuple(m for m in mixins_of(module) if m is not mixin))


class Checkpointed:
    """The forward pass is repeated in the backward pass, instead of keeping what it computed (arXiv:1604.06174)."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        inner = super().forward  # type: ignore[misc]
        return repeated(inner, self, *args, **kwargs) if torch.is_grad_enabled() else inner(*args, **kwargs)  # type: ignore[arg-type]


def repeated(run: Callable[..., Any], module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    """`run(*args)`, repeated in the backward pass, where nothing it writes to buffers of `module` counts again."""
    if torch.compiler.is_compiling():  # a compiler repeats what is computed, not what is written
        return checkpoint(run, *args, use_reentrant=False, **kwargs)

    def contexts() -> tuple[AbstractContextManager[Any], AbstractContextManager[Any]]:
        return nullcontext(), copied_buffers(module)

    return checkpoint(run, *args, use_reentrant=False, context_fn=contexts, **kwargs)


@contextmanager
def copied_buffers(module: nn.Module) -> Iterator[None]:
    """Inside, parts that train have copies of their buffers; afterwards the buffers themselves, as they were."""
    kept = [(part._buffers, dict(part._buffers)) for part in module.modules() if part.training and part._buffers]
    for own, buffers in kept:
        own.update({name: buffer.clone() for name, buffer in buffers.items() if buffer is not None})
    try:
        yield
    finally:
        for own, buffers in kept:
            own.update(buffers)

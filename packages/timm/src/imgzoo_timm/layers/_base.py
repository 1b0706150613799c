"""How adapters are made: native modules under the field's arguments and attributes; networks turn into them."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from types import FunctionType
from typing import Any, TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=type[nn.Module])
ADAPTERS: dict[type[nn.Module], type[nn.Module]] = {}
"""The adapter of each native class that has one: it adds arguments, attributes and methods, and no state."""


def adapter(cls: Module) -> Module:
    """Let modules of a native class, the last base, turn into this one (see `adopt`)."""
    ADAPTERS[cls.__bases__[-1]] = cls
    return cls


def placed(cls: type[nn.Module]) -> Any:
    """Give a constructor the field's last arguments, `device` and `dtype`: where the finished module goes.

    Where it takes any keyword (but for an unread `_`), the two are among those.
    """
    build: Any = cls.__init__

    @functools.wraps(build)
    def __init__(self: nn.Module, *args: Any, device: Any = None, dtype: Any = None, **options: Any) -> None:
        where = torch.device(device) if device is not None else None
        if where is None:
            build(self, *args, **options)
        else:
            with where:
                build(self, *args, **options)
        if dtype is not None:
            self.to(dtype=dtype)

    signature = inspect.signature(build)
    rest = [each for each in signature.parameters.values() if each.kind is each.VAR_KEYWORD]
    own = [each for each in signature.parameters.values() if each.kind is not each.VAR_KEYWORD]
    kind = own[-1].kind if own[-1].kind is own[-1].KEYWORD_ONLY else own[-1].POSITIONAL_OR_KEYWORD
    added = [inspect.Parameter(name, kind, default=None) for name in ("device", "dtype")]
    named = [] if rest and rest[0].name != "_" else added
    __init__.__signature__ = signature.replace(parameters=[*own, *named, *rest])  # type: ignore[attr-defined]
    cls.__init__ = __init__  # type: ignore[method-assign]
    return cls


def adopt(model: nn.Module, own: Mapping[type, type] | None = None) -> nn.Module:
    """Let every module of a finished network that has an adapter be one, in place, where `own` those of its family
    go first; returns the network."""
    adapters: dict[type, type] = {**ADAPTERS, **(own or {})}
    for module in model.modules():
        if type(module) in adapters:
            become(module, adapters[type(module)])
    return model


def become(module: nn.Module, cls: type[nn.Module]) -> None:
    """Turn into a class that adds no state, and remember the native one."""
    module.__dict__["adopted_from"] = type(module)
    module.__class__ = cls


def natively(module: nn.Module) -> nn.Module:
    """The same tree of modules and tensors, what was adopted in its native class: those are what scripts."""
    cls = module.__dict__.get("adopted_from", type(module))
    copy = cls.__new__(cls)
    copy.__dict__.update(module.__dict__)
    copy.__dict__["_modules"] = {
        name: None if child is None else natively(child) for name, child in module._modules.items()
    }
    copy.__dict__.pop("adopted_from", None)
    return copy


def renamed(method: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A method of a base under a name of its own, for a class that replaces it: TorchScript knows no `super()`."""
    same: Any = FunctionType(method.__code__, method.__globals__, name, method.__defaults__, method.__closure__)
    same.__kwdefaults__, same.__annotations__ = method.__kwdefaults__, method.__annotations__
    return same


def two(value: Any) -> tuple[Any, Any]:
    """One setting for two layers, or one each."""
    return tuple(value) if isinstance(value, (tuple, list)) else (value, value)


def made(layer: Any, *args: Any, **options: Any) -> nn.Module:
    """A part by its class or maker; nothing where there is none."""
    return nn.Identity() if layer is None else layer(*args, **options)

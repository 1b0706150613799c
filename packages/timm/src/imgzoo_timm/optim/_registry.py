"""Optimizers under their names: those of imgzoo, and those that a script registers."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

import imgzoo
from imgzoo.errors import UnknownNameError
from imgzoo.registry import registry

from . import _classes
from ._groups import param_groups_layer_decay, param_groups_weight_decay
from ._lookahead import Lookahead

OWN = {each.__bases__[0]: each for each in (*vars(_classes).values(), Lookahead) if isinstance(each, type)
       and issubclass(each, torch.optim.Optimizer)}  # fmt: skip
"""The field's class of each native rule that has one."""


@dataclass(frozen=True)
class OptimInfo:
    """What is known of an optimizer's name."""

    name: str
    opt_class: Any
    description: str = ""
    has_eps: bool = True
    has_momentum: bool = False
    has_betas: bool = False
    num_betas: int = 2
    second_order: bool = False
    defaults: dict[str, Any] | None = None


class OptimizerRegistry:
    """Names of optimizers."""

    def __init__(self) -> None:
        self._optimizers: dict[str, OptimInfo] = {}
        self._foreach_defaults: set[str] = set()

    def register(self, info: OptimInfo) -> None:
        self._optimizers[info.name.lower()] = info

    def register_alias(self, alias: str, target: str) -> None:
        if target.lower() not in self:
            raise KeyError(f"there is no optimizer {target} for the name {alias} to mean")
        self._optimizers[alias.lower()] = self.get_optimizer_info(target)

    def register_foreach_default(self, name: str) -> None:
        """Let an optimizer take torch's `foreach` path unless told."""
        self._foreach_defaults.add(name.lower())

    def __contains__(self, name: str) -> bool:
        return name in self._optimizers

    def described(self) -> dict[str, str]:
        """Names and what they stand for."""
        return {name: info.description for name, info in self._optimizers.items()}

    def list_optimizers(self, filter: str | list[str] = "", exclude_filters: list[str] | None = None,
                        with_description: bool = False) -> list[Any]:  # fmt: skip
        patterns = [filter] if isinstance(filter, str) else list(filter)
        without = [exclude_filters] if isinstance(exclude_filters, str) else list(exclude_filters or ())
        found = self.described()
        names = [name for name in sorted(found)
                 if (not any(patterns) or any(fnmatchcase(name, each) for each in patterns))
                 and not any(fnmatchcase(name, each) for each in without)]  # fmt: skip
        return [(name, found[name]) for name in names] if with_description else names

    def get_optimizer_info(self, name: str) -> OptimInfo:
        if name.lower() not in self._optimizers:
            raise ValueError(f"there is no optimizer {name!r}: `imgzoo list --kind optimizer` names those of imgzoo")
        return self._optimizers[name.lower()]

    def get_optimizer_class(self, name_or_info: str | OptimInfo, bind_defaults: bool = True) -> Any:
        info = self.get_optimizer_info(name_or_info) if isinstance(name_or_info, str) else name_or_info
        made = info.opt_class
        if isinstance(made, str):
            module, _, name = made.rpartition(".")
            made = getattr(importlib.import_module(module), name)
        return partial(made, **info.defaults) if bind_defaults and info.defaults else made

    def create_optimizer(
        self, model_or_params: Any, opt: str, lr: float | None = None, weight_decay: float = 0.0,
        momentum: float = 0.9, foreach: bool | None = None, weight_decay_exclude_1d: bool = True,
        fallback_list: Collection[str] = (), fallback_no_weight_decay: bool = False, layer_decay: float | None = None,
        layer_decay_min_scale: float = 0.0, layer_decay_no_opt_scale: float | None = None,
        param_group_fn: Callable[..., Any] | None = None, **kwargs: Any,
    ) -> torch.optim.Optimizer:  # fmt: skip
        """The optimizer of a name, behind `lookahead_` one that looks ahead; what it does not have is left out."""
        name = opt.lower().removeprefix("lookahead_")
        info = self.get_optimizer_info(name)
        made = self.get_optimizer_class(info)
        options = taken(info, momentum, kwargs)
        if foreach is None and name in self._foreach_defaults:
            foreach = True
        if foreach is not None:
            options["foreach"] = foreach
        if lr is not None:
            options["lr"] = lr
        fallback = {"fallback_list": fallback_list, "fallback_no_weight_decay": fallback_no_weight_decay}
        params: Any = params_of(model_or_params)
        if not isinstance(params, nn.Module):
            options["weight_decay"] = weight_decay
        elif param_group_fn is not None:
            params, options["weight_decay"] = param_group_fn(params), weight_decay
        else:
            unweighed = getattr(params, "no_weight_decay", set)()
            common = {"no_weight_decay_list": unweighed, "weight_decay_exclude_1d": weight_decay_exclude_1d, **fallback}
            params = param_groups_weight_decay(params, weight_decay, **common) if layer_decay is None else \
                param_groups_layer_decay(params, weight_decay, layer_decay=layer_decay, min_scale=layer_decay_min_scale,
                                         no_opt_scale=layer_decay_no_opt_scale, **common)  # fmt: skip
        optimizer = made(params, **options)
        return Lookahead(optimizer) if opt.lower().startswith("lookahead_") else optimizer


def params_of(model_or_params: Any) -> Any:
    """A network, or a list of what can be gone through once."""
    if isinstance(model_or_params, Tensor):
        raise TypeError("parameters are given as several: a list, a generator or groups")
    return model_or_params if isinstance(model_or_params, nn.Module) else list(model_or_params)


def taken(info: OptimInfo, momentum: float, given: dict[str, Any]) -> dict[str, Any]:
    """The options that were given, without those that an optimizer does not have."""
    options = {key: value for key, value in given.items() if value is not None}
    for word, has in (("eps", info.has_eps), ("betas", info.has_betas)):
        if not has:
            options.pop(word, None)
    return options | ({"momentum": momentum} if info.has_momentum else {})


def by_foreach(foreach: bool, shown: Any, native: Any) -> dict[str, bool]:
    """The option `foreach` for a native rule: one whose steps are batched anyway needs none."""
    if "foreach" in inspect.signature(native).parameters:
        return {"foreach": foreach}
    if "foreach" not in inspect.signature(shown).parameters:
        raise TypeError(f"{shown.__name__} has no foreach: leave it out")
    return {}


class Catalog(OptimizerRegistry):
    """Names that nobody registered are imgzoo's."""

    def __contains__(self, name: str) -> bool:
        return name in self._optimizers or name in registry("optimizers").listed()

    def described(self) -> dict[str, str]:
        own = {name: spec.help for name, spec in registry("optimizers").listed().items()}
        return own | super().described()

    def get_optimizer_info(self, name: str) -> OptimInfo:
        if name.lower() in self._optimizers:
            return super().get_optimizer_info(name)
        try:
            spec = registry("optimizers").resolve(name.lower())
        except UnknownNameError as error:
            raise ValueError(str(error)) from error
        native = spec.load()
        return OptimInfo(spec.name, OWN.get(native, native), spec.help, "eps" in spec.traits,
                         "momentum" in spec.traits, "betas" in spec.traits, 3 if "adan" in spec.name else 2,
                         "second-order" in spec.traits, dict(spec.kwargs) or None)  # fmt: skip

    def create_optimizer(
        self, model_or_params: Any, opt: str, lr: float | None = None, weight_decay: float = 0.0,
        momentum: float = 0.9, foreach: bool | None = None, weight_decay_exclude_1d: bool = True,
        fallback_list: Collection[str] = (), fallback_no_weight_decay: bool = False, layer_decay: float | None = None,
        layer_decay_min_scale: float = 0.0, layer_decay_no_opt_scale: float | None = None,
        param_group_fn: Callable[..., Any] | None = None, **kwargs: Any,
    ) -> torch.optim.Optimizer:  # fmt: skip
        name = opt.lower().removeprefix("lookahead_")
        if name in self._optimizers:
            return super().create_optimizer(
                model_or_params, opt, lr, weight_decay, momentum, foreach, weight_decay_exclude_1d, fallback_list,
                fallback_no_weight_decay, layer_decay, layer_decay_min_scale, layer_decay_no_opt_scale, param_group_fn,
                **kwargs)  # fmt: skip
        info = self.get_optimizer_info(name)
        options, native = taken(info, momentum, kwargs), registry("optimizers").resolve(name).load()
        if foreach is not None:
            options |= by_foreach(foreach, info.opt_class, native)
        shown = inspect.signature(info.opt_class).parameters.keys()
        own = {key: options.pop(key) for key in options.keys() & _classes.UNUSED & shown}
        options |= _classes.without_unused(name, own, inspect.signature(native).parameters.keys())
        model = params_of(model_or_params)
        if isinstance(model, nn.Module):
            if layer_decay is not None and param_group_fn is None:
                param_group_fn = partial(
                    param_groups_layer_decay, weight_decay=weight_decay, layer_decay=layer_decay,
                    weight_decay_exclude_1d=weight_decay_exclude_1d, min_scale=layer_decay_min_scale,
                    no_opt_scale=layer_decay_no_opt_scale, fallback_list=fallback_list,
                    fallback_no_weight_decay=fallback_no_weight_decay)  # fmt: skip
                layer_decay, fallback_list, fallback_no_weight_decay = None, (), False
            options |= dict(layer_decay=layer_decay, layer_decay_min_scale=layer_decay_min_scale,
                            layer_decay_no_opt_scale=layer_decay_no_opt_scale,
                            filter_bias_and_bn=weight_decay_exclude_1d, param_group_fn=param_group_fn)  # fmt: skip
        if fallback_list:
            options["fallback"] = tuple(fallback_list)
        made = imgzoo.create_optimizer(opt, model, lr=lr, weight_decay=weight_decay,
                                       fallback_no_weight_decay=fallback_no_weight_decay, **options)  # fmt: skip
        for each in innermost(made):
            each.__class__ = OWN.get(type(each), type(each))
        for group in made.param_groups:
            if "base_lr" in group:  # as in the field, schedulers and scripts multiply by `lr_scale`
                group["lr"] = group.pop("base_lr")
        return made


def innermost(optimizer: Any) -> Iterator[Any]:
    """An optimizer, and what it wraps."""
    while optimizer is not None:
        yield optimizer
        optimizer = getattr(optimizer, "optimizer", None)


default_registry = Catalog()

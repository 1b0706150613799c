"""Optimizers by name, and groups of parameters."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import nn

import imgzoo
from imgzoo.errors import UnknownNameError
from imgzoo.registry import registry
from imgzoo_optim.groups import decay_groups


def create_optimizer_v2(
    model_or_params: Any, opt: str = "sgd", lr: float | None = None, weight_decay: float = 0.0, momentum: float = 0.9,
    foreach: bool | None = None, filter_bias_and_bn: bool = True, fallback_list: Collection[str] = (),
    fallback_no_weight_decay: bool = False, layer_decay: float | None = None, layer_decay_min_scale: float = 0.0,
    layer_decay_no_opt_scale: float | None = None, param_group_fn: Callable[..., Any] | None = None, **kwargs: Any,
) -> torch.optim.Optimizer:  # fmt: skip
    """`imgzoo.create_optimizer` in the field's order of arguments."""
    options = {key: value for key, value in kwargs.items() if value is not None}
    if foreach is not None and "foreach" in traits(opt):
        options["foreach"] = foreach
    if "momentum" in traits(opt):
        options["momentum"] = momentum
    model = params_of(model_or_params)
    if isinstance(model, nn.Module):
        options |= dict(layer_decay=layer_decay, layer_decay_min_scale=layer_decay_min_scale,
                        layer_decay_no_opt_scale=layer_decay_no_opt_scale, filter_bias_and_bn=filter_bias_and_bn,
                        param_group_fn=param_group_fn)  # fmt: skip
    if fallback_list:
        options["fallback"] = tuple(fallback_list)
    return imgzoo.create_optimizer(opt, model, lr=lr, weight_decay=weight_decay,
                                   fallback_no_weight_decay=fallback_no_weight_decay, **options)  # fmt: skip


def params_of(model_or_params: Any) -> Any:
    return model_or_params if isinstance(model_or_params, nn.Module) else list(model_or_params)


def traits(name: str) -> frozenset[str]:
    return registry("optimizers").resolve(name.lower().removeprefix("lookahead_")).traits


def optimizer_kwargs(cfg: Any) -> dict[str, Any]:
    """Arguments of `create_optimizer_v2` from a script's options (`opt`, `lr`, `opt_eps`, ...)."""
    kwargs = {name: getattr(cfg, name) for name in ("opt", "lr", "weight_decay", "momentum")}
    for name, key in (("opt_eps", "eps"), ("opt_betas", "betas"), ("layer_decay", "layer_decay"),
                      ("layer_decay_min_scale", "layer_decay_min_scale"),
                      ("layer_decay_no_opt_scale", "layer_decay_no_opt_scale"), ("opt_args", None),
                      ("opt_foreach", "foreach")):  # fmt: skip
        value = getattr(cfg, name, None)
        if value is not None:
            kwargs |= {key: value} if key else dict(value)
    return kwargs


def create_optimizer(args: Any, model: Any, filter_bias_and_bn: bool = True) -> torch.optim.Optimizer:
    return create_optimizer_v2(model, **optimizer_kwargs(cfg=args), filter_bias_and_bn=filter_bias_and_bn)


def param_groups_weight_decay(
    model: nn.Module, weight_decay: float = 1e-5, weight_decay_exclude_1d: bool = True,
    no_weight_decay_list: Collection[str] = (), fallback_list: Collection[str] = (),
    fallback_no_weight_decay: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """Parameters with and without decay."""
    groups = decay_groups(model, weight_decay, exclude=weight_decay_exclude_1d,
                          no_weight_decay=tuple(no_weight_decay_list), fallback=tuple(fallback_list),
                          fallback_no_weight_decay=fallback_no_weight_decay)  # fmt: skip
    return sorted(groups, key=lambda group: group["weight_decay"] != 0)


def param_groups_layer_decay(
    model: nn.Module, weight_decay: float = 0.05, no_weight_decay_list: Collection[str] = (),
    fallback_list: Collection[str] = (), fallback_no_weight_decay: bool = False, weight_decay_exclude_1d: bool = True,
    layer_decay: float = 0.75, min_scale: float = 0.0, no_opt_scale: float | None = None, verbose: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """Parameters by layer, each with the share `lr_scale` of the rate."""
    return decay_groups(model, weight_decay, exclude=weight_decay_exclude_1d,
                        no_weight_decay=tuple(no_weight_decay_list), fallback=tuple(fallback_list),
                        fallback_no_weight_decay=fallback_no_weight_decay, layer_decay=layer_decay,
                        layer_decay_min_scale=min_scale, layer_decay_no_opt_scale=no_opt_scale)  # fmt: skip


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


def get_optimizer_info(name: str) -> OptimInfo:
    try:
        spec = registry("optimizers").resolve(name.lower())
    except UnknownNameError as error:
        raise ValueError(str(error)) from error
    return OptimInfo(spec.name, spec.load(), spec.help, "eps" in spec.traits, "momentum" in spec.traits,
                     "betas" in spec.traits, 3 if spec.name.startswith("adan") else 2,
                     "second-order" in spec.traits, dict(spec.kwargs) or None)  # fmt: skip


def get_optimizer_class(name: str, bind_defaults: bool = True) -> Any:
    info = get_optimizer_info(name)
    return partial(info.opt_class, **info.defaults) if bind_defaults and info.defaults else info.opt_class


def list_optimizers(filter: str | Iterable[str] = "", exclude_filters: Iterable[str] | None = None,
                    with_description: bool = False) -> list[Any]:  # fmt: skip
    patterns = [filter] if isinstance(filter, str) else list(filter)
    without = [exclude_filters] if isinstance(exclude_filters, str) else list(exclude_filters or ())
    specs = registry("optimizers").listed()
    names = [name for name in sorted(specs)
             if (not any(patterns) or any(fnmatchcase(name, each) for each in patterns))
             and not any(fnmatchcase(name, each) for each in without)]  # fmt: skip
    return [(name, specs[name].help) for name in names] if with_description else names

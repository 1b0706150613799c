"""Optimizers by name."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

import torch

from ._registry import OptimInfo, default_registry


def create_optimizer_v2(
    model_or_params: Any, opt: str = "sgd", lr: float | None = None, weight_decay: float = 0.0, momentum: float = 0.9,
    foreach: bool | None = None, filter_bias_and_bn: bool = True, fallback_list: Collection[str] = (),
    fallback_no_weight_decay: bool = False, layer_decay: float | None = None, layer_decay_min_scale: float = 0.0,
    layer_decay_no_opt_scale: float | None = None, param_group_fn: Callable[..., Any] | None = None, **kwargs: Any,
) -> torch.optim.Optimizer:  # fmt: skip
    """`imgzoo.create_optimizer` in the field's order of arguments; names are those of `default_registry`."""
    return default_registry.create_optimizer(
        model_or_params, opt, lr, weight_decay, momentum, foreach, filter_bias_and_bn, fallback_list,
        fallback_no_weight_decay, layer_decay, layer_decay_min_scale, layer_decay_no_opt_scale, param_group_fn,
        **kwargs)  # fmt: skip


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


def get_optimizer_info(name: str) -> OptimInfo:
    return default_registry.get_optimizer_info(name)


def get_optimizer_class(name: str, bind_defaults: bool = True) -> Any:
    return default_registry.get_optimizer_class(name, bind_defaults)


def list_optimizers(filter: str | list[str] = "", exclude_filters: list[str] | None = None,
                    with_description: bool = False) -> list[Any]:  # fmt: skip
    return default_registry.list_optimizers(filter, exclude_filters, with_description)

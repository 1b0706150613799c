"""Norms, and norms with activation, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from imgzoo_layers.norm import FrozenBatchNorm2d

from . import _norm_forms as forms
from ._norm import (
    BatchNormAct2d,
    FrozenBatchNormAct2d,
    GroupNorm,
    GroupNorm1,
    GroupNorm1Act,
    GroupNormAct,
    LayerNorm,
    LayerNorm2d,
    LayerNormAct2d,
    LayerNormFp32,
    RmsNorm,
    RmsNorm2d,
    RmsNormAct2d,
    SimpleNorm,
    SimpleNorm2d,
)

NORMS: dict[str, Any] = {
    "batchnorm": nn.BatchNorm2d, "batchnorm1d": nn.BatchNorm1d, "batchnorm2d": nn.BatchNorm2d, "groupnorm": GroupNorm,
    "groupnorm1": GroupNorm1, "layernorm": LayerNorm, "layernorm2d": LayerNorm2d, "layernormfp32": LayerNormFp32,
    "layernorm2dfp32": forms.LayerNorm2dFp32, "rmsnorm": RmsNorm, "rmsnorm2d": RmsNorm2d,
    "rmsnormfp32": forms.RmsNormFp32, "rmsnorm2dfp32": forms.RmsNorm2dFp32, "simplenorm": SimpleNorm,
    "simplenorm2d": SimpleNorm2d, "simplenormfp32": forms.SimpleNormFp32, "simplenorm2dfp32": forms.SimpleNorm2dFp32,
    "frozenbatchnorm2d": FrozenBatchNorm2d,
}  # fmt: skip
NORM_ACTS: dict[str, Any] = {
    "batchnorm": BatchNormAct2d, "batchnorm2d": BatchNormAct2d, "groupnorm": GroupNormAct,
    "groupnorm1": GroupNorm1Act, "layernorm": forms.LayerNormAct, "layernorm2d": LayerNormAct2d,
    "layernormfp32": forms.LayerNormActFp32, "layernorm2dfp32": forms.LayerNormAct2dFp32, "rmsnorm": forms.RmsNormAct,
    "rmsnorm2d": RmsNormAct2d, "rmsnormfp32": forms.RmsNormActFp32, "rmsnorm2dfp32": forms.RmsNormAct2dFp32,
    "frozenbatchnorm": FrozenBatchNormAct2d, "frozenbatchnorm2d": FrozenBatchNormAct2d,
    "evonormb0": forms.EvoNorm2dB0, "evonormb1": forms.EvoNorm2dB1, "evonormb2": forms.EvoNorm2dB2,
    "evonorms0": forms.EvoNorm2dS0, "evonorms0a": forms.EvoNorm2dS0a, "evonorms1": forms.EvoNorm2dS1,
    "evonorms1a": forms.EvoNorm2dS1a, "evonorms2": forms.EvoNorm2dS2, "evonorms2a": forms.EvoNorm2dS2a,
    "frn": forms.FilterResponseNormAct2d, "frntlu": forms.FilterResponseNormTlu2d,
}  # fmt: skip
WITH_ACT: dict[Any, Any] = {nn.BatchNorm2d: BatchNormAct2d, nn.GroupNorm: GroupNormAct, GroupNorm: GroupNormAct,
                            GroupNorm1: GroupNorm1Act, nn.LayerNorm: forms.LayerNormAct,
                            LayerNorm: forms.LayerNormAct, LayerNorm2d: LayerNormAct2d,
                            LayerNormFp32: forms.LayerNormActFp32, forms.LayerNorm2dFp32: forms.LayerNormAct2dFp32,
                            RmsNorm: forms.RmsNormAct, RmsNorm2d: RmsNormAct2d,
                            forms.RmsNormFp32: forms.RmsNormActFp32,
                            forms.RmsNorm2dFp32: forms.RmsNormAct2dFp32}  # fmt: skip


def _named(table: dict[str, Any], name: str) -> Any:
    key = name.replace("_", "").lower().partition("-")[0]
    if key not in table:
        raise ValueError(f"unknown norm '{name}'; use one of {', '.join(table)}")
    return table[key]


def get_norm_layer(norm_layer: Any) -> Callable[..., nn.Module] | None:
    """The norm of a name, or of a norm with activation; a `partial` keeps its keywords."""
    if norm_layer is None or norm_layer == "":
        return None
    if isinstance(norm_layer, partial):
        return partial(get_norm_layer(norm_layer.func), *norm_layer.args, **norm_layer.keywords)  # type: ignore[arg-type]
    if isinstance(norm_layer, str):
        return _named(NORMS, norm_layer)
    plain = {acting: norm for norm, acting in reversed(WITH_ACT.items())}
    return plain.get(norm_layer, norm_layer)


def create_norm_layer(layer_name: Any, num_features: int, **kwargs: Any) -> nn.Module:
    layer = get_norm_layer(layer_name)
    return nn.Identity() if layer is None else layer(num_features, **kwargs)


def get_norm_act_layer(norm_layer: Any, act_layer: Any = None) -> Any:
    """The norm with activation of a name or a plain norm; `act_layer` is bound to it."""
    if norm_layer is None or norm_layer == "":
        return None
    kwargs: dict[str, Any] = {}
    while isinstance(norm_layer, partial):
        kwargs, norm_layer = {**norm_layer.keywords, **kwargs}, norm_layer.func
    found = _named(NORM_ACTS, norm_layer) if isinstance(norm_layer, str) else WITH_ACT.get(norm_layer, norm_layer)
    if act_layer is not None:
        kwargs.setdefault("act_layer", act_layer)
    return partial(found, **kwargs) if kwargs else found


def create_norm_act_layer(layer_name: Any, num_features: int, act_layer: Any = None, apply_act: bool = True,
                          jit: bool = False, **kwargs: Any) -> nn.Module:  # fmt: skip
    if jit:
        raise ValueError("norms are scripted with their network here: leave jit out, and script that")
    return get_norm_act_layer(layer_name, act_layer)(num_features, apply_act=apply_act, **kwargs)

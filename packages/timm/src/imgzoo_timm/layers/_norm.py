"""Norms, norms with activations, and both by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from imgzoo_layers import norm as native
from imgzoo_layers import norm_act

from ._act import get_act_layer
from ._base import adapter, placed

Kwargs = dict[str, Any] | None


def _acting(module: nn.Module, apply_act: bool, act_layer: Any, act_kwargs: Kwargs, inplace: bool, drop: Any) -> None:
    """Put in the activation, and the dropped blocks before it."""
    layer = get_act_layer(act_layer) if apply_act else None
    options = dict(act_kwargs or {})
    if layer is None:
        module.act = nn.Identity()
    else:
        try:
            module.act = layer(**{"inplace": inplace, **options})
        except TypeError:
            module.act = layer(**options)
    if drop is not None:
        module.act = nn.Sequential(drop(), module.act)  # type: ignore[arg-type]


@adapter
@placed
class LayerNorm(native.LayerNorm):
    def __init__(self, num_channels: int, eps: float = 1e-6, affine: bool = True, **kwargs: Any):
        super().__init__(num_channels, eps, affine)


@adapter
@placed
class LayerNorm2d(native.LayerNorm2d):
    def __init__(self, num_channels: int, eps: float = 1e-6, affine: bool = True, **kwargs: Any):
        super().__init__(num_channels, eps, affine)


@adapter
@placed
class LayerNormFp32(native.LayerNormFp32):
    def __init__(self, num_channels: int, eps: float = 1e-6, affine: bool = True, **kwargs: Any):
        super().__init__(num_channels, eps, affine)


@adapter
@placed
class GroupNorm(native.GroupNorm):
    def __init__(self, num_channels: int, num_groups: int = 32, eps: float = 1e-5, affine: bool = True, **kwargs: Any):
        super().__init__(num_channels, num_groups, eps, affine)


@adapter
@placed
class GroupNorm1(native.GroupNorm1):
    def __init__(self, num_channels: int, **kwargs: Any):
        super().__init__(num_channels, kwargs.get("eps", 1e-5), kwargs.get("affine", True))


@adapter
@placed
class RmsNorm(native.RmsNorm):
    def __init__(self, channels: int, eps: float = 1e-6, affine: bool = True):
        super().__init__(channels, eps, affine)


@adapter
@placed
class RmsNorm2d(native.RmsNorm2d):
    def __init__(self, channels: int, eps: float = 1e-6, affine: bool = True):
        super().__init__(channels, eps, affine)


@adapter
@placed
class SimpleNorm(native.SimpleNorm):
    def __init__(self, channels: int, eps: float = 1e-6, affine: bool = True):
        super().__init__(channels, eps, affine)


@adapter
@placed
class SimpleNorm2d(native.SimpleNorm2d):
    def __init__(self, channels: int, eps: float = 1e-6, affine: bool = True):
        super().__init__(channels, eps, affine)


@adapter
@placed
class BatchNormAct2d(norm_act.BatchNormAct2d):
    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True,
                 track_running_stats: bool = True, apply_act: bool = True, act_layer: Any = nn.ReLU,
                 act_kwargs: Kwargs = None, inplace: bool = True, drop_layer: Any = None):  # fmt: skip
        super().__init__(num_features, eps, momentum, None, False)
        if not affine or not track_running_stats:
            nn.BatchNorm2d.__init__(self, num_features, eps, momentum, affine, track_running_stats)
        _acting(self, apply_act, act_layer, act_kwargs, inplace, drop_layer)


@adapter
@placed
class GroupNormAct(norm_act.GroupNormAct):
    def __init__(self, num_channels: int, num_groups: int = 32, eps: float = 1e-5, affine: bool = True,
                 group_size: int | None = None, apply_act: bool = True, act_layer: Any = nn.ReLU,
                 act_kwargs: Kwargs = None, inplace: bool = True, drop_layer: Any = None):  # fmt: skip
        super().__init__(num_channels, num_groups, eps, group_size, None, False)
        _acting(self, apply_act, act_layer, act_kwargs, inplace, drop_layer)


@adapter
@placed
class GroupNorm1Act(norm_act.GroupNorm1Act):
    def __init__(self, num_channels: int, eps: float = 1e-5, affine: bool = True, apply_act: bool = True,
                 act_layer: Any = nn.ReLU, act_kwargs: Kwargs = None, inplace: bool = True,
                 drop_layer: Any = None):  # fmt: skip
        super().__init__(num_channels, eps, None, False)
        _acting(self, apply_act, act_layer, act_kwargs, inplace, drop_layer)


@adapter
@placed
class LayerNormAct2d(norm_act.LayerNormAct2d):
    def __init__(self, num_channels: int, eps: float = 1e-5, affine: bool = True, apply_act: bool = True,
                 act_layer: Any = nn.ReLU, act_kwargs: Kwargs = None, inplace: bool = True, drop_layer: Any = None,
                 **kwargs: Any):  # fmt: skip
        super().__init__(num_channels, eps, None, False)
        _acting(self, apply_act, act_layer, act_kwargs, inplace, drop_layer)


@adapter
@placed
class RmsNormAct2d(norm_act.RmsNormAct2d):
    def __init__(self, num_channels: int, eps: float = 1e-6, affine: bool = True, apply_act: bool = True,
                 act_layer: Any = nn.ReLU, act_kwargs: Kwargs = None, inplace: bool = True, drop_layer: Any = None,
                 **kwargs: Any):  # fmt: skip
        super().__init__(num_channels, eps, None, False)
        _acting(self, apply_act, act_layer, act_kwargs, inplace, drop_layer)


@placed
class FrozenBatchNormAct2d(native.FrozenBatchNorm2d):
    """Batch norm whose statistics and affine are buffers, then the activation."""

    def __init__(self, num_features: int, eps: float = 1e-5, apply_act: bool = True, act_layer: Any = nn.ReLU,
                 act_kwargs: Kwargs = None, inplace: bool = True, drop_layer: Any = None):  # fmt: skip
        super().__init__(num_features, eps)
        _acting(self, apply_act, act_layer, act_kwargs, inplace, drop_layer)

    def forward(self, x: Any) -> Any:
        return self.act(super().forward(x))  # type: ignore[operator]


NORMS: dict[str, Any] = {
    "batchnorm": nn.BatchNorm2d, "batchnorm1d": nn.BatchNorm1d, "batchnorm2d": nn.BatchNorm2d, "groupnorm": GroupNorm,
    "groupnorm1": GroupNorm1, "layernorm": LayerNorm, "layernorm2d": LayerNorm2d, "layernormfp32": LayerNormFp32,
    "rmsnorm": RmsNorm, "rmsnorm2d": RmsNorm2d, "simplenorm": SimpleNorm, "simplenorm2d": SimpleNorm2d,
    "frozenbatchnorm2d": native.FrozenBatchNorm2d,
}  # fmt: skip
NORM_ACTS: dict[str, Any] = {
    "batchnorm": BatchNormAct2d, "batchnorm2d": BatchNormAct2d, "groupnorm": GroupNormAct,
    "groupnorm1": GroupNorm1Act, "layernorm2d": LayerNormAct2d, "rmsnorm2d": RmsNormAct2d,
    "frozenbatchnorm": FrozenBatchNormAct2d, "frozenbatchnorm2d": FrozenBatchNormAct2d,
}  # fmt: skip
WITH_ACT: dict[Any, Any] = {nn.BatchNorm2d: BatchNormAct2d, nn.GroupNorm: GroupNormAct, GroupNorm: GroupNormAct,
                            GroupNorm1: GroupNorm1Act, LayerNorm2d: LayerNormAct2d,
                            RmsNorm2d: RmsNormAct2d}  # fmt: skip


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
    return get_norm_act_layer(layer_name, act_layer)(num_features, apply_act=apply_act, **kwargs)

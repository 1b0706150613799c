"""Norms and norms with activation."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from imgzoo_layers import norm as native
from imgzoo_layers import norm_act

from ._act import get_act_layer
from ._base import adapter, placed, renamed

Kwargs = dict[str, Any] | None


def nothing_else(module: nn.Module, kwargs: dict[str, Any]) -> None:
    """Refuse keywords that a constructor which takes any has no use for."""
    if kwargs:
        raise TypeError(f"{type(module).__name__} takes no {', '.join(kwargs)}")


def without_affine(norm: nn.Module) -> None:
    """Take scale and shift away from a norm."""
    for name in [name for name in ("weight", "bias") if name in norm._parameters]:
        norm.register_parameter(name, None)
    for name in [name for name in ("affine", "elementwise_affine") if hasattr(norm, name)]:
        setattr(norm, name, False)


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
        nothing_else(self, kwargs)
        super().__init__(num_channels, eps, affine)


@adapter
@placed
class LayerNorm2d(native.LayerNorm2d):
    def __init__(self, num_channels: int, eps: float = 1e-6, affine: bool = True, **kwargs: Any):
        nothing_else(self, kwargs)
        super().__init__(num_channels, eps, affine)


@adapter
@placed
class LayerNormFp32(native.LayerNormFp32):
    def __init__(self, num_channels: int, eps: float = 1e-6, affine: bool = True, **kwargs: Any):
        nothing_else(self, kwargs)
        super().__init__(num_channels, eps, affine)


@adapter
@placed
class GroupNorm(native.GroupNorm):
    def __init__(self, num_channels: int, num_groups: int = 32, eps: float = 1e-5, affine: bool = True, **kwargs: Any):
        nothing_else(self, kwargs)
        super().__init__(num_channels, num_groups, eps, affine)


@adapter
@placed
class GroupNorm1(native.GroupNorm1):
    def __init__(self, num_channels: int, **kwargs: Any):
        eps, affine = kwargs.pop("eps", 1e-5), kwargs.pop("affine", True)
        nothing_else(self, kwargs)
        super().__init__(num_channels, eps, affine)


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
        if not track_running_stats:
            self.track_running_stats = False
            self.running_mean = self.running_var = self.num_batches_tracked = None
        if not affine:
            without_affine(self)
        _acting(self, apply_act, act_layer, act_kwargs, inplace, drop_layer)


@adapter
@placed
class GroupNormAct(norm_act.GroupNormAct):
    def __init__(self, num_channels: int, num_groups: int = 32, eps: float = 1e-5, affine: bool = True,
                 group_size: int | None = None, apply_act: bool = True, act_layer: Any = nn.ReLU,
                 act_kwargs: Kwargs = None, inplace: bool = True, drop_layer: Any = None):  # fmt: skip
        super().__init__(num_channels, num_groups, eps, group_size, None, False)
        if not affine:
            without_affine(self)
        _acting(self, apply_act, act_layer, act_kwargs, inplace, drop_layer)


@adapter
@placed
class GroupNorm1Act(norm_act.GroupNorm1Act):
    def __init__(self, num_channels: int, eps: float = 1e-5, affine: bool = True, apply_act: bool = True,
                 act_layer: Any = nn.ReLU, act_kwargs: Kwargs = None, inplace: bool = True,
                 drop_layer: Any = None):  # fmt: skip
        super().__init__(num_channels, eps, None, False)
        if not affine:
            without_affine(self)
        _acting(self, apply_act, act_layer, act_kwargs, inplace, drop_layer)


@adapter
@placed
class LayerNormAct2d(norm_act.LayerNormAct2d):
    def __init__(self, num_channels: int, eps: float = 1e-5, affine: bool = True, apply_act: bool = True,
                 act_layer: Any = nn.ReLU, act_kwargs: Kwargs = None, inplace: bool = True, drop_layer: Any = None,
                 **kwargs: Any):  # fmt: skip
        nothing_else(self, kwargs)
        super().__init__(num_channels, eps, None, False)
        if not affine:
            without_affine(self)
        _acting(self, apply_act, act_layer, act_kwargs, inplace, drop_layer)


@adapter
@placed
class RmsNormAct2d(norm_act.RmsNormAct2d):
    def __init__(self, num_channels: int, eps: float = 1e-6, affine: bool = True, apply_act: bool = True,
                 act_layer: Any = nn.ReLU, act_kwargs: Kwargs = None, inplace: bool = True, drop_layer: Any = None,
                 **kwargs: Any):  # fmt: skip
        nothing_else(self, kwargs)
        super().__init__(num_channels, eps, None, False)
        if not affine:
            without_affine(self)
        _acting(self, apply_act, act_layer, act_kwargs, inplace, drop_layer)


@placed
class FrozenBatchNormAct2d(native.FrozenBatchNorm2d):
    """Batch norm whose statistics and affine are buffers, then the activation."""

    def __init__(self, num_features: int, eps: float = 1e-5, apply_act: bool = True, act_layer: Any = nn.ReLU,
                 act_kwargs: Kwargs = None, inplace: bool = True, drop_layer: Any = None):  # fmt: skip
        super().__init__(num_features, eps)
        _acting(self, apply_act, act_layer, act_kwargs, inplace, drop_layer)

    normed = renamed(native.FrozenBatchNorm2d.forward, "normed")

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.normed(x))  # type: ignore[operator]

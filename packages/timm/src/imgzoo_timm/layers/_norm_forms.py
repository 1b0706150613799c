"""Norms in float32, further norms with activation, and those that are their own activation."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo_layers import evo_norm, evo_norm_batch, fast_norm
from imgzoo_layers import norm_act as native

from ._act import create_act_layer, get_act_layer
from ._base import placed, renamed
from ._norm import Kwargs, LayerNorm, LayerNorm2d, LayerNormFp32, RmsNorm, SimpleNorm, _acting


def wide(weight: Tensor | None) -> Tensor | None:
    return None if weight is None else weight.float()


class LayerNorm2dFp32(LayerNorm2d):
    def forward(self, x: Tensor) -> Tensor:
        y = x.permute(0, 2, 3, 1).float()
        y = F.layer_norm(y, self.normalized_shape, wide(self.weight), wide(self.bias), self.eps)
        return y.permute(0, 3, 1, 2).to(x.dtype)


class RmsNormFp32(RmsNorm):
    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), self.dim, wide(self.weight), self.eps).to(x.dtype)


class RmsNorm2dFp32(RmsNormFp32):
    last = renamed(RmsNormFp32.forward, "last")

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class SimpleNormFp32(SimpleNorm):
    def forward(self, x: Tensor) -> Tensor:
        y, weight = x.float(), wide(self.weight)
        y = y * (y.var(dim=-1, keepdim=True) + self.eps).rsqrt()
        return (y if weight is None else y * weight).to(x.dtype)


class SimpleNorm2dFp32(SimpleNormFp32):
    last = renamed(SimpleNormFp32.forward, "last")

    def forward(self, x: Tensor) -> Tensor:
        return self.last(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class LayerNormAct(LayerNorm):
    def __init__(self, normalization_shape: Any, eps: float = 1e-5, affine: bool = True, apply_act: bool = True,
                 act_layer: Any = nn.ReLU, act_kwargs: Kwargs = None, inplace: bool = True, drop_layer: Any = None,
                 **kwargs: Any):  # fmt: skip
        super().__init__(normalization_shape, eps, affine, **kwargs)
        _acting(self, apply_act, act_layer, act_kwargs, inplace, drop_layer)

    normed = renamed(LayerNorm.forward, "normed")

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.normed(x))  # type: ignore[operator]


class LayerNormActFp32(LayerNormAct):
    normed = renamed(LayerNormFp32.forward, "normed")


class LayerNormAct2dFp32(LayerNorm2dFp32):
    def __init__(self, num_channels: int, eps: float = 1e-5, affine: bool = True, apply_act: bool = True,
                 act_layer: Any = nn.ReLU, act_kwargs: Kwargs = None, inplace: bool = True, drop_layer: Any = None,
                 **kwargs: Any):  # fmt: skip
        super().__init__(num_channels, eps, affine, **kwargs)
        _acting(self, apply_act, act_layer, act_kwargs, inplace, drop_layer)

    normed = renamed(LayerNorm2dFp32.forward, "normed")

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.normed(x))  # type: ignore[operator]


class RmsNormAct(RmsNorm):
    def __init__(self, num_channels: int, eps: float = 1e-6, affine: bool = True, apply_act: bool = True,
                 act_layer: Any = nn.ReLU, act_kwargs: Kwargs = None, inplace: bool = True, drop_layer: Any = None,
                 **kwargs: Any):  # fmt: skip
        super().__init__(num_channels, eps, affine, **kwargs)
        _acting(self, apply_act, act_layer, act_kwargs, inplace, drop_layer)

    normed = renamed(RmsNorm.forward, "normed")

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.normed(x))  # type: ignore[operator]


class RmsNormActFp32(RmsNormAct):
    normed = renamed(RmsNormFp32.forward, "normed")


class RmsNormAct2dFp32(RmsNormActFp32):
    last = renamed(RmsNormFp32.forward, "last")
    normed = renamed(RmsNorm2dFp32.forward, "normed")


@placed
class EvoNorm2dB0(evo_norm_batch.EvoNorm2dB0):
    def __init__(self, num_features: int, apply_act: bool = True, momentum: float = 0.1, eps: float = 1e-3, **_: Any):
        super().__init__(num_features, apply_act, momentum, eps)


@placed
class EvoNorm2dB1(evo_norm_batch.EvoNorm2dB1):
    def __init__(self, num_features: int, apply_act: bool = True, momentum: float = 0.1, eps: float = 1e-5, **_: Any):
        super().__init__(num_features, apply_act, momentum, eps)


@placed
class EvoNorm2dB2(evo_norm_batch.EvoNorm2dB2):
    def __init__(self, num_features: int, apply_act: bool = True, momentum: float = 0.1, eps: float = 1e-5, **_: Any):
        super().__init__(num_features, apply_act, momentum, eps)


@placed
class EvoNorm2dS0(evo_norm.EvoNorm2dS0):
    def __init__(self, num_features: int, groups: int = 32, group_size: int | None = None, apply_act: bool = True,
                 eps: float = 1e-5, **_: Any):  # fmt: skip
        super().__init__(num_features, groups, group_size, None, apply_act, eps)


class EvoNorm2dS0a(EvoNorm2dS0):
    always = True

    def __init__(self, num_features: int, groups: int = 32, group_size: int | None = None, apply_act: bool = True,
                 eps: float = 1e-3, device: Any = None, dtype: Any = None, **_: Any):  # fmt: skip
        super().__init__(num_features, groups, group_size, apply_act, eps, device=device, dtype=dtype)


@placed
class EvoNorm2dS1(evo_norm.EvoNorm2dS1):
    def __init__(self, num_features: int, groups: int = 32, group_size: int | None = None, apply_act: bool = True,
                 act_layer: Any = None, eps: float = 1e-5, **_: Any):  # fmt: skip
        super().__init__(num_features, groups, group_size, get_act_layer(act_layer), apply_act, eps)


class EvoNorm2dS1a(EvoNorm2dS1):
    always = True

    def __init__(self, num_features: int, groups: int = 32, group_size: int | None = None, apply_act: bool = True,
                 act_layer: Any = None, eps: float = 1e-3, device: Any = None, dtype: Any = None,
                 **_: Any):  # fmt: skip
        super().__init__(num_features, groups, group_size, apply_act, act_layer, eps, device=device, dtype=dtype)


@placed
class EvoNorm2dS2(evo_norm.EvoNorm2dS2):
    def __init__(self, num_features: int, groups: int = 32, group_size: int | None = None, apply_act: bool = True,
                 act_layer: Any = None, eps: float = 1e-5, **_: Any):  # fmt: skip
        super().__init__(num_features, groups, group_size, get_act_layer(act_layer), apply_act, eps)


class EvoNorm2dS2a(EvoNorm2dS2):
    always = True

    def __init__(self, num_features: int, groups: int = 32, group_size: int | None = None, apply_act: bool = True,
                 act_layer: Any = None, eps: float = 1e-3, device: Any = None, dtype: Any = None,
                 **_: Any):  # fmt: skip
        super().__init__(num_features, groups, group_size, apply_act, act_layer, eps, device=device, dtype=dtype)


@placed
class FilterResponseNormTlu2d(native.FilterResponseNorm2d):
    def __init__(self, num_features: int, apply_act: bool = True, eps: float = 1e-5, rms: bool = True, **_: Any):
        if not rms:
            raise ValueError("the response of a filter is measured by its rms here, not by its deviation")
        super().__init__(num_features, eps, None, apply_act)


@placed
class FilterResponseNormAct2d(native.FilterResponseNormAct2d):
    def __init__(self, num_features: int, apply_act: bool = True, act_layer: Any = nn.ReLU, inplace: bool | None = None,
                 rms: bool = True, eps: float = 1e-5, **_: Any):  # fmt: skip
        if not rms:
            raise ValueError("the response of a filter is measured by its rms here, not by its deviation")
        super().__init__(num_features, eps, apply_act=False)
        if apply_act:
            self.act = create_act_layer(act_layer, inplace=inplace) or nn.Identity()


def fast_layer_norm(x: Tensor, normalized_shape: Any, weight: Tensor | None = None, bias: Tensor | None = None,
                    eps: float = 1e-5) -> Tensor:  # fmt: skip
    return fast_norm.fast_layer_norm(x, normalized_shape, weight, bias, eps)


def fast_group_norm(x: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
                    eps: float = 1e-5) -> Tensor:  # fmt: skip
    return fast_norm.fast_group_norm(x, num_groups, weight, bias, eps)


def fast_rms_norm(x: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    return fast_norm.fast_rms_norm(x, normalized_shape, weight, eps)


def fast_rms_norm2d(x: Tensor, normalized_shape: Any, weight: Tensor | None = None, eps: float = 1e-5) -> Tensor:
    return fast_norm.fast_rms_norm(x.permute(0, 2, 3, 1), normalized_shape, weight, eps).permute(0, 3, 1, 2)

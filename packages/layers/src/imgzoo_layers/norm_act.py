"""A norm followed by an activation as one module with the norm's flat keys: `bn1.weight`, not `bn1.0.weight`."""

from collections.abc import Callable
from functools import cache, partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .act import Act, create_act
from .evo_norm import EvoNorm2dS0, EvoNorm2dS0a, EvoNorm2dS1, EvoNorm2dS1a, EvoNorm2dS2, EvoNorm2dS2a
from .evo_norm_batch import EvoNorm2dB0, EvoNorm2dB1, EvoNorm2dB2
from .norm import RmsNorm2d, groups_of

Drop = Callable[[], nn.Module]
"""Makes the dropout between norm and activation: `nn.Dropout`, `partial(DropBlock2d, 0.2)`, ..."""

NormAct = Callable[..., nn.Module]
"""Makes a norm with activation for a number of channels; `apply_act=False` leaves the activation out."""


class BatchNormAct2d(nn.BatchNorm2d):
    """Batch norm (arXiv:1502.03167), then the activation."""

    def __init__(
        self,
        dim: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        act: Act = "relu",
        apply_act: bool = True,
        inplace: bool = True,
        drop: Drop | None = None,
    ):
        super().__init__(dim, eps=eps, momentum=momentum)
        self.drop = drop() if drop else nn.Identity()
        self.act = create_act(act if apply_act else None, inplace)

    def forward(self, x: Tensor) -> Tensor:
        batch_stats = self.training or self.running_mean is None
        momentum = 0.0 if self.momentum is None else self.momentum
        if self.training and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if self.momentum is None:
                momentum = 1.0 / float(self.num_batches_tracked)
        x = F.batch_norm(
            x,
            self.running_mean if not self.training or self.track_running_stats else None,
            self.running_var if not self.training or self.track_running_stats else None,
            self.weight,
            self.bias,
            batch_stats,
            momentum,
            self.eps,
        )
        return self.act(self.drop(x))


class GroupNormAct(nn.GroupNorm):
    """Group norm (arXiv:1803.08494), then the activation; 32 groups, or groups of `group_size` channels."""

    def __init__(
        self,
        dim: int,
        groups: int = 32,
        eps: float = 1e-5,
        group_size: int | None = None,
        act: Act = "relu",
        apply_act: bool = True,
        inplace: bool = True,
        drop: Drop | None = None,
    ):
        super().__init__(groups_of(dim, groups, group_size), dim, eps=eps)
        self.drop = drop() if drop else nn.Identity()
        self.act = create_act(act if apply_act else None, inplace)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.drop(F.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)))


class GroupNorm1Act(GroupNormAct):
    """Group norm over all of (C, H, W), then the activation."""

    def __init__(self, dim: int, eps: float = 1e-5, act: Act = "relu", apply_act: bool = True, inplace: bool = True,
                 drop: Drop | None = None):  # fmt: skip
        super().__init__(dim, groups=1, eps=eps, act=act, apply_act=apply_act, inplace=inplace, drop=drop)


class LayerNormAct2d(nn.LayerNorm):
    """Layer norm over the channels of a map, then the activation."""

    def __init__(self, dim: int, eps: float = 1e-5, act: Act = "relu", apply_act: bool = True, inplace: bool = True,
                 drop: Drop | None = None):  # fmt: skip
        super().__init__(dim, eps=eps)
        self.drop = drop() if drop else nn.Identity()
        self.act = create_act(act if apply_act else None, inplace)

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return self.act(self.drop(x.permute(0, 3, 1, 2)))


class RmsNormAct2d(RmsNorm2d):
    """RMS norm over the channels of a map, then the activation."""

    def __init__(self, dim: int, eps: float = 1e-6, act: Act = "relu", apply_act: bool = True, inplace: bool = True,
                 drop: Drop | None = None):  # fmt: skip
        super().__init__(dim, eps=eps)
        self.drop = drop() if drop else nn.Identity()
        self.act = create_act(act if apply_act else None, inplace)

    def forward(self, x: Tensor) -> Tensor:
        x = F.rms_norm(x.permute(0, 2, 3, 1), self.dim, self.weight, self.eps)
        return self.act(self.drop(x.permute(0, 3, 1, 2)))


class FilterResponseNorm2d(nn.Module):
    """x / rms over each channel's positions, affine, then max(x, tau) with tau learned (arXiv:1911.09737, section 3).

    `act` is taken and ignored, so that it can stand where other norms do.
    """

    def __init__(self, dim: int, eps: float = 1e-5, act: Act = None, apply_act: bool = True):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))
        self.tau = nn.Parameter(torch.zeros(dim)) if apply_act else None

    def normed(self, x: Tensor) -> Tensor:
        x = x * torch.rsqrt(x.square().mean((2, 3), keepdim=True) + self.eps)
        return x * self.weight[:, None, None] + self.bias[:, None, None]

    def forward(self, x: Tensor) -> Tensor:
        x = self.normed(x)
        return x if self.tau is None else torch.maximum(x, self.tau[:, None, None])


class FilterResponseNormAct2d(FilterResponseNorm2d):
    """The same, then an activation instead of the learned threshold."""

    def __init__(self, dim: int, eps: float = 1e-5, act: Act = "relu", apply_act: bool = True, inplace: bool = True):
        super().__init__(dim, eps, apply_act=False)
        self.act = create_act(act if apply_act else None, inplace)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.normed(x))


NORM_ACT: dict[str, NormAct] = {
    "batchnorm": BatchNormAct2d,
    "batchnorm2d": BatchNormAct2d,
    "batchnormact2d": BatchNormAct2d,
    "groupnorm": GroupNormAct,
    "groupnormact": GroupNormAct,
    "groupnorm1": GroupNorm1Act,
    "groupnorm1act": GroupNorm1Act,
    "layernorm2d": LayerNormAct2d,
    "layernormact2d": LayerNormAct2d,
    "rmsnorm2d": RmsNormAct2d,
    "rmsnormact2d": RmsNormAct2d,
    "evonormb0": EvoNorm2dB0,
    "evonormb1": EvoNorm2dB1,
    "evonormb2": EvoNorm2dB2,
    "evonorms0": EvoNorm2dS0,
    "evonorms0a": EvoNorm2dS0a,
    "evonorms1": EvoNorm2dS1,
    "evonorms1a": EvoNorm2dS1a,
    "evonorms2": EvoNorm2dS2,
    "evonorms2a": EvoNorm2dS2a,
    "frn": FilterResponseNormAct2d,
    "frntlu": FilterResponseNorm2d,
}


LIBRARIES = ("torch", "timm", "imgzoo_layers", "imgzoo_timm")
"""Whose norms of these names are those that we mean, with an activation or without."""


@cache
def options_of(norm: Callable[..., nn.Module]) -> frozenset[str]:
    """The options that a norm takes: every layer asks, and reading a signature is dear."""
    return frozenset(signature(norm).parameters)


def get_norm_act(norm: str | NormAct, act: Act = None, **options: object) -> NormAct:
    """The maker for a norm's name with the activation and options bound; a callable passes through with options."""
    if isinstance(norm, str):
        key = norm.replace("_", "").lower()
        if key not in NORM_ACT:
            raise ValueError(f"unknown norm '{norm}'; use one of {', '.join(NORM_ACT)}")
        norm = NORM_ACT[key]
        if act is not None:
            options["act"] = act
        for option in options:
            if option not in options_of(norm):
                able = [word for word, each in NORM_ACT.items() if option in options_of(each)]
                raise ValueError(f"norm {key!r} takes no {option}; those that do are {', '.join(able)}")
        return partial(norm, **options) if options else norm
    return partial(acting(norm, act), **options)


def acting(norm: NormAct, act: Act) -> NormAct:
    """A maker of a caller's own with the activation behind the norm: a library's plain norm in its form that has one.

    Raises:
        ValueError: no activation can follow it.
    """
    cls: Any = getattr(norm, "func", norm)
    bound: dict[str, Any] = dict(getattr(norm, "keywords", {}))
    name = cls.__name__.lower()
    known = cls.__module__.partition(".")[0] in LIBRARIES and "apply_act" not in options_of(cls)
    if known and name in NORM_ACT:
        cls = NORM_ACT[name]
        bound = {"groups" if key == "num_groups" else key: value for key, value in bound.items()}
    taken = options_of(cls)
    word = next((each for each in ("act", "act_layer") if each in taken), None)
    if cls is nn.Identity or not taken & {"apply_act", "kwargs"} or bound.keys() - taken:
        raise ValueError(f"{name} cannot stand with an activation behind it; use one of {', '.join(NORM_ACT)}")
    if word and act is not None:
        bound.setdefault(word, act)
    args = getattr(norm, "args", ())
    maker = partial(cls, *args, **bound) if args or bound else cls
    return maker if "act" in taken else partial(_worded, maker, word, act=bound.get(word or "act"))


def _worded(maker: NormAct, word: str | None, *args: Any, act: Act = None, **kwargs: Any) -> nn.Module:
    """What a maker gives that has another word for the activation, or none."""
    return maker(*args, **kwargs, **({word: act} if word and act is not None else {}))

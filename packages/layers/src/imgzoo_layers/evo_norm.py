"""Norm and activation in one formula, found by search (EvoNorm, arXiv:2004.02967, tables 3 and 4).

These kinds divide by statistics of each sample, those of `evo_norm_batch` by the batch's. `act` is taken and ignored
where the formula has its own, so that a kind can stand where other norms do.
"""

import torch
from torch import Tensor, nn

from .act import Act, create_act
from .norm import groups_of


class EvoNorm(nn.Module):
    """What all kinds share: the affine end, `weight` and `bias` for each of `dim` channels."""

    def __init__(self, dim: int, apply_act: bool, eps: float):
        super().__init__()
        self.apply_act, self.eps = apply_act, eps
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim))

    def affine(self, x: Tensor) -> Tensor:
        return x * self.weight[:, None, None] + self.bias[:, None, None]


class EvoNorm2dS0(EvoNorm):
    """x sigmoid(v x) / std of the group, affine: (B, C, H, W) -> the same shape."""

    always = False
    """Whether it divides where no activation is asked for, too."""

    def __init__(self, dim: int, groups: int = 32, group_size: int | None = None, act: Act = None,
                 apply_act: bool = True, eps: float = 1e-5):  # fmt: skip
        super().__init__(dim, apply_act, eps)
        self.groups = groups_of(dim, groups, group_size)
        self.v = nn.Parameter(torch.ones(dim)) if apply_act else None
        self.divides = apply_act or self.always

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self.v is not None:
            y = x * (x * self.v[:, None, None]).sigmoid()
        if self.divides:
            y = y / group_std(x, self.groups, self.eps)
        return self.affine(y)


class EvoNorm2dS0a(EvoNorm2dS0):
    """EvoNorm-S0 that divides by the deviation of the groups where no activation is asked for, too."""

    always = True

    def __init__(self, dim: int, groups: int = 32, group_size: int | None = None, act: Act = None,
                 apply_act: bool = True, eps: float = 1e-3):  # fmt: skip
        super().__init__(dim, groups, group_size, act, apply_act, eps)


class EvoNorm2dS1(EvoNorm):
    """act(x) / std of the group, affine, SiLU unless `act` names another: (B, C, H, W) -> the same shape."""

    always = False

    def __init__(self, dim: int, groups: int = 32, group_size: int | None = None, act: Act = None,
                 apply_act: bool = True, eps: float = 1e-5):  # fmt: skip
        super().__init__(dim, apply_act, eps)
        self.groups = groups_of(dim, groups, group_size)
        self.act = create_act(act or "silu") if apply_act else nn.Identity()
        self.divides = apply_act or self.always

    def spread(self, x: Tensor) -> Tensor:
        return group_std(x, self.groups, self.eps)

    def forward(self, x: Tensor) -> Tensor:
        if self.divides:
            x = self.act(x) / self.spread(x)
        return self.affine(x)


class EvoNorm2dS1a(EvoNorm2dS1):
    """EvoNorm-S1 that divides where no activation is asked for, too."""

    always = True

    def __init__(self, dim: int, groups: int = 32, group_size: int | None = None, act: Act = None,
                 apply_act: bool = True, eps: float = 1e-3):  # fmt: skip
        super().__init__(dim, groups, group_size, act, apply_act, eps)


class EvoNorm2dS2(EvoNorm2dS1):
    """act(x) / rms of the group, affine, SiLU unless `act` names another: (B, C, H, W) -> the same shape."""

    def spread(self, x: Tensor) -> Tensor:
        split = x.float().unflatten(1, (self.groups, x.shape[1] // self.groups))
        rms = (split.square().mean((2, 3, 4), keepdim=True) + self.eps).sqrt()
        return rms.expand_as(split).flatten(1, 2).to(x.dtype)


class EvoNorm2dS2a(EvoNorm2dS2):
    """EvoNorm-S2 that divides where no activation is asked for, too."""

    always = True

    def __init__(self, dim: int, groups: int = 32, group_size: int | None = None, act: Act = None,
                 apply_act: bool = True, eps: float = 1e-3):  # fmt: skip
        super().__init__(dim, groups, group_size, act, apply_act, eps)


def group_std(x: Tensor, groups: int, eps: float) -> Tensor:
    """Biased standard deviation over each group of channels and all positions, spread back to x's shape."""
    split = x.float().unflatten(1, (groups, x.shape[1] // groups))
    std = (split.var(dim=(2, 3, 4), unbiased=False, keepdim=True) + eps).sqrt()
    return std.expand_as(split).flatten(1, 2).to(x.dtype)

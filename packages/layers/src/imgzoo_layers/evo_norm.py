"""Norm and activation in one formula, found by search (EvoNorm, arXiv:2004.02967, tables 3 and 4).

The B kinds divide by statistics of the batch, kept for evaluation; the S kinds by those of each sample. `act` is taken
and ignored where the formula has its own, so that a kind can stand where other norms do.
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


class EvoNorm2dB0(EvoNorm):
    """x / max(batch std, v x + the sample's std), affine: (B, C, H, W) -> the same shape."""

    running_var: Tensor

    def __init__(self, dim: int, apply_act: bool = True, momentum: float = 0.1, eps: float = 1e-3, act: Act = None):
        super().__init__(dim, apply_act, eps)
        self.momentum = momentum
        self.v = self.slope(dim) if apply_act else None
        self.register_buffer("running_var", torch.ones(dim))

    def slope(self, dim: int) -> nn.Parameter | None:
        return nn.Parameter(torch.ones(dim))

    def batch_std(self, x: Tensor) -> Tensor:
        """(C, 1, 1) in float32: of this batch in training, which moves the average kept for evaluation."""
        var = self.running_var
        if self.training:
            var = x.float().var((0, 2, 3), unbiased=False)
            count = x.numel() / x.shape[1]
            kept = var.detach() * (count / (count - 1))
            self.running_var.copy_(torch.lerp(self.running_var, kept.to(self.running_var.dtype), self.momentum))
        return (var.float() + self.eps).sqrt()[:, None, None]

    def other(self, x: Tensor) -> Tensor:
        assert self.v is not None
        std = (x.float().var((2, 3), unbiased=False, keepdim=True) + self.eps).sqrt()
        return x * self.v[:, None, None] + std.to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        if self.apply_act:
            x = x / torch.maximum(self.batch_std(x).to(x.dtype), self.other(x))
        return self.affine(x)


class EvoNorm2dB1(EvoNorm2dB0):
    """x / max(batch std, (x + 1) times the sample's rms), affine: (B, C, H, W) -> the same shape."""

    def __init__(self, dim: int, apply_act: bool = True, momentum: float = 0.1, eps: float = 1e-5, act: Act = None):
        super().__init__(dim, apply_act, momentum, eps)

    def slope(self, dim: int) -> None:
        return None

    def other(self, x: Tensor) -> Tensor:
        return (x + 1) * channel_rms(x, self.eps)


class EvoNorm2dB2(EvoNorm2dB1):
    """x / max(batch std, the sample's rms - x), affine: (B, C, H, W) -> the same shape."""

    def other(self, x: Tensor) -> Tensor:
        return channel_rms(x, self.eps) - x


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


def channel_rms(x: Tensor, eps: float) -> Tensor:
    """Root mean square over the places of each channel: (B, C, H, W) -> (B, C, 1, 1)."""
    return (x.float().square().mean((2, 3), keepdim=True) + eps).sqrt().to(x.dtype)


def group_std(x: Tensor, groups: int, eps: float) -> Tensor:
    """Biased standard deviation over each group of channels and all positions, spread back to x's shape."""
    split = x.float().unflatten(1, (groups, x.shape[1] // groups))
    std = (split.var(dim=(2, 3, 4), unbiased=False, keepdim=True) + eps).sqrt()
    return std.expand_as(split).flatten(1, 2).to(x.dtype)

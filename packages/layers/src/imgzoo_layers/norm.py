"""Normalization over channels, in both layouts: (B, ..., C), and with the suffix `2d` (B, C, H, W)."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Norm = Callable[..., nn.Module]
"""Makes a norm for a number of channels."""


class LayerNorm(nn.LayerNorm):
    """Layer norm over the last dimension (arXiv:1607.06450), epsilon 1e-6 unless told."""

    def __init__(self, dim: int, eps: float = 1e-6, affine: bool = True):
        super().__init__(dim, eps=eps, elementwise_affine=affine)


class LayerNorm2d(nn.LayerNorm):
    """Layer norm over the channels of a map (B, C, H, W)."""

    def __init__(self, dim: int, eps: float = 1e-6, affine: bool = True):
        super().__init__(dim, eps=eps, elementwise_affine=affine)

    def forward(self, x: Tensor) -> Tensor:
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class GroupNorm(nn.GroupNorm):
    """Group norm (arXiv:1803.08494) with the channels first: 32 groups, or groups of `group_size` channels."""

    def __init__(
        self, dim: int, groups: int = 32, eps: float = 1e-5, affine: bool = True, group_size: int | None = None
    ):
        super().__init__(groups_of(dim, groups, group_size), dim, eps=eps, affine=affine)


class GroupNorm1(nn.GroupNorm):
    """Group norm with a single group: all of (C, H, W)."""

    def __init__(self, dim: int, eps: float = 1e-5, affine: bool = True):
        super().__init__(1, dim, eps=eps, affine=affine)


def groups_of(dim: int, groups: int, group_size: int | None) -> int:
    """Number of groups of `dim` channels; `group_size` overrides `groups` and must divide `dim`."""
    if not group_size:
        return groups
    if dim % group_size:
        raise ValueError(f"{dim} channels do not divide into groups of {group_size}")
    return dim // group_size


class RmsNorm(nn.Module):
    """x / rms(x) * weight over the last dimension (arXiv:1910.07467)."""

    def __init__(self, dim: int, eps: float = 1e-6, affine: bool = True):
        super().__init__()
        self.eps = eps
        self.dim = (dim,)
        self.weight = nn.Parameter(torch.ones(dim)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.dim, self.weight, self.eps)


class RmsNorm2d(RmsNorm):
    """RMS norm over the channels of a map (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.permute(0, 2, 3, 1), self.dim, self.weight, self.eps).permute(0, 3, 1, 2)


class SimpleNorm(nn.Module):
    """x / std(x) * weight over the last dimension, the mean left in place."""

    def __init__(self, dim: int, eps: float = 1e-6, affine: bool = True):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.rsqrt(torch.var(x, dim=-1, keepdim=True) + self.eps)
        return x if self.weight is None else x * self.weight


class SimpleNorm2d(SimpleNorm):
    """Simple norm over the channels of a map (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.rsqrt(torch.var(x, dim=1, keepdim=True) + self.eps)
        return x if self.weight is None else x * self.weight[:, None, None]


class LayerNormFp32(LayerNorm):
    """Layer norm computed in float32 whatever the input's type."""

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight.float() if self.weight is not None else None
        bias = self.bias.float() if self.bias is not None else None
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)


class FrozenBatchNorm2d(nn.Module):
    """Batch norm with fixed statistics and affine: for fine-tuning with batches too small to measure them."""

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def __init__(self, dim: int, eps: float = 1e-5):
        super().__init__()
        self.eps = eps
        self.register_buffer("weight", torch.ones(dim))
        self.register_buffer("bias", torch.zeros(dim))
        self.register_buffer("running_mean", torch.zeros(dim))
        self.register_buffer("running_var", torch.ones(dim))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Pass over the count of batches, which the state of a batch norm that is not frozen has."""
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *args)

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return x * scale[:, None, None] + shift[:, None, None]


NORM: dict[str, Norm] = {
    "batchnorm": nn.BatchNorm2d,
    "batchnorm2d": nn.BatchNorm2d,
    "batchnorm1d": nn.BatchNorm1d,
    "frozenbatchnorm2d": FrozenBatchNorm2d,
    "groupnorm": GroupNorm,
    "groupnorm1": GroupNorm1,
    "layernorm": LayerNorm,
    "layernorm2d": LayerNorm2d,
    "layernormfp32": LayerNormFp32,
    "rmsnorm": RmsNorm,
    "rmsnorm2d": RmsNorm2d,
    "simplenorm": SimpleNorm,
    "simplenorm2d": SimpleNorm2d,
}


def get_norm(norm: str | Norm, **options: object) -> Norm:
    """The maker for a name, with options (`eps`, ...) that are not None bound; a callable passes through.

    Norms that hold an activation may stand where others do, as in the field: what follows them acts once more.
    """
    if isinstance(norm, str):
        from .norm_act import NORM_ACT  # which imports this file

        key, known = norm.replace("_", "").lower(), {**NORM_ACT, **NORM}
        if key not in known:
            raise ValueError(f"unknown norm '{norm}'; use one of {', '.join(dict.fromkeys([*NORM, *NORM_ACT]))}")
        norm = known[key]
    options = {key: each for key, each in options.items() if each is not None}
    return partial(norm, **options) if options else norm

"""Norms that stay in the low precision of autocast, where torch would compute them in float32 and return that."""

from typing import Any

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from .norm import GroupNorm, GroupNorm1, LayerNorm, LayerNorm2d, RmsNorm, RmsNorm2d


def lowered(*tensors: Tensor | None) -> tuple[Tensor | None, ...]:
    """Tensors in autocast's type, where autocast is on; as they are elsewhere."""
    kind = next(tensor for tensor in tensors if tensor is not None).device.type
    if not torch.is_autocast_enabled(kind):
        return tensors
    dtype = torch.get_autocast_dtype(kind)
    return tuple(tensor if tensor is None else tensor.to(dtype) for tensor in tensors)


def fast_layer_norm(x: Tensor, shape: list[int] | tuple[int, ...], weight: Tensor | None = None,
                    bias: Tensor | None = None, eps: float = 1e-5) -> Tensor:  # fmt: skip
    """Layer norm over the last dimensions `shape` of x (..., *shape) in autocast's type."""
    x, weight, bias = lowered(x, weight, bias)  # type: ignore[assignment]
    with torch.autocast(x.device.type, enabled=False):
        return F.layer_norm(x, tuple(shape), weight, bias, eps)


def fast_group_norm(x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None,
                    eps: float = 1e-5) -> Tensor:  # fmt: skip
    """Group norm of x (B, C, ...) in autocast's type."""
    x, weight, bias = lowered(x, weight, bias)  # type: ignore[assignment]
    with torch.autocast(x.device.type, enabled=False):
        return F.group_norm(x, groups, weight, bias, eps)


def fast_rms_norm(x: Tensor, shape: list[int] | tuple[int, ...], weight: Tensor | None = None,
                  eps: float = 1e-5) -> Tensor:  # fmt: skip
    """RMS norm over the last dimensions `shape` of x (..., *shape) in autocast's type."""
    x, weight = lowered(x, weight)  # type: ignore[assignment]
    with torch.autocast(x.device.type, enabled=False):
        return F.rms_norm(x, tuple(shape), weight, eps)


class FastLayerNorm(LayerNorm):
    """(..., C) -> the same, in autocast's type."""

    def forward(self, x: Tensor) -> Tensor:
        return fast_layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)


class FastLayerNorm2d(LayerNorm2d):
    """(B, C, H, W) -> the same, in autocast's type."""

    def forward(self, x: Tensor) -> Tensor:
        x = fast_layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class FastGroupNorm(GroupNorm):
    """(B, C, ...) -> the same, in autocast's type."""

    def forward(self, x: Tensor) -> Tensor:
        return fast_group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class FastGroupNorm1(GroupNorm1):
    """(B, C, ...) -> the same, in autocast's type."""

    def forward(self, x: Tensor) -> Tensor:
        return fast_group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class FastRmsNorm(RmsNorm):
    """(..., C) -> the same, in autocast's type."""

    def forward(self, x: Tensor) -> Tensor:
        return fast_rms_norm(x, self.dim, self.weight, self.eps)


class FastRmsNorm2d(RmsNorm2d):
    """(B, C, H, W) -> the same, in autocast's type."""

    def forward(self, x: Tensor) -> Tensor:
        return fast_rms_norm(x.permute(0, 2, 3, 1), self.dim, self.weight, self.eps).permute(0, 3, 1, 2)


FAST: dict[type[Any], type[nn.Module]] = {
    LayerNorm: FastLayerNorm,
    LayerNorm2d: FastLayerNorm2d,
    GroupNorm: FastGroupNorm,
    GroupNorm1: FastGroupNorm1,
    RmsNorm: FastRmsNorm,
    RmsNorm2d: FastRmsNorm2d,
}
"""Norms and their fast forms, which have the same state."""


def set_fast_norm(model: nn.Module, enable: bool = True) -> int:
    """Let a network's norms run in autocast's type, or again in float32; how many changed.

    Norms of other classes (batch norm, torch's own) stay. Speed is bought with precision: for inference.
    """
    table = FAST if enable else {fast: plain for plain, fast in FAST.items()}
    changed = [module for module in model.modules() if type(module) in table]
    for module in changed:
        module.__class__ = table[type(module)]
    return len(changed)


for leaf in ("fast_layer_norm", "fast_group_norm", "fast_rms_norm"):
    torch.fx.wrap(leaf)  # tracers see one call: the type is autocast's when it runs

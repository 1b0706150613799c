"""Stochastic depth, dropped blocks and dropped patches."""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor, nn

from imgzoo_layers import drop as native

from ._base import adapter


@adapter
class DropPath(native.DropPath):
    def __init__(self, drop_prob: float = 0.0, scale_by_keep: bool = True):
        super().__init__(drop_prob or 0.0, scale_by_keep)

    @property
    def drop_prob(self) -> float:
        return self.rate

    @drop_prob.setter
    def drop_prob(self, rate: float) -> None:
        self.rate = rate

    def extra_repr(self) -> str:
        return f"drop_prob={round(self.rate, 3):0.3f}"


def drop_path(x: Tensor, drop_prob: float = 0.0, training: bool = False, scale_by_keep: bool = True) -> Tensor:
    return native.drop_path(x, drop_prob, training, scale_by_keep)


@adapter
class DropBlock2d(native.DropBlock2d):
    """`inplace` is taken: what it saves in memory alone differs."""

    def __init__(self, drop_prob: float = 0.1, block_size: int = 7, gamma_scale: float = 1.0, with_noise: bool = False,
                 inplace: bool = False, couple_channels: bool = True, scale_by_keep: bool = True,
                 **kwargs: Any):  # fmt: skip
        if kwargs:
            warnings.warn(f"DropBlock2d takes no {', '.join(kwargs)}", UserWarning, stacklevel=2)
        super().__init__(drop_prob, block_size, gamma_scale, couple_channels, scale_by_keep, with_noise)

    drop_prob = property(lambda self: self.rate)
    block_size = property(lambda self: self.block)


def drop_block_2d(x: Tensor, drop_prob: float = 0.1, block_size: int = 7, gamma_scale: float = 1.0,
                  with_noise: bool = False, inplace: bool = False, couple_channels: bool = True,
                  scale_by_keep: bool = True) -> Tensor:  # fmt: skip
    y = native.drop_block_2d(x, drop_prob, block_size, gamma_scale, couple_channels, scale_by_keep, with_noise)
    return x.copy_(y) if inplace else y


@adapter
class PatchDropout(native.PatchDropout):
    def __init__(self, prob: float = 0.5, num_prefix_tokens: int = 1, ordered: bool = False):
        super().__init__(prob, num_prefix_tokens, ordered)

    @property
    def prob(self) -> float:
        return self.rate

    @prob.setter
    def prob(self, rate: float) -> None:
        self.rate = rate


def calculate_drop_path_rates(
    drop_path_rate: float, depths: int | list[int], stagewise: bool = False
) -> list[float] | list[list[float]]:
    """Rates that grow linearly over blocks, or with `stagewise` over stages; a list each where depths are a list."""
    if isinstance(depths, int):
        if stagewise:
            raise ValueError("stagewise rates need the depth of each stage")
        return native.drop_path_rates(drop_path_rate, depths)[0]
    if stagewise:
        return [[rate] * depth for rate, depth in zip(native.drop_path_rates(drop_path_rate, len(depths))[0], depths)]
    return native.drop_path_rates(drop_path_rate, depths)


def patch_dropout_forward(
    x: Tensor, prob: float, num_prefix_tokens: int, ordered: bool, training: bool
) -> tuple[Tensor, Tensor | None]:
    """Tokens (B, N, C) without a random part of the patches, and the indices of those kept; None where all are."""
    return native.PatchDropout(prob, num_prefix_tokens, ordered).train(training).thin(x)


class PatchDropoutWithIndices(nn.Module):
    def __init__(self, prob: float = 0.5, num_prefix_tokens: int = 1, ordered: bool = False):
        super().__init__()
        self.prob, self.num_prefix_tokens, self.ordered = prob, num_prefix_tokens, ordered

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return patch_dropout_forward(x, self.prob, self.num_prefix_tokens, self.ordered, self.training)

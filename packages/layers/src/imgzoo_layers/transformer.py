"""Blocks of a transformer: attention, then mlp, each on a residual. They take any modules (B, N, C) -> (B, N, C)."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from .attention import layer_scale_of
from .drop import drop_path_of
from .norm import LayerNorm, Norm


class Block(nn.Module):
    """Both normalized first (arXiv:2010.11929, eq. 2 and 3), with layer scale where it has a start."""

    def __init__(self, dim: int, attn: nn.Module, mlp: nn.Module, norm: Norm = LayerNorm,
                 layer_scale: float | None = None, drop_path: float = 0.0):  # fmt: skip
        super().__init__()
        self.norm1 = norm(dim)
        self.attn = attn
        self.ls1 = layer_scale_of(dim, layer_scale)
        self.drop_path1 = drop_path_of(drop_path)
        self.norm2 = norm(dim)
        self.mlp = mlp
        self.ls2 = layer_scale_of(dim, layer_scale)
        self.drop_path2 = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x))))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


def scaled(x: Tensor, gamma: Tensor | None) -> Tensor:
    """Layer scale, where there is one."""
    return x if gamma is None else gamma * x


class GammaBlock(nn.Module):
    """The same with layer scale, where it has a start, under the keys `gamma_1` and `gamma_2`; of the attention alone
    with `attn_only`."""

    if TYPE_CHECKING:  # set by name, and TorchScript would read annotations
        gamma_1: Tensor | None
        gamma_2: Tensor | None

    def __init__(self, dim: int, attn: nn.Module, mlp: nn.Module, norm: Norm = LayerNorm,
                 layer_scale: float | None = 1e-5, drop_path: float = 0.0,
                 attn_only: bool = False):  # fmt: skip
        super().__init__()
        for name, start in (("gamma_1", layer_scale), ("gamma_2", None if attn_only else layer_scale)):
            self.register_parameter(name, None if start is None else nn.Parameter(torch.full((dim,), start)))
        self.norm1 = norm(dim)
        self.attn = attn
        self.drop_path1 = drop_path_of(drop_path)
        self.norm2 = norm(dim)
        self.mlp = mlp
        self.drop_path2 = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(scaled(self.attn(self.norm1(x)), self.gamma_1))
        return x + self.drop_path2(scaled(self.mlp(self.norm2(x)), self.gamma_2))

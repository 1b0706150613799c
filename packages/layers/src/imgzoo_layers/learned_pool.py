"""Pools with a few weights: between mean and maximum by an exponent, or by attention of the mean."""

import math

import torch
from torch import Tensor, nn

from .attention import Attending, head_width
from .norm import LayerNorm, Norm


class LogSumExpPool(nn.Module):
    """log(mean(exp(r x))) / r over positions: (B, N, C) -> (B, C); the mean for small r, the maximum for large.

    `r` is learned unless `learn` is False (LSE pooling, arXiv:1411.6228, eq. 6).
    """

    def __init__(self, r: float = 10.0, learn: bool = True):
        super().__init__()
        if r == 0:
            raise ValueError("r must not be 0; use the mean instead")
        if learn:
            self.r = nn.Parameter(torch.tensor(float(r)))
        else:
            self.register_buffer("r", torch.tensor(float(r)))

    def forward(self, x: Tensor) -> Tensor:
        return self.pooled(x)

    def pooled(self, x: Tensor) -> Tensor:
        return (torch.logsumexp(self.r * x, dim=1) - math.log(x.shape[1])) / self.r


class LogSumExpPool2d(LogSumExpPool):
    """The same of a map: (B, C, H, W) -> (B, C), or (B, C, 1, 1) if not `flatten`."""

    def __init__(self, r: float = 10.0, learn: bool = True, flatten: bool = True):
        super().__init__(r, learn)
        self.flatten = flatten

    def forward(self, x: Tensor) -> Tensor:
        x = self.pooled(x.flatten(2).transpose(1, 2))
        return x if self.flatten else x[:, :, None, None]


class SimPool(Attending):
    """The mean asks all tokens, whose normalized values are averaged: (B, N, C) -> (B, C) (arXiv:2309.06891, eq. 9).

    With `gamma` the average is a generalized mean of that exponent, of values shifted to be positive in each channel.
    `qk_norm` normalizes queries and keys of each head.
    """

    def __init__(self, dim: int, heads: int = 1, qkv_bias: bool = False, qk_norm: bool = False,
                 gamma: float | None = None, norm: Norm = LayerNorm):  # fmt: skip
        super().__init__(heads, head_width(dim, heads))
        self.gamma = gamma
        self.norm = norm(dim)
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.k = nn.Linear(dim, dim, bias=qkv_bias)
        self.q_norm = norm(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = norm(self.head_dim) if qk_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.pooled(x)

    def pooled(self, x: Tensor) -> Tensor:
        query, x = self.q(x.mean(1, keepdim=True)), self.norm(x)
        q = self.q_norm(query.unflatten(2, (self.num_heads, -1)).transpose(1, 2))
        k = self.k_norm(self.k(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2))
        if self.gamma is not None:
            x = (x - x.amin(1, keepdim=True) + 1e-6).pow(self.gamma)
        x = self.attend(q, k, x.unflatten(2, (self.num_heads, -1)).transpose(1, 2))
        x = x.transpose(1, 2).flatten(1)
        return x if self.gamma is None else x.pow(1 / self.gamma)


class SimPool2d(SimPool):
    """The same of a map: (B, C, H, W) -> (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.pooled(x.flatten(2).transpose(1, 2))

"""Attention between channels, and position by waves, of XCiT (arXiv:2106.09681)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Attending, head_width
from .drop import dropout_of


class PositionalEncodingFourier(nn.Module):
    """Sines and cosines of the relative row and column, projected: a map (B, C, H, W) -> (1, dim, H, W)."""

    def __init__(self, dim: int, waves: int = 16):
        super().__init__()
        self.waves = waves
        self.token_projection = nn.Conv2d(4 * waves, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        ones = torch.ones_like(x[:1, :1], dtype=torch.float32)
        index = x.new_ones(self.waves, dtype=torch.float32).cumsum(0) - 1
        divisors = (10000 ** (index / self.waves))[:, None, None]
        found = []
        for axis in (2, 3):
            place = ones.cumsum(axis)  # 1 to H, or 1 to W
            place = place / (ones.sum(axis, keepdim=True) + 1e-6) * (2 * math.pi) / divisors
            found.append(torch.stack([place.sin(), place.cos()], dim=2).flatten(1, 2))
        return self.token_projection(torch.cat(found, dim=1).to(x.dtype))


class CrossCovarianceAttn(Attending):
    """Attention between channels of a head instead of positions (section 3.2): (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int, heads: int, attn_drop: float = 0.0, proj_drop: float = 0.0):
        super().__init__(heads, head_width(dim, heads), attn_drop)
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = dropout_of(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 4, 1).unbind(0)
        attn = F.normalize(q, dim=-1) @ F.normalize(k, dim=-1).transpose(-1, -2) * self.temperature
        y = self.attn_drop(attn.softmax(-1)) @ v  # (B, heads, D, N)
        return self.proj_drop(self.proj(y.permute(0, 3, 1, 2).flatten(2)))

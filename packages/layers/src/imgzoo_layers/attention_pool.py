"""Pooling of tokens by attention: (B, N, C) -> (B, C)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .act import Act
from .init import trunc_normal_tf_
from .mlp import Mlp
from .norm import LayerNorm, Norm


class AttentionPoolLatent(nn.Module):
    """A learned query attends to all tokens, then a residual mlp (MAP head of arXiv:2106.04560)."""

    def __init__(
        self,
        dim: int,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        norm: Norm = LayerNorm,
        act: Act = "gelu",
    ):
        super().__init__()
        self.heads = heads
        self.head_dim = dim // heads
        self.latent = nn.Parameter(torch.zeros(1, 1, dim))
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.norm = norm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), act=act)
        trunc_normal_tf_(self.latent, std=dim**-0.5)

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(self.latent.expand(x.shape[0], -1, -1)).unflatten(2, (self.heads, self.head_dim)).transpose(1, 2)
        k, v = self.kv(x).unflatten(2, (2, self.heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = self.proj(x)
        return (x + self.mlp(self.norm(x)))[:, 0]


class AttentionPoolPrr(nn.Module):
    """Refine all tokens by attention without weights, then take the first (patch representation refinement)."""

    def __init__(self, dim: int, heads: int = 8):
        super().__init__()
        if dim % heads:
            raise ValueError(f"the width {dim} does not divide into {heads} heads")
        self.heads = heads
        self.head_dim = dim // heads

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(2, (self.heads, self.head_dim)).transpose(1, 2)
        return F.scaled_dot_product_attention(x[:, :, :1], x, x)[:, :, 0].flatten(1)

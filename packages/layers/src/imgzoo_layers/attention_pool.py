"""Pooling by attention: of tokens (B, N, C) or maps (B, C, H, W) -> (B, C)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .act import Act
from .init import trunc_normal_, trunc_normal_tf_
from .mlp import Mlp
from .norm import LayerNorm, Norm
from .position import resize_grid
from .tables import GridTable, Tabled


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

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Tokens (B, N, C), with what is added to the scores (B, 1, 1, N) -> (B, C)."""
        q = self.q(self.latent.expand(x.shape[0], -1, -1)).unflatten(2, (self.heads, self.head_dim)).transpose(1, 2)
        k, v = self.kv(x).unflatten(2, (2, self.heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        x = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).flatten(2)
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


class AttentionPool2d(Tabled):
    """The mean of a map attends to it and itself, then a classifier (CLIP, arXiv:2103.00020): (B, C, H, W) -> logits.

    `grid` is the size of the map that the position table is made for; others resize it. With `pool` off every position
    attends and keeps its place.
    """

    tables = {"pos_embed": GridTable()}

    def __init__(self, dim: int, num_classes: int, grid: tuple[int, int], head_dim: int = 64, drop_rate: float = 0.0):
        super().__init__()
        self.heads = dim // head_dim
        self.head_dim = head_dim
        self.grid = grid
        self.pool = True
        self.pos_embed = nn.Parameter(torch.empty(1 + grid[0] * grid[1], dim))
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.drop = nn.Dropout(drop_rate)
        self.proj = nn.Linear(dim, num_classes) if num_classes else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for tensor in (self.pos_embed, self.q.weight, self.k.weight, self.v.weight):
            trunc_normal_(tensor, std=self.pos_embed.shape[1] ** -0.5)
        for layer in (self.q, self.k, self.v):
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        grid = (x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)  # (B, HW, C)
        x = torch.cat([x.mean(1, keepdim=True), x], dim=1)
        x = x + resize_grid(self.pos_embed[None], grid, self.grid, prefix=1)
        q = self.q(x[:, :1] if self.pool else x[:, 1:]).unflatten(2, (self.heads, self.head_dim)).transpose(1, 2)
        k = self.k(x).unflatten(2, (self.heads, self.head_dim)).transpose(1, 2)
        v = self.v(x).unflatten(2, (self.heads, self.head_dim)).transpose(1, 2)
        x = self.drop(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        if not pre_logits:
            x = self.proj(x)
        return x[:, 0] if self.pool else x.transpose(1, 2).unflatten(2, grid)

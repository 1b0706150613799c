"""Pooling by attention: of tokens (B, N, C) or maps (B, C, H, W) -> (B, C)."""

import torch
from torch import Tensor, nn

from .act import Act
from .attention import Attending, head_width
from .init import trunc_normal_, trunc_normal_tf_
from .mlp import Mlp
from .norm import LayerNorm, Norm
from .position import resize_grid
from .tables import GridTable, Tabled


class AttentionPoolLatent(Attending):
    """Learned queries attend to all tokens, then a residual mlp (MAP head of arXiv:2106.04560): (B, N, C) -> (B, C).

    Of several `latents` the first is taken, or with `pool` "avg" their mean; "" returns them all, (B, latents, C). With
    `tokens`, the number N, a learned position is added to each. `q_proj` off lets the latents ask as they are.
    """

    def __init__(
        self,
        dim: int,
        heads: int = 8,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        norm: Norm | None = LayerNorm,
        act: Act = "gelu",
        dim_out: int | None = None,
        latents: int = 1,
        pool: str = "token",
        q_proj: bool = True,
        qk_norm: bool = False,
        tokens: int = 0,
        drop: float = 0.0,
    ):
        super().__init__(heads, head_width(dim, heads))
        if pool not in ("", "avg", "token"):
            raise ValueError(f"unknown pool '{pool}' of latents; use token, avg or ''")
        if qk_norm and norm is None:
            raise ValueError("qk_norm needs a norm")
        self.pool = pool
        dim_out = dim_out or dim
        if tokens:
            self.pos_embed = nn.Parameter(trunc_normal_tf_(torch.zeros(tokens, dim), std=dim**-0.5))
        else:
            self.register_parameter("pos_embed", None)
        self.latent = nn.Parameter(torch.zeros(1, latents, dim))
        self.q = nn.Linear(dim, dim, bias=qkv_bias) if q_proj else nn.Identity()
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.q_norm = norm(self.head_dim) if qk_norm and norm else nn.Identity()
        self.k_norm = norm(self.head_dim) if qk_norm and norm else nn.Identity()
        self.proj = nn.Linear(dim, dim_out)
        self.proj_drop = nn.Dropout(drop)
        self.norm = norm(dim_out) if norm else nn.Identity()
        self.mlp: nn.Module | None = Mlp(dim_out, int(dim_out * mlp_ratio), act=act)
        trunc_normal_tf_(self.latent, std=dim**-0.5)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Tokens, with what is added to the scores (B, 1, 1, N)."""
        if self.pos_embed is not None:
            x = x + self.pos_embed
        q = self.q(self.latent.expand(x.shape[0], -1, -1)).unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)
        k, v = self.kv(x).unflatten(2, (2, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        x = self.attend(self.q_norm(q), self.k_norm(k), v, bias)
        x = self.proj_drop(self.proj(x.transpose(1, 2).flatten(2)))
        if self.mlp is not None:
            x = x + self.mlp(self.norm(x))
        if self.pool == "token":
            return x[:, 0]
        return x.mean(1) if self.pool == "avg" else x


class AttentionPoolPrr(Attending):
    """Refine all tokens by attention without weights, then take the first, or with `pool` "avg" their mean (patch
    representation refinement): (B, N, C) -> (B, C)."""

    def __init__(self, dim: int, heads: int = 8, pool: str = "token"):
        super().__init__(heads, head_width(dim, heads))
        if pool not in ("avg", "token"):
            raise ValueError(f"unknown pool '{pool}' of refined tokens; use token or avg")
        self.pool = pool

    def refined(self, x: Tensor) -> Tensor:
        """The tokens that are pooled: (B, n, C)."""
        x = x.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)
        asking = x[:, :, :1] if self.pool == "token" else x
        return self.attend(asking, x, x).transpose(1, 2).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        return self.refined(x).mean(1)


class AttentionPool2d(Tabled, Attending):
    """The mean of a map attends to it and itself, then a classifier (CLIP, arXiv:2103.00020): (B, C, H, W) -> logits.

    `grid` is the size of the map that the position table is made for; others resize it. With `pool` off every position
    attends and keeps its place.
    """

    tables = {"pos_embed": GridTable()}

    def __init__(self, dim: int, num_classes: int, grid: tuple[int, int], head_dim: int = 64, drop_rate: float = 0.0):
        super().__init__(dim // head_dim, head_dim)
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
        q = self.q(x[:, :1] if self.pool else x[:, 1:]).unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)
        k = self.k(x).unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)
        v = self.v(x).unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)
        x = self.drop(self.attend(q, k, v).transpose(1, 2).flatten(2))
        if not pre_logits:
            x = self.proj(x)
        return x[:, 0] if self.pool else x.transpose(1, 2).unflatten(2, grid)

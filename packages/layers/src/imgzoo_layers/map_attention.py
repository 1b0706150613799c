"""Attention over all positions of a map (B, C, H, W)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from .attention import Attending, head_width


class Attention2d(Attending):
    """Multi-head self-attention by pointwise convolutions: (B, C, H, W) -> (B, D, H, W).

    The projection behind widens to `dim_out`, or with `expand_first` that to queries, keys and values. With
    `head_first` their channels are ordered by head first. `rel_pos(heads)` makes a module whose result is added to the
    scores.
    """

    def __init__(self, dim: int, dim_out: int | None = None, heads: int = 32, bias: bool = True,
                 expand_first: bool = False, head_first: bool = False, attn_drop: float = 0.0, proj_drop: float = 0.0,
                 rel_pos: Callable[[int], nn.Module] | None = None):  # fmt: skip
        dim_out = dim_out or dim
        inner = dim_out if expand_first else dim
        super().__init__(heads, head_width(inner, heads), attn_drop)
        self.head_first = head_first
        self.qkv = nn.Conv2d(dim, 3 * inner, 1, bias=bias)
        self.rel_pos = rel_pos(heads) if rel_pos else None
        self.proj = nn.Conv2d(inner, dim_out, 1, bias=bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """`bias` (B or 1, heads or 1, HW, HW) is added to the scores."""
        size = (x.shape[2], x.shape[3])
        x = self.qkv(x).flatten(2)
        if self.head_first:
            q, k, v = x.unflatten(1, (self.num_heads, -1)).transpose(2, 3).chunk(3, dim=3)
        else:
            q, k, v = x.unflatten(1, (3, self.num_heads, -1)).transpose(3, 4).unbind(1)
        if self.rel_pos is not None:
            position = self.rel_pos()
            bias = position if bias is None else bias + position
        x = self.attend(q, k, v, bias).transpose(2, 3).flatten(1, 2).unflatten(2, size)
        return self.proj_drop(self.proj(x))


class MultiQueryAttention(Attending):
    """All heads share one head of keys and values (arXiv:1911.02150): (B, C, H, W) -> (B, D, H, W).

    Keys and values may come from another map (B, C, h, w). The projections are bare parameters (heads, key_dim, C),
    (C, key_dim), (C, value_dim) and (D, heads, value_dim).
    """

    def __init__(self, dim: int, dim_out: int | None = None, heads: int = 8, key_dim: int = 64, value_dim: int = 64,
                 attn_drop: float = 0.0, proj_drop: float = 0.0):  # fmt: skip
        super().__init__(heads, key_dim, attn_drop)
        dim_out = dim_out or dim
        self.query_proj = nn.Parameter(torch.randn(heads, key_dim, dim) * dim**-0.5)
        self.key_proj = nn.Parameter(torch.randn(dim, key_dim) * dim**-0.5)
        self.value_proj = nn.Parameter(torch.randn(dim, value_dim) * dim**-0.5)
        self.out_proj = nn.Parameter(torch.randn(dim_out, heads, value_dim) * (heads * value_dim) ** -0.5)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, memory: Tensor | None = None) -> Tensor:
        size = (x.shape[2], x.shape[3])
        tokens = x.flatten(2).transpose(1, 2)
        asked = tokens if memory is None else memory.flatten(2).transpose(1, 2)
        q = torch.einsum("bnc,hkc->bhnk", tokens, self.query_proj)
        k, v = (asked @ self.key_proj)[:, None], (asked @ self.value_proj)[:, None]  # one head for all
        y = self.attend(q, k.expand(-1, self.num_heads, -1, -1), v.expand(-1, self.num_heads, -1, -1))
        return self.proj_drop(torch.einsum("bhnv,dhv->bdn", y, self.out_proj).unflatten(2, size))

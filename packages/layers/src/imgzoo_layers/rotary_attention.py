"""Self-attention whose queries and keys may be turned by place, in the three forms that published weights have."""

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Attending, head_width
from .norm import LayerNorm, Norm
from .rotary import rotate_patches
from .tables import Computed, Tabled


class RotaryAttention(Attending):
    """One layer for query, key and value, with a bias on all of them: (B, prefix + N, C) -> the same shape.

    `kv_heads` fewer heads of keys and values serve several queries each (arXiv:2305.13245); `halves` pairs channels as
    `rotary.rotate` does; `qk_norm` normalizes queries and keys per head, `scale_norm` what comes out.
    """

    def __init__(self, dim: int, heads: int = 8, kv_heads: int | None = None, qkv_bias: bool = True,
                 qk_norm: bool = False, scale_norm: bool = False, proj_bias: bool = True, attn_drop: float = 0.0,
                 proj_drop: float = 0.0, norm: Norm = LayerNorm, prefix: int = 1, halves: bool = False,
                 head_dim: int | None = None):  # fmt: skip
        super().__init__(heads, head_dim or head_width(dim, heads), attn_drop)
        self.dim, self.kv_heads, self.num_prefix_tokens, self.halves = dim, kv_heads or heads, prefix, halves
        if heads % self.kv_heads:
            raise ValueError(f"{heads} heads of queries do not share {self.kv_heads} heads of keys evenly")
        inner = heads * self.head_dim
        self.make_projections(dim, inner, self.kv_heads * self.head_dim, qkv_bias)
        self.q_norm = norm(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = norm(self.head_dim) if qk_norm else nn.Identity()
        self.norm = norm(inner) if scale_norm else nn.Identity()
        self.proj = nn.Linear(inner, dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def make_projections(self, dim: int, inner: int, inner_kv: int, bias: bool) -> None:
        self.qkv = nn.Linear(dim, inner + 2 * inner_kv, bias=bias)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, (B, N, heads * D) each."""
        width = self.kv_heads * self.head_dim
        q, k, v = self.qkv(x).split([self.num_heads * self.head_dim, width, width], dim=2)
        return q, k, v

    def forward(self, x: Tensor, rope: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.project(x)
        q = self.q_norm(q.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2))
        k = self.k_norm(k.unflatten(2, (self.kv_heads, self.head_dim)).transpose(1, 2))
        v = v.unflatten(2, (self.kv_heads, self.head_dim)).transpose(1, 2)
        if rope is not None:
            q = rotate_patches(q, rope, self.num_prefix_tokens, self.halves)
            k = rotate_patches(k, rope, self.num_prefix_tokens, self.halves)
        if self.kv_heads < self.num_heads:
            each = self.num_heads // self.kv_heads
            k, v = k.repeat_interleave(each, dim=1), v.repeat_interleave(each, dim=1)
        x = self.attend(q, k, v, mask)
        return self.proj_drop(self.proj(self.norm(x.transpose(1, 2).flatten(2))))


class SplitRotaryAttention(RotaryAttention):
    """A layer each for query, key and value."""

    key_bias: ClassVar[bool] = True

    def make_projections(self, dim: int, inner: int, inner_kv: int, bias: bool) -> None:
        self.q_proj = nn.Linear(dim, inner, bias=bias)
        self.k_proj = nn.Linear(dim, inner_kv, bias=bias and self.key_bias)
        self.v_proj = nn.Linear(dim, inner_kv, bias=bias)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.q_proj(x), self.k_proj(x), self.v_proj(x)


class SplitQvBiasAttention(SplitRotaryAttention):
    """The same, the keys without bias (EVA-02, arXiv:2303.11331)."""

    key_bias = False


class QvBiasAttention(Tabled, RotaryAttention):
    """One layer, with a bias (unless `qkv_bias` is False) on queries and values only (BEiT, arXiv:2106.08254)."""

    k_bias: Tensor
    tables = {"k_bias": Computed(torch.zeros, "dim")}

    def make_projections(self, dim: int, inner: int, inner_kv: int, bias: bool) -> None:
        if not inner == inner_kv == dim:
            raise ValueError(
                f"one layer whose keys have no bias makes {dim} channels of each, not {inner} of queries and "
                f"{inner_kv} of keys: use a layer each"
            )
        self.q_bias = nn.Parameter(torch.zeros(dim)) if bias else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if bias else None
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.init_non_persistent_buffers()

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        bias = None
        if self.q_bias is not None and self.v_bias is not None:
            bias = torch.cat([self.q_bias, self.k_bias, self.v_bias])
        q, k, v = F.linear(x, self.qkv.weight, bias).chunk(3, dim=2)
        return q, k, v

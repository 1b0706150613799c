"""Self-attention whose queries and keys may be turned by place, in the three forms that published weights have."""

from collections.abc import Sequence
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
    `rotary.rotate` does; `qk_norm` normalizes queries and keys per head, `scale_norm` what comes out. `gated` lets each
    channel through to the last layer by a sigmoid of the input (arXiv:2505.06708).
    """

    def __init__(self, dim: int, heads: int = 8, kv_heads: int | None = None, qkv_bias: bool = True,
                 qk_norm: bool = False, scale_norm: bool = False, proj_bias: bool = True, attn_drop: float = 0.0,
                 proj_drop: float = 0.0, norm: Norm = LayerNorm, prefix: int = 1, halves: bool = False,
                 head_dim: int | None = None, gated: bool = False):  # fmt: skip
        super().__init__(heads, head_dim or head_width(dim, heads), attn_drop)
        self.dim, self.kv_heads, self.num_prefix_tokens, self.halves = dim, kv_heads or heads, prefix, halves
        if heads % self.kv_heads:
            raise ValueError(f"{heads} heads of queries do not share {self.kv_heads} heads of keys evenly")
        inner = heads * self.head_dim
        self.make_projections(dim, inner, self.kv_heads * self.head_dim, qkv_bias)
        self.q_norm = norm(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = norm(self.head_dim) if qk_norm else nn.Identity()
        self.norm = norm(inner) if scale_norm else nn.Identity()
        self.gate = nn.Linear(dim, inner, bias=qkv_bias) if gated else None
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
        gate = None if self.gate is None else self.gate(x).sigmoid()
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
        x = self.norm(self.attend(q, k, v, mask).transpose(1, 2).flatten(2))
        return self.proj_drop(self.proj(x if gate is None else x * gate))


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


ATTENTION: dict[tuple[bool, bool], type[RotaryAttention]] = {
    (True, True): RotaryAttention,
    (True, False): QvBiasAttention,
    (False, True): SplitRotaryAttention,
    (False, False): SplitQvBiasAttention,
}
"""By whether one layer makes queries, keys and values, and whether keys have a bias."""


def heads_of_keys(kv_heads: int | Sequence[int] | None, depth: int, rope: str | None) -> list[int | None]:
    """Heads of keys and values of each of `depth` blocks, None for as many as of queries.

    Raises:
        ValueError: there is not a number for each block, or heads that share keys have angles of their own.
    """
    if kv_heads is None:
        return [None] * depth
    if rope == "mixed":
        raise ValueError("heads with mixed angles of their own share no keys: leave num_kv_heads out")
    if isinstance(kv_heads, int):
        return [kv_heads] * depth
    if len(kv_heads) != depth:
        raise ValueError(f"num_kv_heads has a number for each of {depth} blocks, not {len(kv_heads)}")
    return list(kv_heads)

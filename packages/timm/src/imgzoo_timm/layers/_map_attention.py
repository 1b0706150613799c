"""Attention over maps, and pools that learn how."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from imgzoo_layers import learned_pool, map_attention

from ._base import adapter, placed, renamed
from ._helpers import to_2tuple


@adapter
@placed
class Attention2d(map_attention.Attention2d):
    def __init__(self, dim: int, dim_out: int | None = None, num_heads: int = 32, bias: bool = True,
                 expand_first: bool = False, head_first: bool = False, attn_drop: float = 0.0,
                 proj_drop: float = 0.0):  # fmt: skip
        super().__init__(dim, dim_out, num_heads, bias, expand_first, head_first, attn_drop, proj_drop)

    masked = renamed(map_attention.Attention2d.forward, "masked")

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        return self.masked(x, attn_mask)


@adapter
@placed
class MultiQueryAttentionV2(map_attention.MultiQueryAttention):
    def __init__(self, dim: int, dim_out: int | None = None, num_heads: int = 8, key_dim: int = 64,
                 value_dim: int = 64, attn_drop: float = 0.0, proj_drop: float = 0.0):  # fmt: skip
        super().__init__(dim, dim_out, num_heads, key_dim, value_dim, attn_drop, proj_drop)

    asked = renamed(map_attention.MultiQueryAttention.forward, "asked")

    def forward(self, x: Tensor, m: Tensor | None = None) -> Tensor:
        return self.asked(x, m)


@adapter
@placed
class MultiQueryAttention2d(map_attention.MultiQueryAttention2d):
    def __init__(self, dim: int, dim_out: int | None = None, num_heads: int = 8, key_dim: int | None = None,
                 value_dim: int | None = None, query_strides: Any = 1, kv_stride: int = 1, dw_kernel_size: int = 3,
                 dilation: int = 1, padding: Any = "", attn_drop: float = 0.0, proj_drop: float = 0.0,
                 norm_layer: Any = nn.BatchNorm2d, use_bias: bool = False):  # fmt: skip
        padding = padding.lower() if isinstance(padding, str) else padding
        super().__init__(dim, dim_out, num_heads, key_dim, value_dim, to_2tuple(query_strides), kv_stride,
                         dw_kernel_size, dilation, padding, attn_drop, proj_drop, norm_layer, use_bias)  # fmt: skip
        self.query_strides, self.kv_stride = to_2tuple(query_strides), kv_stride


@adapter
@placed
class LsePlus1d(learned_pool.LogSumExpPool):
    def __init__(self, r: float = 10.0, r_learnable: bool = True):
        super().__init__(r, r_learnable)


@adapter
@placed
class LsePlus2d(learned_pool.LogSumExpPool2d):
    def __init__(self, r: float = 10.0, r_learnable: bool = True, flatten: bool = True):
        super().__init__(r, r_learnable, flatten)


@adapter
@placed
class SimPool1d(learned_pool.SimPool):
    def __init__(self, dim: int, num_heads: int = 1, qkv_bias: bool = False, qk_norm: bool = False,
                 gamma: float | None = None, norm_layer: Any = None):  # fmt: skip
        super().__init__(dim, num_heads, qkv_bias, qk_norm, gamma, norm_layer or nn.LayerNorm)


@adapter
@placed
class SimPool2d(learned_pool.SimPool2d):
    def __init__(self, dim: int, num_heads: int = 1, qkv_bias: bool = False, qk_norm: bool = False,
                 gamma: float | None = None, norm_layer: Any = None):  # fmt: skip
        super().__init__(dim, num_heads, qkv_bias, qk_norm, gamma, norm_layer or nn.LayerNorm)

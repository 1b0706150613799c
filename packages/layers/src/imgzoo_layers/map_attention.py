"""Attention over all positions of a map (B, C, H, W)."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Attending, head_width
from .conv import create_conv
from .pool import AvgPool2dSame
from .util import pair


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


class MultiQueryAttention2d(Attending):
    """The same on subsampled maps (MobileNetV4, arXiv:2404.10518, section 4): (B, C, H, W) -> (B, D, H, W).

    Queries are pooled by `query_stride`, and what they find is enlarged again; keys and values are strided depthwise
    convolutions, by `kv_stride`. Keys `query`, `key`, `value`, `output`.
    """

    def __init__(self, dim: int, dim_out: int | None = None, heads: int = 8, key_dim: int | None = None,
                 value_dim: int | None = None, query_stride: int | tuple[int, int] = 1, kv_stride: int = 1,
                 kernel: int = 3, dilation: int = 1, padding: str | int | tuple[int, int] = "", attn_drop: float = 0.0,
                 proj_drop: float = 0.0, norm: Callable[[int], nn.Module] = nn.BatchNorm2d,
                 bias: bool = False):  # fmt: skip
        dim_out = dim_out or dim
        key_dim, value_dim = key_dim or dim // heads, value_dim or dim // heads
        super().__init__(heads, key_dim, attn_drop)
        stride = pair(query_stride)
        self.pooled = stride != (1, 1)
        self.query, self.key, self.value, self.output = (nn.Sequential() for _ in range(4))
        if self.pooled:
            pool = AvgPool2dSame if padding == "same" else nn.AvgPool2d
            self.query.add_module("down_pool", pool(stride, stride))
            self.query.add_module("norm", norm(dim))
        self.query.add_module("proj", nn.Conv2d(dim, heads * key_dim, 1, bias=bias))
        for part, width in ((self.key, key_dim), (self.value, value_dim)):
            if kv_stride > 1:
                part.add_module("down_conv", create_conv(dim, dim, kernel, kv_stride, padding, dilation, dim))
                part.add_module("norm", norm(dim))
            part.add_module("proj", nn.Conv2d(dim, width, 1, bias=bias))
        self.output.add_module("proj", nn.Conv2d(heads * value_dim, dim_out, 1, bias=bias))
        self.output.add_module("drop", nn.Dropout(proj_drop))

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        """`attn_mask` (B or 1, heads or 1, queries, keys) is added to the scores."""
        q = self.query(x)
        size = (q.shape[2], q.shape[3])
        q = q.unflatten(1, (self.num_heads, self.head_dim)).flatten(3).transpose(2, 3)  # (B, H, N, D)
        k = self.key(x).flatten(2).transpose(1, 2).unsqueeze(1)  # (B, 1, n, D)
        v = self.value(x).flatten(2).transpose(1, 2).unsqueeze(1)
        y = self.attend(q, k.expand(-1, self.num_heads, -1, -1), v.expand(-1, self.num_heads, -1, -1), attn_mask)
        y = y.transpose(2, 3).flatten(1, 2).unflatten(2, size)
        if self.pooled:
            y = F.interpolate(y, (x.shape[2], x.shape[3]), mode="bilinear", align_corners=False)
        return self.output(y)

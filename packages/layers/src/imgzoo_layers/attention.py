"""Attention over tokens (B, N, C), in `heads` heads of width C / heads."""

import math

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from .norm import LayerNorm, Norm, RmsNorm


class Attending(nn.Module):
    """What modules of multi-head attention share: widths, dropout of the weights, and the attention itself.

    With `fused_attn` off the weights pass through `attn_drop`, where hooks see them; `set_fused_attn` switches a whole
    network. It starts off, as `fused` says, where values are wider than keys, which no fused kernel of a CPU takes.
    """

    def __init__(self, heads: int, head_dim: int, attn_drop: float = 0.0, fused: bool = True):
        super().__init__()
        if heads < 1 or head_dim < 1:
            raise ValueError(f"{heads} heads of {head_dim} channels cannot attend: give more channels")
        self.num_heads, self.head_dim = heads, head_dim
        self.scale = head_dim**-0.5
        self.fused_attn = fused
        self.attn_drop = nn.Dropout(attn_drop)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """Queries (B, H, N, D), keys and values (B, H, M, D), with what is added to the scores -> (B, H, N, D)."""
        if self.fused_attn:
            drop = self.attn_drop.p if self.training else 0.0
            return F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=drop, scale=self.scale)
        scores = biased((q * self.scale) @ k.transpose(-2, -1), bias)
        return self.attn_drop(scores.softmax(dim=-1)) @ v


def biased(scores: Tensor, bias: Tensor | None) -> Tensor:
    """Scores with what is added to them; tracers see one call, for they cannot tell whether there will be a bias."""
    return scores if bias is None else scores + bias


torch.fx.wrap("biased")


def set_fused_attn(model: nn.Module, enable: bool = True) -> None:
    """Let every attention of a network run in torch's fused kernel, or step by step, for hooks on `attn_drop`."""
    for module in model.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = enable  # type: ignore[assignment]


def head_width(dim: int, heads: int) -> int:
    if heads < 1 or dim % heads:
        raise ValueError(f"the width {dim} does not divide into {heads} heads")
    return dim // heads


class Attention(Attending):
    """Multi-head self-attention with one layer for query, key and value (arXiv:1706.03762): (B, N, C) -> (B, N, C).

    `qk_norm` normalizes queries and keys per head (arXiv:2302.05442); `scale_norm` the heads' output.
    """

    def __init__(
        self,
        dim: int,
        heads: int = 8,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        scale_norm: bool = False,
        proj_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        norm: Norm = LayerNorm,
    ):
        super().__init__(heads, head_width(dim, heads), attn_drop)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm = norm(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = norm(self.head_dim) if qk_norm else nn.Identity()
        self.norm = norm(dim) if scale_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        x = self.attend(self.q_norm(q), self.k_norm(k), v, bias)
        return self.proj_drop(self.proj(self.norm(x.transpose(1, 2).flatten(2))))


class DiffAttending(Attending):
    """What modules of differential attention share: the difference of two softmax maps cancels attention noise.

    The weight of the second map is learned around a start that grows with depth (arXiv:2410.05258, eq. 1 to 3).
    """

    def __init__(self, heads: int, head_dim: int, depth: int, attn_drop: float = 0.0):
        super().__init__(heads, head_dim, attn_drop)
        self.lambda_init = 0.8 - 0.6 * math.exp(-0.3 * depth)
        self.lambda_q1 = nn.Parameter(0.1 * torch.randn(head_dim))
        self.lambda_k1 = nn.Parameter(0.1 * torch.randn(head_dim))
        self.lambda_q2 = nn.Parameter(0.1 * torch.randn(head_dim))
        self.lambda_k2 = nn.Parameter(0.1 * torch.randn(head_dim))

    def weight(self) -> Tensor:
        first = (self.lambda_q1 * self.lambda_k1).sum().exp()
        return first - (self.lambda_q2 * self.lambda_k2).sum().exp() + self.lambda_init

    def differ(self, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
        """Attend by two maps and subtract: q, k (B, N, H, 2, D), v (B, N, H, 2D) -> (B, N, H, 2D)."""
        q, k, v = q.permute(3, 0, 2, 1, 4), k.permute(3, 0, 2, 1, 4), v.transpose(1, 2)
        second = self.weight().type_as(v) * self.attend(q[1], k[1], v, bias)
        return (self.attend(q[0], k[0], v, bias) - second).transpose(1, 2)


class DiffAttention(DiffAttending):
    """Multi-head differential self-attention (arXiv:2410.05258): (B, N, C) -> (B, N, C)."""

    def __init__(
        self,
        dim: int,
        heads: int = 8,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        scale_norm: bool = False,
        proj_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        norm: Norm = LayerNorm,
        depth: int = 0,
    ):
        super().__init__(heads, dim // heads // 2, depth, attn_drop)
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm = norm(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = norm(self.head_dim) if qk_norm else nn.Identity()
        self.norm = norm(dim) if scale_norm else nn.Identity()
        self.proj = nn.Linear(dim, dim, bias=proj_bias)
        self.proj_drop = nn.Dropout(proj_drop)
        self.sub_norm = RmsNorm(2 * self.head_dim, eps=1e-5)

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=2)
        x = self.differ(
            self.q_norm(q.unflatten(2, (self.num_heads, 2, self.head_dim))),
            self.k_norm(k.unflatten(2, (self.num_heads, 2, self.head_dim))),
            v.unflatten(2, (self.num_heads, 2 * self.head_dim)),
            bias,
        )
        x = self.sub_norm(x) * (1 - self.lambda_init)
        return self.proj_drop(self.proj(self.norm(x.flatten(2))))


class LayerScale(nn.Module):
    """Scale each channel of a residual branch, from a small start (arXiv:2103.17239): (..., C) -> (..., C)."""

    def __init__(self, dim: int, init: float = 1e-5):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(init)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


class LayerScale2d(LayerScale):
    """Layer scale for maps (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma[:, None, None]


def layer_scale_of(dim: int, init: float | None) -> nn.Module:
    """`LayerScale`, or nothing where the start is None."""
    return LayerScale(dim, init) if init else nn.Identity()

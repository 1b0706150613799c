"""Attention over tokens, layer scale, and pooling by attention."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo_layers import attention as native
from imgzoo_layers import attention_pool, rotary
from imgzoo_layers.position import resize_grid

from ._base import adapter, placed, two
from ._helpers import to_2tuple
from ._mlp import Mlp


def maybe_add_mask(scores: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    return scores if attn_mask is None else scores + attn_mask


def resolve_self_attn_mask(
    seq_len: int, attn: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False
) -> Tensor | None:
    """What is added to scores `attn` (..., N, N): a mask of booleans or numbers, or the causal one."""
    if is_causal:
        seen = torch.ones(seq_len, seq_len, dtype=torch.bool, device=attn.device).tril()
        attn_mask = seen if attn_mask is None else attn_mask
    if attn_mask is None or attn_mask.dtype != torch.bool:
        return attn_mask
    return torch.zeros_like(attn_mask, dtype=attn.dtype).masked_fill(~attn_mask, float("-inf"))


@adapter
@placed
class Attention(native.Attention):
    def __init__(self, dim: int, num_heads: int = 8, attn_head_dim: int | None = None, dim_out: int | None = None,
                 qkv_bias: bool = False, qk_norm: bool = False, scale_norm: bool = False, proj_bias: bool = True,
                 gated: bool = False, attn_drop: float = 0.0, proj_drop: float = 0.0,
                 norm_layer: Any = None):  # fmt: skip
        if (qk_norm or scale_norm) and norm_layer is None:
            raise ValueError("qk_norm and scale_norm need a norm_layer")
        inner = attn_head_dim * num_heads if attn_head_dim else dim
        norm = norm_layer or nn.Identity
        super().__init__(inner, num_heads, qkv_bias, qk_norm, scale_norm, proj_bias, attn_drop, proj_drop, norm)
        if (inner, dim_out or dim) != (dim, dim):
            self.qkv = nn.Linear(dim, 3 * inner, bias=qkv_bias)
            self.proj = nn.Linear(inner, dim_out or dim, bias=proj_bias)
        self.gate = nn.Linear(dim, inner, bias=qkv_bias) if gated else None

    @property
    def attn_dim(self) -> int:
        return self.num_heads * self.head_dim

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        bias = resolve_self_attn_mask(x.shape[1], x, attn_mask, is_causal) if is_causal else attn_mask
        if bias is not None and bias.dtype == torch.bool and not self.fused_attn:
            bias = resolve_self_attn_mask(x.shape[1], x, bias)
        if getattr(self, "gate", None) is None:
            return super().forward(x, bias)
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        y = self.attend(self.q_norm(q), self.k_norm(k), v, bias).transpose(1, 2).flatten(2)
        return self.proj_drop(self.proj(self.norm(y * self.gate(x).sigmoid())))  # type: ignore[misc]


@adapter
@placed
class LayerScale(native.LayerScale):
    def __init__(self, dim: int, init_values: float = 1e-5, inplace: bool = False):
        super().__init__(dim, init_values)
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(self.gamma) if getattr(self, "inplace", False) else x * self.gamma


@adapter
@placed
class LayerScale2d(native.LayerScale2d):
    def __init__(self, dim: int, init_values: float = 1e-5, inplace: bool = False):
        super().__init__(dim, init_values)
        self.inplace = inplace

    def forward(self, x: Tensor) -> Tensor:
        gamma = self.gamma.view(1, -1, 1, 1)
        return x.mul_(gamma) if getattr(self, "inplace", False) else x * gamma


@adapter
@placed
class AttentionPoolLatent(attention_pool.AttentionPoolLatent):
    """One learned query pools tokens; other forms of the field's class (`feat_size`, `pool_type="avg"`) are refused."""

    def __init__(self, in_features: int, out_features: int | None = None, embed_dim: int | None = None,
                 num_heads: int = 8, feat_size: int | None = None, mlp_ratio: float = 4.0, qkv_bias: bool = True,
                 q_proj: bool = True, qk_norm: bool = False, latent_len: int = 1, latent_dim: int | None = None,
                 pos_embed: str = "", pool_type: str = "token", norm_layer: Any = None, act_layer: Any = nn.GELU,
                 drop: float = 0.0):  # fmt: skip
        width = embed_dim or in_features
        if (out_features or in_features, width, latent_dim or width) != (in_features,) * 3 or feat_size or pos_embed \
                or qk_norm or latent_len != 1 or pool_type != "token" or not q_proj:  # fmt: skip
            raise ValueError("imgzoo pools by one latent of the tokens' width, without position or normed queries: see "
                             "imgzoo_layers.attention_pool.AttentionPoolLatent")  # fmt: skip
        super().__init__(in_features, num_heads, mlp_ratio, qkv_bias, norm_layer or nn.Identity, act_layer)
        self.mlp = Mlp(in_features, int(in_features * mlp_ratio), act_layer=act_layer)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        return super().forward(x, attn_mask)


class MapPool(nn.Module):
    """The mean of a map, or a class token, attends to it and itself: what both forms below share."""

    def __init__(self, in_features: int, out_features: int | None, embed_dim: int | None, head_dim: int | None,
                 num_heads: int | None, qkv_bias: bool, qkv_separate: bool, pool_type: str, class_token: bool,
                 drop_rate: float):  # fmt: skip
        super().__init__()
        if pool_type not in ("", "token"):
            raise ValueError(f"pool_type is 'token' or '', not {pool_type!r}")
        self.embed_dim = embed_dim = embed_dim or in_features
        self.in_features, self.out_features = in_features, out_features or in_features
        self.num_heads = num_heads or embed_dim // (head_dim or 64)
        if embed_dim % self.num_heads:
            raise ValueError(f"the width {embed_dim} does not divide into {self.num_heads} heads")
        self.head_dim, self.pool_type, self.scale = embed_dim // self.num_heads, pool_type, 0.0
        self.scale = self.head_dim**-0.5
        self.cls_token = nn.Parameter(torch.zeros(1, embed_dim)) if class_token else None
        if qkv_separate:
            self.q = nn.Linear(in_features, embed_dim, bias=qkv_bias)
            self.k = nn.Linear(in_features, embed_dim, bias=qkv_bias)
            self.v = nn.Linear(in_features, embed_dim, bias=qkv_bias)
            self.qkv = None
        else:
            self.q = self.k = self.v = None
            self.qkv = nn.Linear(in_features, 3 * embed_dim, bias=qkv_bias)
        self.drop = nn.Dropout(drop_rate)
        self.proj = nn.Linear(embed_dim, self.out_features)

    def init_weights(self, zero_init_last: bool = False) -> None:
        for layer in (self.q, self.k, self.v) if self.qkv is None else (self.qkv,):
            assert layer is not None
            nn.init.trunc_normal_(layer.weight, std=self.in_features**-0.5)
            nn.init.zeros_(layer.bias)
        if self.cls_token is not None:
            nn.init.trunc_normal_(self.cls_token, std=self.in_features**-0.5)

    def reset(self, num_classes: int | None = None, pool_type: str | None = None, device: Any = None,
              dtype: Any = None) -> None:  # fmt: skip
        like = next(self.parameters())
        if pool_type is not None:
            self.pool_type = pool_type
        if num_classes is not None:
            self.proj = nn.Linear(self.embed_dim, num_classes) if num_classes > 0 else nn.Identity()
            self.proj.to(device or like.device, dtype or like.dtype).train(self.training)
            self.out_features = num_classes if num_classes > 0 else self.embed_dim

    def with_first(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, 1 + H * W, C)."""
        x = x.flatten(2).transpose(1, 2)
        first = x.mean(1, keepdim=True) if self.cls_token is None else self.cls_token.expand(x.shape[0], -1, -1)
        return torch.cat([first, x], dim=1)

    def heads(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        split = (self.num_heads, self.head_dim)
        if self.qkv is None:
            q, k, v = (layer(x).unflatten(2, split).transpose(1, 2) for layer in (self.q, self.k, self.v))  # type: ignore[misc]
            return q, k, v
        q, k, v = self.qkv(x).unflatten(2, (3, *split)).permute(2, 0, 3, 1, 4).unbind(0)
        return q, k, v

    def ended(self, x: Tensor, grid: tuple[int, int], pre_logits: bool) -> Tensor:
        x = x.transpose(1, 2).flatten(2)
        x = self.drop(x)
        if pre_logits:
            return x[:, 0] if self.pool_type == "token" else x
        x = self.proj(x)
        return x[:, 0] if self.pool_type == "token" else x[:, 1:].unflatten(1, grid).permute(0, 3, 1, 2)


@placed
class AttentionPool2d(MapPool):
    """With a learned position for each place of a map of `feat_size`; others resize the table."""

    def __init__(self, in_features: int, feat_size: int | tuple[int, int] = 7, out_features: int | None = None,
                 embed_dim: int | None = None, head_dim: int | None = 64, num_heads: int | None = None,
                 qkv_bias: bool = True, qkv_separate: bool = False, pool_type: str = "token",
                 class_token: bool = False, drop_rate: float = 0.0):  # fmt: skip
        super().__init__(in_features, out_features, embed_dim, head_dim, num_heads, qkv_bias, qkv_separate, pool_type,
                         class_token, drop_rate)  # fmt: skip
        self.feat_size = to_2tuple(feat_size)
        self.seq_len = self.feat_size[0] * self.feat_size[1]
        self.pos_embed = nn.Parameter(torch.zeros(self.seq_len + 1, in_features))
        self.init_weights()
        nn.init.trunc_normal_(self.pos_embed, std=in_features**-0.5)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        grid = (x.shape[2], x.shape[3])
        x = self.with_first(x)
        x = x + resize_grid(self.pos_embed[None], grid, self.feat_size, prefix=1).to(x.dtype)
        return self.ended(F.scaled_dot_product_attention(*self.heads(x)), grid, pre_logits)


@placed
class RotAttentionPool2d(MapPool):
    """With rotary position, measured on a map of `ref_feat_size`."""

    def __init__(self, in_features: int, out_features: int | None = None, ref_feat_size: int | tuple[int, int] = 7,
                 embed_dim: int | None = None, head_dim: int | None = 64, num_heads: int | None = None,
                 qkv_bias: bool = True, qkv_separate: bool = False, pool_type: str = "token",
                 class_token: bool = False, drop_rate: float = 0.0, rope_type: str = "cat"):  # fmt: skip
        if rope_type != "cat":
            raise ValueError(f"rope_type is 'cat' here, not {rope_type!r}: see imgzoo_layers.rotary for other tables")
        super().__init__(in_features, out_features, embed_dim, head_dim, num_heads, qkv_bias, qkv_separate, pool_type,
                         class_token, drop_rate)  # fmt: skip
        self.ref_feat_size = two(ref_feat_size)
        self.init_weights()

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        grid = (x.shape[2], x.shape[3])
        bands = rotary.frequencies(self.head_dim, 10000.0).to(x.device)
        table = rotary.axial_table(grid, bands, self.ref_feat_size)
        q, k, v = self.heads(self.with_first(x))
        q, k = rotary.rotate_patches(q, table).to(v.dtype), rotary.rotate_patches(k, table).to(v.dtype)
        return self.ended(F.scaled_dot_product_attention(q, k, v), grid, pre_logits)

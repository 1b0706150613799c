"""Attention over tokens, layer scale, and pooling by attention."""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo_layers import attention as native
from imgzoo_layers import attention_pool, rotary, rotary_attention
from imgzoo_layers.init import trunc_normal_tf_
from imgzoo_layers.position import resize_grid

from ._base import adapter, placed, renamed, two
from ._helpers import to_2tuple
from ._mlp import Mlp
from ._norm import LayerNorm
from ._norm_names import get_norm_layer
from ._rotary import create_rope_embed


def maybe_add_mask(scores: Tensor, attn_mask: Tensor | None = None) -> Tensor:
    return native.biased(scores, attn_mask)


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


def self_attn_bias(x: Tensor, attn_mask: Tensor | None, is_causal: bool, fused: bool) -> Tensor | None:
    """The mask as it is where the fused kernel takes it, else what is added to the scores; tracers see one call."""
    if is_causal or (attn_mask is not None and attn_mask.dtype == torch.bool and not fused):
        return resolve_self_attn_mask(x.shape[1], x, attn_mask, is_causal)
    return attn_mask


torch.fx.wrap("self_attn_bias")


class OfHeads:
    """In front of attention: the width of all its heads."""

    num_heads: int
    head_dim: int

    @property
    def attn_dim(self) -> int:
        return self.num_heads * self.head_dim

    @attn_dim.setter
    def attn_dim(self, dim: int) -> None:
        """Of the heads, as they are: who prunes them sets their number or width, too."""


@adapter
@placed
class Attention(OfHeads, native.Attention):
    __constants__: ClassVar[list[str]] = ["gated"]
    gated = False

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
        self.gated = gated

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        bias = self_attn_bias(x, attn_mask, is_causal, self.fused_attn)
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        y = self.attend(self.q_norm(q), self.k_norm(k), v, bias).transpose(1, 2).flatten(2)
        if self.gated:
            y = y * self.gate(x).sigmoid()  # type: ignore[misc]
        return self.proj_drop(self.proj(self.norm(y)))


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
    """Learned latents pool tokens of `embed_dim` channels into `out_features` (0: as they are, else `in_features`)."""

    def __init__(self, in_features: int, out_features: int | None = None, embed_dim: int | None = None,
                 num_heads: int = 8, feat_size: int | None = None, mlp_ratio: float = 4.0, qkv_bias: bool = True,
                 q_proj: bool = True, qk_norm: bool = False, latent_len: int = 1, latent_dim: int | None = None,
                 pos_embed: str = "", pool_type: str = "token", norm_layer: Any = None, act_layer: Any = nn.GELU,
                 drop: float = 0.0):  # fmt: skip
        dim = embed_dim or in_features
        width = latent_dim or dim
        if width != dim and not q_proj:
            raise ValueError(f"latents that ask as they are have the width of tokens, {dim}, not latent_dim={width}")
        if pos_embed not in ("", "abs") or (pos_embed and not feat_size):
            raise ValueError("pos_embed is '' or 'abs', and 'abs' needs feat_size")
        out = dim if out_features == 0 else out_features or in_features
        super().__init__(dim, num_heads, mlp_ratio, qkv_bias, norm_layer, act_layer, out, latent_len,
                         pool_type, q_proj, qk_norm and norm_layer is not None,
                         feat_size or 0 if pos_embed else 0, drop)  # fmt: skip
        if qk_norm and norm_layer is None:  # a norm of queries and keys alone
            self.q_norm, self.k_norm = nn.LayerNorm(self.head_dim), nn.LayerNorm(self.head_dim)
        if width != dim:
            self.latent = nn.Parameter(trunc_normal_tf_(torch.zeros(1, latent_len, width), std=width**-0.5))
            self.q = nn.Linear(width, dim, bias=qkv_bias)
        self.out_features = out
        self.mlp = Mlp(self.out_features, int(self.out_features * mlp_ratio), act_layer=act_layer)
        if out_features == 0:
            self.proj = self.norm = nn.Identity()
            self.mlp = None

    @property
    def latent_len(self) -> int:
        return self.latent.shape[1]

    @property
    def latent_dim(self) -> int:
        return self.latent.shape[2]

    pooled = renamed(attention_pool.AttentionPoolLatent.forward, "pooled")

    def forward(self, x: Tensor, attn_mask: Tensor | None = None) -> Tensor:
        return self.pooled(x, attn_mask)


@placed
class AttentionPoolPrr(attention_pool.AttentionPoolPrr):
    def __init__(self, dim: int, num_heads: int = 8, pool_type: str = "token", pre_norm: bool = False,
                 post_norm: bool = False, norm_layer: Any = None):  # fmt: skip
        super().__init__(dim, num_heads, pool_type)
        self.out_features = dim
        norm = get_norm_layer(norm_layer) or LayerNorm
        self.pre_norm = norm(dim) if pre_norm else nn.Identity()
        self.post_norm = norm(dim) if post_norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.post_norm(self.refined(self.pre_norm(x))).mean(1)


@adapter
@placed
class DiffAttention(native.DiffAttention):
    def __init__(self, dim: int, num_heads: int = 8, qkv_bias: bool = False, qk_norm: bool = False,
                 scale_norm: bool = False, proj_bias: bool = True, attn_drop: float = 0.0, proj_drop: float = 0.0,
                 norm_layer: Any = None, depth: int = 0, dual_lambda: bool = False):  # fmt: skip
        if dual_lambda:
            raise ValueError("the weight of the second map has vectors here, not two numbers: leave dual_lambda out")
        if (qk_norm or scale_norm) and norm_layer is None:
            raise ValueError("qk_norm and scale_norm need a norm_layer")
        super().__init__(dim, num_heads, qkv_bias, qk_norm, scale_norm, proj_bias, attn_drop, proj_drop,
                         norm_layer or nn.Identity, depth)  # fmt: skip

    biased = renamed(native.DiffAttention.forward, "biased")

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        return self.biased(x, self_attn_bias(x, attn_mask, is_causal, self.fused_attn))


@placed
class AttentionRope(OfHeads, rotary_attention.RotaryAttention):
    """Attention whose queries and keys a table turns; `q_proj`, `k_proj`, `v_proj` where they are not fused."""

    __constants__: ClassVar[list[str]] = ["qkv_fused"]
    key_bias = True

    def __init__(self, dim: int, num_heads: int = 8, dim_out: int | None = None, qkv_bias: bool = True,
                 qkv_fused: bool = True, num_prefix_tokens: int = 1, attn_drop: float = 0.0, proj_drop: float = 0.0,
                 attn_head_dim: int | None = None, norm_layer: Any = None, qk_norm: bool = False,
                 scale_norm: bool = False, proj_bias: bool = True, rotate_half: bool = False, gated: bool = False,
                 num_kv_heads: int | None = None):  # fmt: skip
        if (qk_norm or scale_norm) and norm_layer is None:
            raise ValueError("qk_norm and scale_norm need a norm_layer")
        if gated:
            raise ValueError("turned attention has no gate here: see imgzoo_layers.rotary_attention")
        if qkv_fused and num_kv_heads not in (None, num_heads):
            raise ValueError("keys of fewer heads have layers of their own: give qkv_fused=False")
        self.qkv_fused = qkv_fused
        super().__init__(dim, num_heads, num_kv_heads, qkv_bias, qk_norm, scale_norm, proj_bias, attn_drop, proj_drop,
                         norm_layer or nn.Identity, num_prefix_tokens, rotate_half, attn_head_dim)  # fmt: skip
        self.rotate_half, self.num_kv_heads = rotate_half, self.kv_heads
        if dim_out not in (None, dim):
            self.proj = nn.Linear(self.num_heads * self.head_dim, dim_out, bias=proj_bias)  # type: ignore[arg-type]

    def make_projections(self, dim: int, inner: int, inner_kv: int, bias: bool) -> None:
        form = rotary_attention.RotaryAttention if self.qkv_fused else rotary_attention.SplitRotaryAttention
        form.make_projections(self, dim, inner, inner_kv, bias)  # type: ignore[arg-type]

    joint = renamed(rotary_attention.RotaryAttention.project, "joint")
    apart = renamed(rotary_attention.SplitRotaryAttention.project, "apart")
    turned = renamed(rotary_attention.RotaryAttention.forward, "turned")

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.joint(x) if self.qkv_fused else self.apart(x)

    def forward(self, x: Tensor, rope: Tensor | None = None, attn_mask: Tensor | None = None,
                is_causal: bool = False) -> Tensor:  # fmt: skip
        return self.turned(x, rope, self_attn_bias(x, attn_mask, is_causal, True))


class MapPool(nn.Module):
    """The mean of a map, or a class token, attends to it and itself: what both forms below share."""

    def __init__(self, in_features: int, out_features: int | None, embed_dim: int | None, head_dim: int | None,
                 num_heads: int | None, qkv_bias: bool, qkv_separate: bool, pool_type: str, class_token: bool,
                 drop_rate: float):  # fmt: skip
        super().__init__()
        if pool_type not in ("", "token"):
            raise ValueError(f"pool_type is 'token' or '', not {pool_type!r}")
        self.embed_dim = embed_dim = embed_dim or in_features
        wanted = in_features if out_features is None else out_features
        self.in_features, self.out_features = in_features, wanted or embed_dim
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
        self.proj = nn.Linear(embed_dim, wanted) if wanted else nn.Identity()

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
        if self.q is not None and self.k is not None and self.v is not None:
            q, k, v = self.q(x), self.k(x), self.v(x)
        else:
            q, k, v = self.qkv(x).chunk(3, dim=2)  # type: ignore[misc]
        return (q.unflatten(2, split).transpose(1, 2), k.unflatten(2, split).transpose(1, 2),
                v.unflatten(2, split).transpose(1, 2))  # fmt: skip

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
        super().__init__(in_features, out_features, embed_dim, head_dim, num_heads, qkv_bias, qkv_separate, pool_type,
                         class_token, drop_rate)  # fmt: skip
        self.ref_feat_size = two(ref_feat_size)
        kept = {"in_pixels": False, "ref_feat_shape": list(self.ref_feat_size)} if rope_type in ("base", "cat") else {}
        if rope_type == "mixed":
            raise ValueError(
                "learned frequencies belong to the blocks of a network: rope_type is base, cat, dinov3, mrope"
            )
        if rope_type == "dinov3":
            kept["rotate_half"] = False
        self.pos_embed = create_rope_embed(rope_type, self.embed_dim, self.num_heads, **kept)
        self.rope_type, self.halves = rope_type, bool(self.pos_embed.halves)
        self.init_weights()

    def table(self, grid: tuple[int, int]) -> Tensor:
        return self.pos_embed.joined(list(grid))  # type: ignore[operator]

    def __prepare_scriptable__(self) -> nn.Module:
        """The same tensors in a module whose table is a native one, which scripts."""
        kind, grid, copy = self.rope_type, self.ref_feat_size, Scripted.__new__(Scripted)
        copy.__dict__.update(self.__dict__)
        if kind == "mrope":
            table: nn.Module = rotary.MultimodalRotary(self.head_dim)
        elif kind == "dinov3":
            table = rotary.CenteredRotary(self.head_dim, grid, halves=False)
        else:
            table = rotary.AxialRotary(self.head_dim, grid, reference=grid)
        copy.__dict__["_modules"] = {**self._modules, "pos_embed": table.to(next(self.parameters()).device)}
        return copy

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        grid = (x.shape[2], x.shape[3])
        table = self.table(grid)
        q, k, v = self.heads(self.with_first(x))
        q = rotary.rotate_patches(q, table, 1, self.halves).to(v.dtype)
        k = rotary.rotate_patches(k, table, 1, self.halves).to(v.dtype)
        return self.ended(F.scaled_dot_product_attention(q, k, v), grid, pre_logits)


class Scripted(RotAttentionPool2d):
    """What scripts of it: the table is a native module's."""

    def table(self, grid: tuple[int, int]) -> Tensor:
        return self.pos_embed(grid)

"""Attention of LeViT, TinyViT, EfficientViT and EfficientFormer V2 in the field's arguments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from imgzoo.errors import OptionError
from imgzoo_archs_transformer import efficientformer_v2, efficientvit_msra, levit, tiny_vit
from imgzoo_timm.layers._base import adapter, placed
from imgzoo_timm.layers._helpers import to_2tuple


def refuse_unless(fits: bool, rule: str, **given: Any) -> None:
    """Raise `OptionError` for widths that a layer of imgzoo does not have: the rule, and what was given."""
    if not fits:
        raise OptionError(f"{rule}, not {', '.join(f'{key}={each}' for key, each in given.items())}")


@adapter
@placed
class CascadedGroupAttention(efficientvit_msra.CascadedGroupAttention):
    def __init__(self, dim: int, key_dim: int, num_heads: int = 8, attn_ratio: int = 4, resolution: int = 14,
                 kernels: Sequence[int] = (5, 5, 5, 5)):  # fmt: skip
        fits = attn_ratio * key_dim * num_heads == dim and len(kernels) >= num_heads
        rule = "attn_ratio * key_dim * num_heads is dim, and each head has a kernel"
        refuse_unless(fits, rule, dim=dim, key_dim=key_dim, num_heads=num_heads, attn_ratio=attn_ratio,
                      kernels=kernels)  # fmt: skip
        super().__init__(dim, tuple(kernels)[:num_heads], key_dim, to_2tuple(resolution))


@adapter
@placed
class Attention(tiny_vit.Attention):
    def __init__(self, dim: int, key_dim: int, num_heads: int = 8, attn_ratio: int = 4,
                 resolution: tuple[int, int] = (14, 14)):  # fmt: skip
        fits = attn_ratio == 1 and key_dim * num_heads == dim and resolution[0] == resolution[1]
        refuse_unless(fits, "attn_ratio is 1, key_dim * num_heads is dim, and windows are square", dim=dim,
                      key_dim=key_dim, num_heads=num_heads, attn_ratio=attn_ratio, resolution=resolution)  # fmt: skip
        super().__init__(dim, num_heads, resolution[0])


@adapter
@placed
class AttentionDownsample(levit.AttentionDownsample):
    def __init__(self, in_dim: int, out_dim: int, key_dim: int, num_heads: int = 8, attn_ratio: float = 2.0,
                 stride: int = 2, resolution: int | tuple[int, int] = 14, use_conv: bool = False,
                 use_pool: bool = False, act_layer: Any = nn.SiLU):  # fmt: skip
        fits = attn_ratio == 4 and num_heads * key_dim == in_dim and stride == 2 and not use_pool
        refuse_unless(fits, "attn_ratio is 4, num_heads * key_dim is in_dim, stride is 2, and nothing is pooled",
                      in_dim=in_dim, key_dim=key_dim, num_heads=num_heads, attn_ratio=attn_ratio, stride=stride,
                      use_pool=use_pool)  # fmt: skip
        super().__init__(in_dim, out_dim, key_dim, to_2tuple(resolution), act_layer, use_conv)


@adapter
@placed
class Attention2d(efficientformer_v2.Attention2d):
    def __init__(self, dim: int = 384, key_dim: int = 32, num_heads: int = 8, attn_ratio: int = 4,
                 resolution: int | tuple[int, int] = 7, act_layer: Any = nn.GELU,
                 stride: int | None = None):  # fmt: skip
        fits = (key_dim, num_heads, attn_ratio) == (32, efficientformer_v2.HEADS, 4) and stride in (None, 2)
        refuse_unless(fits, "key_dim is 32, num_heads 8, attn_ratio 4, and stride 2 or none", key_dim=key_dim,
                      num_heads=num_heads, attn_ratio=attn_ratio, stride=stride)  # fmt: skip
        super().__init__(dim, to_2tuple(resolution), stride == 2)
        self.act = act_layer()

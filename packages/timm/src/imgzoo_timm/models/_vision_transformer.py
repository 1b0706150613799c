"""The vision transformer as research code subclasses it."""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from imgzoo.errors import OptionError
from imgzoo_archs_transformer import deit
from imgzoo_archs_transformer import vision_transformer as native
from imgzoo_layers import transformer
from imgzoo_layers.drop import drop_path_rates
from imgzoo_timm.layers._attention import Attention, DiffAttention, LayerScale
from imgzoo_timm.layers._base import adapter, placed, renamed
from imgzoo_timm.layers._drop import DropPath
from imgzoo_timm.layers._mlp import Mlp
from imgzoo_timm.layers._norm import LayerNorm
from imgzoo_timm.layers._norm_names import get_norm_layer
from imgzoo_timm.layers._patch_embed import PatchEmbed

from ._classes import spelled
from ._initial import begin, draw, scale_by_depth, shrink_by_depth
from ._networks import Network
from ._positions import EmbedOfNetwork, Resampling, lay_out


def _parts(dim: int, num_heads: int, mlp_ratio: float, qkv_bias: bool, qk_norm: bool, scale_attn_norm: bool,
           scale_mlp_norm: bool, proj_bias: bool, proj_drop: float, attn_drop: float, act_layer: Any, norm_layer: Any,
           mlp_layer: Any, attn_layer: Any, depth: int) -> tuple[nn.Module, nn.Module]:  # fmt: skip
    """Attention and mlp of a block, by their classes in the field's arguments."""
    given: dict[str, Any] = dict(num_heads=num_heads, qkv_bias=qkv_bias, qk_norm=qk_norm, scale_norm=scale_attn_norm,
                                 proj_bias=proj_bias, attn_drop=attn_drop, proj_drop=proj_drop,
                                 norm_layer=norm_layer)  # fmt: skip
    kind = getattr(attn_layer, "func", attn_layer)
    if isinstance(kind, type) and issubclass(kind, DiffAttention):
        given["depth"] = depth
    norm = norm_layer if scale_mlp_norm else None
    mlp = mlp_layer(in_features=dim, hidden_features=int(dim * mlp_ratio), act_layer=act_layer, norm_layer=norm,
                    bias=proj_bias, drop=proj_drop)  # fmt: skip
    return attn_layer(dim, **given), mlp


@adapter
@placed
class Block(transformer.Block):
    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = False, qk_norm: bool = False,
                 scale_attn_norm: bool = False, scale_mlp_norm: bool = False, proj_bias: bool = True,
                 proj_drop: float = 0.0, attn_drop: float = 0.0, init_values: float | None = None,
                 drop_path: float = 0.0, act_layer: Any = nn.GELU, norm_layer: Any = LayerNorm, mlp_layer: Any = Mlp,
                 attn_layer: Any = Attention, depth: int = 0):  # fmt: skip
        attn, mlp = _parts(dim, num_heads, mlp_ratio, qkv_bias, qk_norm, scale_attn_norm, scale_mlp_norm, proj_bias,
                           proj_drop, attn_drop, act_layer, norm_layer, mlp_layer, attn_layer, depth)  # fmt: skip
        super().__init__(dim, attn, mlp, norm_layer)
        for name in ("1", "2"):
            setattr(self, f"ls{name}", LayerScale(dim, init_values) if init_values else nn.Identity())
            setattr(self, f"drop_path{name}", DropPath(drop_path) if drop_path > 0.0 else nn.Identity())

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        if attn_mask is None and not is_causal:
            x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x))))
        else:
            x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), attn_mask=attn_mask, is_causal=is_causal)))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


@adapter
@placed
class ResPostBlock(native.ResPostBlock):
    def __init__(self, dim: int, num_heads: int, mlp_ratio: float = 4.0, qkv_bias: bool = False, qk_norm: bool = False,
                 scale_attn_norm: bool = False, scale_mlp_norm: bool = False, proj_bias: bool = True,
                 proj_drop: float = 0.0, attn_drop: float = 0.0, init_values: float | None = None,
                 drop_path: float = 0.0, act_layer: Any = nn.GELU, norm_layer: Any = LayerNorm, mlp_layer: Any = Mlp,
                 attn_layer: Any = Attention, depth: int = 0):  # fmt: skip
        attn, mlp = _parts(dim, num_heads, mlp_ratio, qkv_bias, qk_norm, scale_attn_norm, scale_mlp_norm, proj_bias,
                           proj_drop, attn_drop, act_layer, norm_layer, mlp_layer, attn_layer, depth)  # fmt: skip
        super().__init__(dim, attn, mlp, norm_layer, init_values, 0.0)
        for name in ("drop_path1", "drop_path2"):
            setattr(self, name, DropPath(drop_path) if drop_path > 0.0 else nn.Identity())

    unmasked = renamed(native.ResPostBlock.forward, "unmasked")

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        if attn_mask is None and not is_causal:
            return self.unmasked(x)
        x = x + self.drop_path1(self.norm1(self.attn(x, attn_mask=attn_mask, is_causal=is_causal)))
        return x + self.drop_path2(self.norm2(self.mlp(x)))


WORDS: dict[Any, Any] = {"": Attention, "attn": Attention, "diff": DiffAttention}
"""Words for attention."""
STOCK = {"block_fn": (Block, ResPostBlock, "block", "res_post"), "mlp_layer": (Mlp,), "attn_layer": (Attention,),
         "embed_layer": (PatchEmbed,)}  # fmt: skip


def init_weights_vit_timm(module: nn.Module, name: str = "", needs_reset: bool = True) -> None:
    """A linear layer truncated normal of std 0.02, with a zero bias; other layers as torch makes them."""
    begin(module, name, needs_reset)


@adapter
class VisionTransformer(Resampling, Network, native.VisionTransformer):
    native_class: ClassVar[type[native.VisionTransformer]] = native.VisionTransformer

    def __init__(self, img_size: Any = 224, patch_size: Any = 16, in_chans: int = 3, num_classes: int = 1000,
                 global_pool: str = "token", embed_dim: int = 768, depth: int = 12, num_heads: int = 12,
                 mlp_ratio: float = 4.0, qkv_bias: bool = True, qk_norm: bool = False, scale_attn_norm: bool = False,
                 scale_mlp_norm: bool = False, proj_bias: bool = True, init_values: float | None = None,
                 class_token: bool = True, pos_embed: str = "learn", no_embed_class: bool = False, reg_tokens: int = 0,
                 pre_norm: bool = False, final_norm: bool = True, fc_norm: bool | None = None,
                 pool_include_prefix: bool = False, dynamic_img_size: bool = False, dynamic_img_pad: bool = False,
                 drop_rate: float = 0.0, pos_drop_rate: float = 0.0, patch_drop_rate: float = 0.0,
                 proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0,
                 weight_init: str = "", fix_init: bool = False, embed_layer: Any = PatchEmbed,
                 embed_norm_layer: Any = None, norm_layer: Any = None, act_layer: Any = None, block_fn: Any = Block,
                 mlp_layer: Any = Mlp, attn_layer: Any = Attention, device: Any = None,
                 dtype: Any = None):  # fmt: skip
        attn_layer = WORDS.get(attn_layer, attn_layer)
        given = {key: value for key, value in locals().items() if key not in ("self", "__class__", "device", "dtype")}
        own = {key: given.pop(key) for key, known in STOCK.items() if given[key] not in known}
        given.pop("fix_init")
        given.pop("weight_init")
        if own:
            given["depth"] = 0
        for key in STOCK:
            given.pop(key, None)
        if block_fn in (ResPostBlock, "res_post"):
            given["block"] = "res_post"
        with torch.device(device) if device is not None else torch.device(torch.get_default_device()):
            self.native_class.__init__(self, **spelled(self.native_class, given))
            if own:
                self._own_parts(own, locals())
        self.drop_rate = drop_rate
        self.after_construction()
        draw(self, weight_init)
        if fix_init:
            scale_by_depth(self, fix_init)
        self.to(dtype=dtype)

    def _own_parts(self, own: dict[str, Any], given: dict[str, Any]) -> None:
        """Put in patch embedding and blocks of the caller's classes, which take the field's arguments."""
        dim, norm = self.embed_dim, given["norm_layer"] or partial(LayerNorm, eps=1e-6)
        act = given["act_layer"] or nn.GELU
        normed = {"norm_layer": get_norm_layer(given["embed_norm_layer"])} if given["embed_norm_layer"] else {}
        if "embed_layer" in own:
            self.patch_embed = own["embed_layer"](img_size=given["img_size"], patch_size=given["patch_size"],
                                                  in_chans=self.in_chans, embed_dim=dim, bias=not given["pre_norm"],
                                                  **normed)  # fmt: skip
        block = own.get("block_fn", given["block_fn"])
        parts = dict(mlp_layer=own.get("mlp_layer", Mlp), attn_layer=own.get("attn_layer", Attention))
        self.blocks = nn.Sequential(*(
            block(dim=dim, num_heads=given["num_heads"], mlp_ratio=given["mlp_ratio"], qkv_bias=given["qkv_bias"],
                  qk_norm=given["qk_norm"], scale_attn_norm=given["scale_attn_norm"],
                  scale_mlp_norm=given["scale_mlp_norm"], proj_bias=given["proj_bias"],
                  init_values=given["init_values"], proj_drop=given["proj_drop_rate"],
                  attn_drop=given["attn_drop_rate"], drop_path=drop, norm_layer=norm, act_layer=act,
                  depth=i, **parts)
            for i, drop in enumerate(drop_path_rates(given["drop_path_rate"], given["depth"])[0])
        ))  # fmt: skip
        level = {"num_chs": dim, "reduction": self.patch_size[0]}
        from ._features import FeatureInfo

        self.feature_info = FeatureInfo(({**level, "module": f"blocks.{i}"} for i in range(given["depth"])), None)
        self.blocks.apply(self._init_weights)

    def after_construction(self) -> None:
        super().after_construction()
        if isinstance(self.patch_embed, PatchEmbed):
            self.patch_embed.checks = True
        lay_out(self.patch_embed, self.dynamic_img_size)

    def _init_weights(self, m: nn.Module) -> None:
        begin(m)

    def fix_init_weight(self) -> None:
        shrink_by_depth(self)

    @torch.jit.ignore  # pyright: ignore[reportArgumentType]
    def no_weight_decay(self) -> set[str]:
        """Also what derived classes add under the field's names."""
        return super().no_weight_decay() | {"pos_embed", "cls_token", "dist_token", "reg_token"}

    def _pos_embed(self, x: Tensor) -> Tensor:
        """Patches (B, N, C), or (B, H, W, C) -> tokens with prefix and position."""
        grid = self.grid
        if self.dynamic_img_size:
            grid, x = (x.shape[1], x.shape[2]), x.flatten(1, 2)
        return self.pos_drop(self.add_position(x, grid))

    def embed(self, x: Tensor) -> Tensor:
        return self.norm_pre(self.patch_drop(self._pos_embed(self.patched(x))))

    def patched(self, x: Tensor) -> Tensor:
        """Patches as `_pos_embed` takes them."""
        if isinstance(self.patch_embed, (PatchEmbed, EmbedOfNetwork)):
            x = self.sized_input(x)
        return self.patch_embed(x)

    def forward_features(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        x = self.embed(x)
        if attn_mask is None and not is_causal:
            return self.norm(self.blocks(x))
        for block in self.blocks:
            x = block(x, attn_mask=attn_mask, is_causal=is_causal)
        return self.norm(x)

    def forward(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        if attn_mask is None and not is_causal:
            return self.forward_head(self.forward_features(x))  # what derived classes write takes x alone
        return self.forward_head(self.forward_features(x, attn_mask, is_causal))

    def get_intermediate_layers(self, x: Tensor, n: int | Sequence[int] = 1, reshape: bool = False,
                                return_prefix_tokens: bool = False, norm: bool = False,
                                attn_mask: Tensor | None = None) -> list[Any]:  # fmt: skip
        """Patches of the last `n` levels, or of those listed, as tokens or with `reshape` as maps."""
        if attn_mask is not None:
            raise OptionError("levels are taken without a mask: forward_features(x, attn_mask) has the last of them")
        return self.forward_intermediates(x, n, norm=norm, output_fmt="NCHW" if reshape else "NLC",
                                          intermediates_only=True,
                                          return_prefix_tokens=return_prefix_tokens)  # fmt: skip


@adapter
class VisionTransformerDistilled(VisionTransformer, deit.VisionTransformerDistilled):
    native_class = deit.VisionTransformerDistilled

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)


VisionTransformer.__module__ = f"{__package__}.vision_transformer"  # clients look beside a class for its functions
VisionTransformerDistilled.__module__ = f"{__package__}.deit"

"""NaFlexViT: images of any shape as sequences of patches (NaViT, arXiv:2307.06304; SigLIP 2, 2502.14786; C-RADIO)."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.errors import UsageError
from imgzoo.model import ImageModel, Patches, TokenModel, is_patches
from imgzoo_layers.attention import Attention, DiffAttention
from imgzoo_layers.attention_pool import AttentionPoolLatent
from imgzoo_layers.drop import PatchDropout, drop_path_rates
from imgzoo_layers.init import init_linear_, trunc_normal_
from imgzoo_layers.mlp import mlp_maker
from imgzoo_layers.norm import Norm, get_norm
from imgzoo_layers.patch_embed import FlexiKernel
from imgzoo_layers.rotary import rotary_of, rows_of
from imgzoo_layers.rotary_attention import ATTENTION, heads_of_keys
from imgzoo_layers.sequential import SharedSequential
from imgzoo_layers.stretch import stretch_weights
from imgzoo_layers.tables import Size
from imgzoo_layers.transformer import Block, GammaBlock, scaled

State = tuple[Tensor, Tensor | None, Tensor | None]
"""Tokens (B, N, C); what is added to the scores of attention (B, 1, 1, N), -inf where a row was filled up; the table
that turns queries and keys, one a depth where it is mixed."""


class MaskedBlock(Block):
    def forward(self, state: State) -> State:  # type: ignore[override]
        x, bias, table = state
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), bias)))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x)))), bias, table


class RotaryBlock(GammaBlock):
    """As EVA's: queries and keys may be turned, by a table of this `depth` where each has its own."""

    def __init__(self, dim: int, attn: nn.Module, mlp: nn.Module, norm: Norm, layer_scale: float | None,
                 drop_path: float, attn_only: bool = False, depth: int | None = None):  # fmt: skip
        super().__init__(dim, attn, mlp, norm, layer_scale, drop_path, attn_only)
        self.depth = depth

    def forward(self, state: State) -> State:  # type: ignore[override]
        x, bias, table = state
        y = self.attn(self.norm1(x), table if self.depth is None or table is None else table[self.depth], bias)
        x = x + self.drop_path1(scaled(y, self.gamma_1))
        return x + self.drop_path2(scaled(self.mlp(self.norm2(x)), self.gamma_2)), bias, table


class NaFlexEmbeds(FlexiKernel, nn.Module):
    """Images, or patches of images -> tokens, with tables of position, if any, for a grid of its own.

    The kernels are those of a linear layer over flat patches, or with `conv` of a convolution.
    """

    def __init__(self, patch: Size, in_chans: int, dim: int, class_token: bool, reg_tokens: int, grid: Size,
                 factorized: bool = False, mode: str = "bicubic", antialias: bool = True, align_corners: bool = False,
                 square: bool = False, any_size: bool = False, point_sample: bool = False, norm: Norm | None = None,
                 bias: bool = True, conv: bool = False, abs_pos: bool = True):  # fmt: skip
        super().__init__()
        if mode not in ("bilinear", "bicubic"):
            raise ValueError(f"pos_mode is 'bilinear' or 'bicubic', not '{mode}'")
        self.point_sample = point_sample
        self.patch, self.any_size, self.maps = patch, any_size, {}
        self.factorized, self.abs_pos, self.conv = factorized, abs_pos, conv
        self.stretching = (mode, antialias, align_corners, square)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim)) if class_token else None
        self.reg_token = nn.Parameter(torch.empty(1, reg_tokens, dim)) if reg_tokens else None
        if factorized and abs_pos:
            self.pos_embed_y = nn.Parameter(torch.empty(1, grid[0], dim))
            self.pos_embed_x = nn.Parameter(torch.empty(1, grid[1], dim))
        elif abs_pos:
            self.pos_embed = nn.Parameter(torch.empty(1, *grid, dim))
        self.proj: nn.Linear | nn.Conv2d = (
            nn.Conv2d(in_chans, dim, patch, patch, bias=bias)
            if conv
            else nn.Linear(patch[0] * patch[1] * in_chans, dim, bias)
        )
        self.norm = norm(dim) if norm else nn.Identity()

    def position(self, grid: Size) -> Tensor | None:
        """What a grid of patches is given: (1, h * w, C)."""
        if not self.abs_pos:
            return None
        if self.factorized:
            return factorized_rows(self.pos_embed_y, self.pos_embed_x, grid, self.stretching[3])
        return rows(self.pos_embed, grid, self.stretching)

    def of_patches(self, coordinates: Tensor, valid: Tensor) -> Tensor | None:
        """The same for each image of a batch by its own grid: (B, N, 2), (B, N) -> (B, N, C)."""
        if not self.abs_pos:
            return None
        coordinates = coordinates.masked_fill(~valid[..., None], 0)
        sizes = coordinates.amax(1) + 1
        mode, antialias, align_corners, square = self.stretching
        if square:
            sizes = sizes.amax(1, keepdim=True).expand(-1, 2)
        if self.factorized:
            tables, how = (self.pos_embed_y[0], self.pos_embed_x[0]), ("linear", False, False)
        else:
            antialias = antialias and not self.point_sample
            how = ("linear" if mode == "bilinear" else mode, antialias, align_corners)
            tables = (self.pos_embed[0], self.pos_embed[0].transpose(0, 1))
        down, across = (
            stretch_weights(coordinates[..., i], sizes[:, i], len(table), *how).to(table.dtype)
            for i, table in enumerate(tables)
        )
        if self.factorized:
            return down @ tables[0] + across @ tables[1]
        return (down[..., :, None] * across[..., None, :]).flatten(2) @ tables[0].flatten(0, 1)

    def kernel_of(self, patches: Tensor) -> Tensor | None:
        """The kernel (C, p * q * C) for patches (B, N, p, q, C) of another size, or from that of a convolution; None
        for the linear layer's own."""
        size = (patches.shape[2], patches.shape[3]) if patches.ndim == 5 else self.patch
        if size == self.patch:
            return self.proj.weight.permute(0, 2, 3, 1).flatten(1) if self.conv else None
        if not self.any_size:
            own, other = ("x".join(map(str, each)) for each in (self.patch, size))
            raise UsageError(f"patches are of {own} pixels, not {other}: any_patch_size=True takes others, too")
        kernel = self.proj.weight
        if not self.conv:
            kernel = kernel.unflatten(1, (*self.patch, -1)).permute(0, 3, 1, 2)
        return self.flexed(kernel, size).permute(0, 2, 3, 1).flatten(1)

    def forward(self, x: Tensor, coordinates: Tensor | None = None,
                valid: Tensor | None = None) -> tuple[Tensor, Size | None]:  # fmt: skip
        """(B, C, H, W), or patches (B, N, p * p * C) with coordinates (B, N, 2) and valid (B, N) -> (B, prefix + N, C);
        and the grid that all images have, None of patches."""
        grid: Size | None = None
        if coordinates is None or valid is None:
            down, across = self.patch
            grid = x.shape[-2] // down, x.shape[-1] // across
            position = self.position(grid)
            if self.conv:
                x = self.proj(x).flatten(2).transpose(1, 2)
            else:
                x = x.unflatten(3, (-1, across)).unflatten(2, (-1, down))  # (B, C, h, p, w, p)
                x = self.proj(x.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2))
        else:
            position, kernel = self.of_patches(coordinates, valid), self.kernel_of(x)
            x = x.flatten(2)
            x = self.proj(x) if kernel is None else F.linear(x, kernel, self.proj.bias)
        x = self.norm(x)
        if position is not None:
            x = x + position
        prefix = [token.expand(x.shape[0], -1, -1) for token in (self.cls_token, self.reg_token) if token is not None]
        return torch.cat([*prefix, x], dim=1), grid


class NaFlexViT(TokenModel):
    """An image (B, C, H, W), or `Patches` (also as a dict in the field's spelling) of images of any shapes.

    Blocks are ViT's, or as EVA's: with a bias of keys for `rope` and `num_kv_heads`, without for `gated_attn`, a gated
    `mlp` and `attn_only_layer_scale`.

    Args:
        key_bias: blocks as EVA's, keys with a bias or without; none for ViT's, or what other options ask for
        qkv_fused: one layer makes queries, keys and values; of EVA's blocks alone
        num_kv_heads: heads of keys and values, of all blocks or of each; none for as many as of queries
        gated_attn: attention lets its output through by a sigmoid of its input
        diff_attn: attention as the difference of two maps, in ViT's blocks
        mlp: "mlp", or gated "glu" or "swiglu"; the two layers of the first are apart where they are normed or rounded
        mlp_multiple: hidden channels of gated mlps are rounded up to a multiple of it
        attn_only_layer_scale: no layer scale on the mlps
        conv_embed: the patch embedding has the kernels of a convolution
        pos_grid: rows and columns of the position table
        pos_factorized: one table of rows and one of columns
        pos_mode: interpolation of the table
        pos_antialias: smooth the table where it shrinks
        pos_align_corners: corners of the table lie on corners of the image; two factorized tables take no heed of it
        pos_square: fit the table to a square around the image
        pos_point_sample: patches find their positions at points of the table, never smoothed; images as before
        embed_norm: a norm behind the patch embedding, by name
        proj_bias: biases of the projections of attention and mlp, in ViT's blocks
        pool_include_prefix: pool class and register tokens, too
        attn_pool_heads: heads of the attention pool; none for `num_heads`
        attn_pool_mlp_ratio: width of its mlp as a multiple of its input; none for `mlp_ratio`
        any_patch_size: take patches of other sizes, (B, N, p, q, C), for which the kernels are resized
        dynamic_img_pad: pad images to whole patches
        rope_reference: grid that they are measured on; none for the image's
    """

    layer_groups = {"stem": r"^embeds|norm_pre", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}
    no_decay = ("embeds.pos_embed", "embeds.cls_token", "embeds.reg_token")
    pools = (*TokenModel.pools, "map")
    takes_patches = True

    def __init__(self, img_size: int | Size = 384, patch_size: int | Size = 16, in_chans: int = 3,
                 num_classes: int = 1000, global_pool: str = "avg", embed_dim: int = 768, depth: int = 12,
                 num_heads: int = 12, mlp_ratio: float = 4.0, qkv_bias: bool = True, qk_norm: bool = False,
                 scale_attn_norm: bool = False, scale_mlp_norm: bool = False, proj_bias: bool = True,
                 pre_norm: bool = False, embed_norm: str | None = None, norm: str = "layernorm", eps: float = 1e-6,
                 key_bias: bool | None = None, qkv_fused: bool = True,
                 num_kv_heads: int | Sequence[int] | None = None, gated_attn: bool = False, diff_attn: bool = False,
                 mlp: str = "mlp", mlp_multiple: int = 0, attn_only_layer_scale: bool = False,
                 conv_embed: bool = False, pool_include_prefix: bool = False,
                 attn_pool_heads: int | None = None, attn_pool_mlp_ratio: float | None = None,
                 layer_scale: float | None = 1e-5, act: str = "gelu", class_token: bool = False, reg_tokens: int = 4,
                 abs_pos: bool = True, pos_grid: Size = (16, 16), pos_factorized: bool = False,
                 pos_mode: str = "bicubic", pos_antialias: bool = True, pos_align_corners: bool = False,
                 pos_square: bool = False, pos_point_sample: bool = False, any_patch_size: bool = False,
                 dynamic_img_pad: bool = False,
                 rope: str | None = None, rope_theta: float = 10000.0, rope_reference: Size | None = None,
                 rope_shift: float = 0.0, rope_columns_first: bool = False, rope_halves: bool = False,
                 rope_sections: Sequence[int] | None = None, rope_random_shift: float = 0.0, rope_jitter: float = 0.0,
                 rope_rescale: float = 0.0, final_norm: bool = True, fc_norm: bool | None = None,
                 drop_rate: float = 0.0, pos_drop_rate: float = 0.0, patch_drop_rate: float = 0.0,
                 proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans, img_size, patch_size, embed_dim, depth, global_pool, class_token,
                         int(class_token) + reg_tokens, dynamic=True, pad=dynamic_img_pad,
                         pool_include_prefix=pool_include_prefix)  # fmt: skip
        self.num_reg_tokens = reg_tokens
        make_norm = get_norm(norm, eps=eps)
        self._pool_options = (attn_pool_heads or num_heads, attn_pool_mlp_ratio or mlp_ratio, make_norm, act)
        dim, patch = embed_dim, self.patch_size
        if key_bias is None and (rope is not None or num_kv_heads is not None):
            key_bias = True
        elif key_bias is None and (gated_attn or attn_only_layer_scale or mlp != "mlp"):
            key_bias = False
        if key_bias is not None and (diff_attn or not proj_bias):
            word = "proj_bias" if not proj_bias else "diff_attn"
            raise UsageError(f"blocks as EVA's know no {word}, which is of ViT's: leave it out")
        if key_bias is None and not qkv_fused:
            raise UsageError("one layer makes queries, keys and values in ViT's blocks: give key_bias=True, too, for "
                             "EVA's, or leave qkv_fused out")  # fmt: skip
        self.embeds = NaFlexEmbeds(patch, in_chans, dim, class_token, reg_tokens, pos_grid, pos_factorized, pos_mode,
                                   pos_antialias, pos_align_corners, pos_square, any_patch_size, pos_point_sample,
                                   get_norm(embed_norm) if embed_norm else None, not pre_norm, conv_embed,
                                   abs_pos)  # fmt: skip
        self.pos_drop = nn.Dropout(pos_drop_rate)
        self.patch_drop = PatchDropout(patch_drop_rate, self.num_prefix_tokens) if patch_drop_rate else None
        self.rope: Any = None
        self.norm_pre = make_norm(dim) if pre_norm else nn.Identity()
        make_attn: Any = partial(DiffAttention if diff_attn else Attention, dim, num_heads, qkv_bias=qkv_bias,
                                 qk_norm=qk_norm, proj_bias=proj_bias, scale_norm=scale_attn_norm,
                                 attn_drop=attn_drop_rate, proj_drop=proj_drop_rate, norm=make_norm)  # fmt: skip
        make_mlp = mlp_maker(mlp, dim, int(dim * mlp_ratio), mlp_multiple, act=act if mlp == "mlp" else "silu",
                             bias=proj_bias, drop=proj_drop_rate,
                             norm=make_norm if scale_mlp_norm else None)  # fmt: skip
        each: list[dict[str, Any]] = [{"depth": i} if diff_attn else {} for i in range(depth)]
        if rope is not None:
            self.rope = rotary_of(rope, dim // num_heads, depth, num_heads, self.grid, rope_theta, rope_reference,
                                  rope_shift, rope_columns_first, rope_halves, rope_sections,
                                  (rope_random_shift, rope_jitter, rope_rescale))  # fmt: skip
        make_block: Any = MaskedBlock
        if key_bias is not None:
            make_attn = partial(ATTENTION[qkv_fused, key_bias], *make_attn.args, **make_attn.keywords,
                                prefix=self.num_prefix_tokens, halves=rope_halves or rope == "mrope",
                                gated=gated_attn)  # fmt: skip
            make_block = partial(RotaryBlock, attn_only=attn_only_layer_scale)
            each = [{"kv_heads": heads} for heads in heads_of_keys(num_kv_heads, depth, rope)]
        self.blocks = SharedSequential(*(
            make_block(dim, make_attn(**each[i]), make_mlp(), make_norm, layer_scale, drop,
                       **({"depth": i} if rope == "mixed" else {}))
            for i, drop in enumerate(drop_path_rates(drop_path_rate, depth)[0])
        ))  # fmt: skip
        after_pool = global_pool == "avg" if fc_norm is None else fc_norm
        self.norm = make_norm(dim) if final_norm and not after_pool else nn.Identity()
        self.add_head(drop_rate, make_norm(dim) if final_norm and after_pool else None)
        self.init_weights()

    def init_weights(self) -> None:
        """Truncated normal of std 0.02, tokens nearly zero; the last layers of each block shrink with depth."""
        init_linear_(self)
        for name, table in self.embeds.named_parameters(recurse=False):
            if name.startswith("pos_embed"):
                trunc_normal_(table, std=0.02)
            else:
                nn.init.normal_(table, std=1e-6)
        blocks: Any = self.blocks
        with torch.no_grad():
            for depth, block in enumerate(blocks, start=1):
                block.attn.proj.weight.div_((2 * depth) ** 0.5)
                block.mlp.fc2.weight.div_((2 * depth) ** 0.5)

    def no_weight_decay(self) -> set[str]:
        return super().no_weight_decay() | {name for name, _ in self.named_parameters() if name.startswith("rope.")}

    def embed(self, x: Any) -> State:  # (B, 3, H, W), or patches (B, N, p * p * 3) -> (B, prefix + N, C)
        if is_patches(x):
            patches, coordinates, valid = Patches.of(x)
            tokens, _ = self.embeds(patches, coordinates, valid)
            table: Tensor | None = None
            if self.rope is not None:
                coordinates = coordinates.masked_fill(~valid[..., None], 0)
                table = self.rope.of_patches(coordinates, coordinates.amax(1) + 1)
            tokens, kept = self.thin(tokens, valid)
            if kept is not None:  # of each image the share that it keeps alone
                left = (valid.sum(1, keepdim=True) * kept.shape[1] // valid.shape[1]).clamp(min=1)
                valid = torch.ones_like(kept).cumsum(1) <= left
                if table is not None:
                    chosen = kept[:, None, :, None].expand(*table.shape[:-2], -1, table.shape[-1])
                    table = table.gather(-2, chosen)
            return self.norm_pre(tokens), score_bias(valid, self.num_prefix_tokens, tokens.dtype), table
        tokens, grid = self.embeds(self.sized_input(x))
        tokens, kept = self.thin(tokens)
        table = None if self.rope is None else self.rope(grid)
        return self.norm_pre(tokens), None, table if table is None or kept is None else rows_of(table, kept)

    def thin(self, tokens: Tensor, valid: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Drop of what the embedding gives: tokens, and which patches are left, None while all are."""
        tokens = self.pos_drop(tokens)
        return (tokens, None) if self.patch_drop is None else self.patch_drop.thin(tokens, valid)

    def forward_features(self, x: Any) -> Tensor:
        """-> (B, prefix + N, C); rows that were filled up hold nothing of use."""
        return self.norm(self.blocks(self.embed(x))[0])

    def forward(self, x: Any) -> Tensor:
        if not is_patches(x):
            return self.forward_head(self.forward_features(x))
        x, bias, _ = self.blocks(self.embed(x))
        return self.forward_head(self.norm(x), valid=bias[:, 0, 0, self.num_prefix_tokens :] == 0)  # of what is left

    def forward_head(self, x: Tensor, pre_logits: bool = False, valid: Tensor | None = None) -> Tensor:
        """`valid` (B, N) leaves out of the pool the patches that were filled up."""
        x = self.head_drop(self.fc_norm(self.pool(x) if valid is None else self.pool_valid(x, valid)))
        return x if pre_logits else self.head(x)

    def pool_valid(self, x: Tensor, valid: Tensor) -> Tensor:
        if self.global_pool in ("", "token"):
            return self.pool(x)
        valid = F.pad(valid, [self.num_prefix_tokens - self.pool_from, 0], value=True)
        x = x[:, self.pool_from :]
        if self.attn_pool is not None:
            return self.attn_pool(x, score_bias(valid, 0, x.dtype))
        mean = x.masked_fill(~valid[..., None], 0).sum(1) / valid.sum(1, keepdim=True).to(x.dtype)
        top = x.masked_fill(~valid[..., None], float("-inf")).amax(1)
        return {"avg": mean, "max": top, "avgmax": 0.5 * (mean + top)}[self.global_pool]

    def forward_intermediates(self, x: Any, indices: int | Sequence[int] | None = None, norm: bool = False,
                              stop_early: bool = False, output_fmt: str = "NCHW", intermediates_only: bool = False,
                              return_prefix_tokens: bool = False) -> Any:  # type: ignore[override]  # fmt: skip
        """As `TokenModel`'s; images of several shapes have no common map, so levels of patches are "NLC"."""
        options = (indices, norm, stop_early, output_fmt, intermediates_only)
        if not is_patches(x):
            return super().forward_intermediates(x, *options, return_prefix_tokens)
        if output_fmt != "NLC":
            raise UsageError(f"levels of patches are tokens: output_fmt is 'NLC', not '{output_fmt}'")
        if self.training and self.patch_drop is not None:
            raise UsageError("patch dropout leaves out patches, and nothing would say which: give patch_drop_rate=0, "
                             "or call eval()")  # fmt: skip
        result = ImageModel.forward_intermediates(self, x, *options)
        levels, prefix = result if intermediates_only else result[1], self.num_prefix_tokens
        for i, level in enumerate(levels):
            levels[i] = (level[:, prefix:], level[:, :prefix]) if return_prefix_tokens else level[:, prefix:]
        return result

    def make_attn_pool(self, kind: str) -> nn.Module | None:
        heads, mlp_ratio, norm, act = self._pool_options
        return AttentionPoolLatent(self.embed_dim, heads, mlp_ratio, norm=norm, act=act) if kind == "map" else None


def score_bias(valid: Tensor, prefix: int, dtype: torch.dtype) -> Tensor:
    """(B, N) -> (B, 1, 1, prefix + N): -inf where nobody shall look."""
    bias = torch.zeros(valid.shape, dtype=dtype, device=valid.device).masked_fill(~valid, float("-inf"))
    return F.pad(bias, [prefix, 0])[:, None, None]


def rows(table: Tensor, grid: Size, stretching: tuple[str, bool, bool, bool]) -> Tensor:
    """A table (1, h', w', C) for a grid: (1, h * w, C)."""
    mode, antialias, align_corners, square = stretching
    size = (max(grid), max(grid)) if square else grid
    if size != (table.shape[1], table.shape[2]):
        table = F.interpolate(table.permute(0, 3, 1, 2).float(), size, mode=mode, align_corners=align_corners,
                              antialias=antialias).permute(0, 2, 3, 1).to(table.dtype)  # fmt: skip
    return table[:, : grid[0], : grid[1]].flatten(1, 2)


def factorized_rows(down: Tensor, across: Tensor, grid: Size, square: bool) -> Tensor:
    """Tables (1, h', C) and (1, w', C), stretched linearly and added: (1, h * w, C)."""
    parts = []
    for table, size in zip((down, across), grid, strict=True):
        length = max(grid) if square else size
        if length != table.shape[1]:
            table = F.interpolate(table.transpose(1, 2).float(), length, mode="linear", align_corners=False)
            table = table.transpose(1, 2).to(down.dtype)
        parts.append(table[:, :size])
    return (parts[0][:, :, None] + parts[1][:, None]).flatten(1, 2)


torch.fx.wrap("rows")
torch.fx.wrap("factorized_rows")

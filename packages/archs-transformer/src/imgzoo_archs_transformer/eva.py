"""EVA-02 (arXiv:2303.11331) and kin: RoPE-ViT (2403.13298), Perception Encoder (2504.13181), DINOv3 (2508.10104)."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from imgzoo.model import TokenModel
from imgzoo_layers.attention_pool import AttentionPoolLatent
from imgzoo_layers.drop import PatchDropout, drop_path_of, drop_path_rates
from imgzoo_layers.exchange import HeadScale
from imgzoo_layers.init import init_linear_, trunc_normal_
from imgzoo_layers.mlp import mlp_maker
from imgzoo_layers.norm import Norm, get_norm
from imgzoo_layers.patch_embed import PatchEmbed
from imgzoo_layers.position import resize_grid
from imgzoo_layers.rotary import rotary_of, rows_of
from imgzoo_layers.rotary_attention import ATTENTION, heads_of_keys
from imgzoo_layers.sequential import SharedSequential
from imgzoo_layers.tables import GridTable, PatchKernel, Size
from imgzoo_layers.transformer import scaled

State = tuple[Tensor, Tensor | None]
"""Tokens (B, N, C) and the table that turns queries and keys; one a depth where it is mixed."""


class Block(nn.Module):
    """Attention, then mlp, each on a residual and normalized first, or last where `post`."""

    if TYPE_CHECKING:  # parts are set by name, and TorchScript would read annotations

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, dim: int, attn: nn.Module, mlp: nn.Module, norm: Norm, scales: tuple[float | None, float | None],
                 drop_path: float, post: bool = False, depth: int | None = None):  # fmt: skip
        super().__init__()
        self.post, self.depth = post, depth
        for i, scale in enumerate(scales, start=1):
            self.register_parameter(f"gamma_{i}", None if scale is None else nn.Parameter(torch.full((dim,), scale)))
        first = ("attn", "norm1", "mlp", "norm2") if post else ("norm1", "attn", "norm2", "mlp")
        for name in first:
            self.add_module(name, {"attn": attn, "mlp": mlp}.get(name) or norm(dim))
        self.drop_path1 = drop_path_of(drop_path)
        self.drop_path2 = drop_path_of(drop_path)

    def forward(self, state: State) -> State:
        x, table = state
        return self.turned(x, table[self.depth] if self.depth is not None and table is not None else table), table

    def turned(self, x: Tensor, rope: Tensor | None) -> Tensor:
        """Tokens behind the block, whose table is given."""
        if self.post:
            x = x + self.drop_path1(self.norm1(self.attn(x, rope)))
            return x + self.drop_path2(self.norm2(self.mlp(x)))
        x = x + self.drop_path1(scaled(self.attn(self.norm1(x), rope), self.gamma_1))
        return x + self.drop_path2(scaled(self.mlp(self.norm2(x)), self.gamma_2))


class Eva(TokenModel):
    """Args:
    qkv_fused: one layer makes queries, keys and values
    key_bias: a bias of keys, beside those of queries and values
    num_kv_heads: heads of keys and values, of all blocks or of each; none for as many as of queries
    attn_only_layer_scale: no layer scale on the mlps
    mlp: "mlp", or gated "glu" or "swiglu"; the two layers of the first are apart where they are normed or rounded
    mlp_multiple: hidden channels of gated mlps are rounded up to a multiple of it
    dynamic_img_pad: pad images to whole patches
    final_norm: a norm behind the blocks; none for where no norm follows the pool
    rope_reference: grid that positions are measured on; none for the model's
    attn_pool_heads: heads of the attention pool; none for `num_heads`
    attn_pool_mlp_ratio: width of its mlp as a multiple of its input; none for `mlp_ratio`
    """

    exchanged = (HeadScale(0.001),)
    layer_groups = {
        "stem": r"^cls_token|reg_token|pos_embed|patch_embed|norm_pre",
        "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
    }
    no_decay = ("pos_embed", "cls_token", "reg_token", "rope.freqs")
    pools = (*TokenModel.pools, "map")
    tables = {"pos_embed": GridTable(), "patch_embed.proj.weight": PatchKernel()}

    def __init__(self, img_size: int | Size = 224, patch_size: int | Size = 16, in_chans: int = 3,
                 num_classes: int = 1000, global_pool: str = "avg", embed_dim: int = 768, depth: int = 12,
                 num_heads: int = 12, qkv_fused: bool = True, key_bias: bool = False, qkv_bias: bool = True,
                 num_kv_heads: int | Sequence[int] | None = None, qk_norm: bool = False, scale_attn_norm: bool = False,
                 mlp: str = "mlp", mlp_ratio: float = 4.0, mlp_multiple: int = 0, scale_mlp_norm: bool = False,
                 layer_scale: float | None = None, attn_only_layer_scale: bool = False, post_norm: bool = False,
                 rope: str | None = None, rope_theta: float = 10000.0, rope_reference: Size | None = None,
                 rope_shift: float = 0.0, rope_columns_first: bool = False, rope_halves: bool = False,
                 rope_sections: Sequence[int] | None = None, rope_random_shift: float = 0.0, rope_jitter: float = 0.0,
                 rope_rescale: float = 0.0, abs_pos: bool = True, no_embed_class: bool = False,
                 class_token: bool = True, reg_tokens: int = 0, pre_norm: bool = False, final_norm: bool | None = None,
                 fc_norm: bool | None = None, attn_pool_heads: int | None = None,
                 attn_pool_mlp_ratio: float | None = None, dynamic_img_size: bool = False,
                 dynamic_img_pad: bool = False, norm: str = "layernorm", eps: float = 1e-6, drop_rate: float = 0.0,
                 pos_drop_rate: float = 0.0, patch_drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
                 attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        prefix = int(class_token) + reg_tokens
        super().__init__(num_classes, in_chans, img_size, patch_size, embed_dim, depth, global_pool, class_token,
                         prefix, dynamic_img_size, dynamic_img_pad, global_pool == "map")  # fmt: skip
        make_norm, dim, head_dim = get_norm(norm, eps=eps), embed_dim, embed_dim // num_heads
        self._pool_options = (attn_pool_heads or num_heads, attn_pool_mlp_ratio or mlp_ratio, make_norm)
        self.no_embed_class, self.num_reg_tokens = no_embed_class, reg_tokens
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim)) if class_token else None
        self.reg_token = nn.Parameter(torch.empty(1, reg_tokens, dim)) if reg_tokens else None
        rows = self.grid[0] * self.grid[1] + (0 if no_embed_class else prefix)
        self.pos_embed = nn.Parameter(torch.empty(1, rows, dim)) if abs_pos else None
        self.patch_embed = PatchEmbed(self.patch_size, in_chans, dim, bias=not pre_norm)
        self.pos_drop = nn.Dropout(pos_drop_rate)
        self.patch_drop = PatchDropout(patch_drop_rate, prefix) if patch_drop_rate else None
        self.rope: nn.Module | None = None
        if rope is not None:
            self.rope = rotary_of(rope, head_dim, depth, num_heads, self.grid, rope_theta, rope_reference, rope_shift,
                                  rope_columns_first, rope_halves, rope_sections,
                                  (rope_random_shift, rope_jitter, rope_rescale))  # fmt: skip
        self.norm_pre = make_norm(dim) if pre_norm else nn.Identity()
        make_attn = partial(ATTENTION[qkv_fused, key_bias], dim, num_heads, qkv_bias=qkv_bias, qk_norm=qk_norm,
                            norm=make_norm, scale_norm=scale_attn_norm, attn_drop=attn_drop_rate,
                            proj_drop=proj_drop_rate, prefix=prefix, halves=rope_halves or rope == "mrope")  # fmt: skip
        kv_heads = heads_of_keys(num_kv_heads, depth, rope)
        make_mlp = mlp_maker(mlp, dim, int(dim * mlp_ratio), mlp_multiple, drop=proj_drop_rate,
                             norm=make_norm if scale_mlp_norm else None)  # fmt: skip
        self.blocks = SharedSequential(*(
            Block(dim, make_attn(kv_heads=kv_heads[i]), make_mlp(), make_norm,
                  (layer_scale, None if attn_only_layer_scale else layer_scale), drop, post_norm,
                  i if rope == "mixed" else None)
            for i, drop in enumerate(drop_path_rates(drop_path_rate, depth)[0])
        ))  # fmt: skip
        after_pool = global_pool == "avg" if fc_norm is None else fc_norm
        behind = not after_pool if final_norm is None else final_norm
        self.norm = make_norm(dim) if behind else nn.Identity()
        self.add_head(drop_rate, make_norm(dim) if after_pool else None)
        self.init_weights()

    def init_weights(self) -> None:
        """Truncated normal of std 0.02; the last layers of each block shrink with depth, the classifier starts tiny."""
        init_linear_(self)
        for token in (self.pos_embed, self.cls_token, self.reg_token):
            if token is not None:
                trunc_normal_(token, std=0.02)
        with torch.no_grad():
            block: Any
            for depth, block in enumerate(self.blocks, start=1):
                block.attn.proj.weight.div_((2 * depth) ** 0.5)
                block.mlp.fc2.weight.div_((2 * depth) ** 0.5)
            if isinstance(self.head, nn.Linear):
                self.head.weight.mul_(0.001)

    def _set_pool(self, global_pool: str) -> None:
        super()._set_pool(global_pool)
        self.pool_from = 0 if global_pool == "map" else self.num_prefix_tokens

    def embed(self, x: Tensor) -> State:  # (B, 3, H, W) -> (B, prefix + N, C)
        grid = self.grid_of(x.shape[-2], x.shape[-1])
        x, turns = self.add_position(self.patch_embed(self.sized_input(x)), grid)
        return self.norm_pre(x), turns

    def add_position(self, x: Tensor, grid: Size) -> State:  # (B, N, C) -> (B, prefix + N, C)
        tokens, table = self.prefix(x.shape[0]), self.pos_embed
        if table is not None and self.dynamic_img_size:
            table = self.resized_table(table, grid)
        if table is None:
            x = torch.cat(tokens + [x], dim=1)
        elif self.no_embed_class:
            x = torch.cat(tokens + [x + table], dim=1)
        else:
            x = torch.cat(tokens + [x], dim=1) + table
        x = self.pos_drop(x)
        turns: Tensor | None = None
        if self.rope is not None:
            turns = self.rope(grid) if self.dynamic_img_size else self.rope(None)
        if self.patch_drop is None:
            return x, turns
        x, kept = self.patch_drop.thin(x)
        return x, turns if turns is None or kept is None else rows_of(turns, kept)

    def resized_table(self, table: Tensor, grid: Size) -> Tensor:
        return resize_grid(table, grid, self.grid, 0 if self.no_embed_class else self.num_prefix_tokens)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(self.embed(x))[0])

    def make_attn_pool(self, kind: str) -> nn.Module | None:
        heads, mlp_ratio, norm = self._pool_options
        return AttentionPoolLatent(self.embed_dim, heads, mlp_ratio, norm=norm) if kind == "map" else None

    def sized(self):
        return [] if self.rope is None else [(self.rope, self.grid)]

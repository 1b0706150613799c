"""ViT whose positions are a bias of attention by offset, from a small network (arXiv:2111.09883) or a table."""

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.errors import UsageError
from imgzoo.model import TokenModel
from imgzoo_layers.attention import Attending, head_width, layer_scale_of
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Acts, Norms
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import LayerNorm
from imgzoo_layers.patch_embed import PatchEmbed
from imgzoo_layers.rel_pos import RelPosBias, RelPosMlp
from imgzoo_layers.sequential import SharedSequential
from imgzoo_layers.tables import PatchKernel, Size

State = tuple[Tensor, Tensor | None]
"""Tokens (B, N, C) and the bias (1, heads, N, N), or of patches alone, that all blocks share, if they do."""


class RelPosAttention(Attending):
    """Attention with a bias by offset, its own or the shared one, that `unbiased` first tokens lack: (B, N, C) kept."""

    def __init__(self, dim: int, heads: int, rel_pos: nn.Module | None, unbiased: int, qkv_bias: bool,
                 qk_norm: bool, attn_drop: float, proj_drop: float):  # fmt: skip
        super().__init__(heads, head_width(dim, heads), attn_drop)
        self.unbiased = unbiased
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.q_norm = LayerNorm(self.head_dim) if qk_norm else nn.Identity()
        self.k_norm = LayerNorm(self.head_dim) if qk_norm else nn.Identity()
        self.rel_pos = rel_pos
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, bias: Tensor | None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        if self.rel_pos is not None:
            bias = self.rel_pos()
        if bias is not None and self.unbiased:
            bias = F.pad(bias, (self.unbiased, 0, self.unbiased, 0))
        return self.proj_drop(
            self.proj(self.attend(self.q_norm(q), self.k_norm(k), v, bias).transpose(1, 2).flatten(2))
        )


class Block(nn.Module):
    """Attention, then mlp, each on a residual; `post` puts the norms behind, which then begin at the layer scale."""

    if TYPE_CHECKING:  # parts are set by name, and TorchScript would read annotations

        def __getattr__(self, name: str) -> Any: ...

    def __init__(self, dim: int, attn: nn.Module, mlp: nn.Module, layer_scale: float | None, post: bool,
                 drop_path: float):  # fmt: skip
        super().__init__()
        self.post = post
        ls1, ls2 = (layer_scale_of(dim, None if post else layer_scale) for _ in range(2))
        parts = {"norm1": LayerNorm(dim), "attn": attn, "ls1": ls1, "norm2": LayerNorm(dim), "mlp": mlp, "ls2": ls2}
        if post:
            parts = {name: parts[name] for name in ("attn", "norm1", "mlp", "norm2", "ls1", "ls2")}
            for norm in (parts["norm1"], parts["norm2"]):
                nn.init.constant_(norm.weight, layer_scale or 1.0)  # type: ignore[arg-type]
        for name, part in parts.items():
            self.add_module(name, part)
        self.drop_path1 = drop_path_of(drop_path)
        self.drop_path2 = drop_path_of(drop_path)

    def forward(self, state: State) -> State:
        x, bias = state
        if self.post:
            x = x + self.drop_path1(self.norm1(self.attn(x, bias)))
            return x + self.drop_path2(self.norm2(self.mlp(x))), bias
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), bias)))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x)))), bias


class VisionTransformerRelPos(TokenModel):
    """`fc_norm` normalizes the pooled vector instead of the tokens; `shared_rel_pos` makes one bias for all blocks.

    Args:
        rel_pos: "mlp", a bias of patches from a small network, or "bias", a table with rows for the class token too
        shared_rel_pos: one position bias for all blocks
    """

    exchanged = (Acts("gelu"), Norms("layernorm"))
    layer_groups = {
        "stem": r"^cls_token|patch_embed",
        "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
    }
    no_decay = ("cls_token",)
    tables = {"patch_embed.proj.weight": PatchKernel()}

    def __init__(self, img_size: int | Size = 224, patch_size: int | Size = 16, in_chans: int = 3,
                 num_classes: int = 1000, global_pool: str = "avg", embed_dim: int = 768, depth: int = 12,
                 num_heads: int = 12, mlp_ratio: float = 4.0, qkv_bias: bool = True, qk_norm: bool = False,
                 layer_scale: float | None = 1e-6, class_token: bool = False, fc_norm: bool = False,
                 rel_pos: str = "mlp", rel_pos_dim: int = 128, shared_rel_pos: bool = False, post_norm: bool = False,
                 drop_rate: float = 0.0, proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans, img_size, patch_size, embed_dim, depth, global_pool, class_token)
        dim, hidden = embed_dim, int(embed_dim * mlp_ratio)
        prefix = self.num_prefix_tokens
        kinds = {"mlp": partial(RelPosMlp, hidden=rel_pos_dim), "bias": partial(RelPosBias, prefix=prefix)}
        if rel_pos not in kinds:
            raise UsageError(f"rel_pos is 'mlp' or 'bias', not {rel_pos!r}")
        make_bias = partial(kinds[rel_pos], self.grid, num_heads)
        make_attn = partial(RelPosAttention, dim, num_heads, unbiased=prefix * (rel_pos == "mlp"), qkv_bias=qkv_bias,
                            qk_norm=qk_norm, attn_drop=attn_drop_rate, proj_drop=proj_drop_rate)  # fmt: skip
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim)) if class_token else None
        self.patch_embed = PatchEmbed(self.patch_size, in_chans, dim)
        self.shared_rel_pos = make_bias() if shared_rel_pos else None
        self.blocks = SharedSequential(*(
            Block(dim, make_attn(None if shared_rel_pos else make_bias()), Mlp(dim, hidden, drop=proj_drop_rate),
                  layer_scale, post_norm, drop) for drop in drop_path_rates(drop_path_rate, depth)[0]
        ))  # fmt: skip
        self.norm = nn.Identity() if fc_norm else LayerNorm(dim)
        self.add_head(drop_rate, LayerNorm(dim) if fc_norm else None)
        if self.cls_token is not None:
            nn.init.normal_(self.cls_token, std=1e-6)

    def embed(self, x: Tensor) -> State:  # (B, 3, H, W) -> (B, prefix + N, C)
        x = self.patch_embed(self.sized_input(x))
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        return x, None if self.shared_rel_pos is None else self.shared_rel_pos()

    def forward_features(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(self.embed(x))[0])

    def sized(self):
        if self.shared_rel_pos is not None:
            return [(self.shared_rel_pos, self.grid)]
        return [(block.attn.rel_pos, self.grid) for block in self.blocks]  # type: ignore[union-attr]

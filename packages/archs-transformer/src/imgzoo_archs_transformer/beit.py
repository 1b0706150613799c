"""BEiT (arXiv:2106.08254) and BEiT v2 (arXiv:2208.06366): a ViT with relative positions and layer scale."""

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import TokenModel
from imgzoo_layers.attention import Attending, head_width
from imgzoo_layers.drop import drop_path_rates, dropout_of
from imgzoo_layers.exchange import HeadScale, Norms
from imgzoo_layers.init import init_linear_, trunc_normal_
from imgzoo_layers.mlp import Mlp, SwiGlu
from imgzoo_layers.norm import LayerNorm
from imgzoo_layers.patch_embed import PatchEmbed
from imgzoo_layers.rel_pos import RelPosBias, relative_index_with_class
from imgzoo_layers.sequential import SharedSequential
from imgzoo_layers.tables import BiasTable, Computed, GridTable, Size, Tabled
from imgzoo_layers.transformer import GammaBlock, scaled
from imgzoo_layers.util import pair

State = tuple[Tensor, Tensor | None]
"""Tokens (B, 1 + N, C) and the bias that all blocks share, if they do: (1, heads, 1 + N, 1 + N)."""


def index_of(window: Size, rel_pos: bool) -> Tensor | None:
    return relative_index_with_class(window) if rel_pos else None


def bias_table(heads: int, window: Size) -> nn.Parameter:
    """A row for each offset in a window, and three: class to patch, patch to class and class to class."""
    return nn.Parameter(torch.zeros((2 * window[0] - 1) * (2 * window[1] - 1) + 3, heads))


def bias_of(table: Tensor, index: Tensor) -> Tensor:
    """(offsets, heads), (N, N) -> (1, heads, N, N)."""
    bias = table[index.view(-1)].view(index.shape[0], index.shape[1], table.shape[1])
    return bias.permute(2, 0, 1).contiguous().unsqueeze(0)


class Attention(Tabled, Attending):
    """Self-attention without bias on the keys; scores get one by offset, its own (`rel_pos`) or one that it is given,
    or both: (B, 1 + N, C) -> (B, 1 + N, C)."""

    k_bias: Tensor
    if TYPE_CHECKING:  # TorchScript would take it for one where there is none
        relative_position_index: Tensor
    tables = {
        "relative_position_bias_table": BiasTable(),
        "relative_position_index": Computed(index_of, "window", "rel_pos"),
        "k_bias": Computed(torch.zeros, "dim"),
    }
    sized_by = "window"

    def __init__(self, dim: int, heads: int, window: Size, rel_pos: bool, attn_drop: float, proj_drop: float,
                 qkv_bias: bool = True):  # fmt: skip
        super().__init__(heads, head_width(dim, heads), attn_drop)
        self.dim, self.window, self.rel_pos = dim, window, rel_pos
        self.q_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.relative_position_bias_table = bias_table(heads, window) if rel_pos else None
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = dropout_of(proj_drop)
        self.init_non_persistent_buffers()

    def forward(self, x: Tensor, bias: Tensor | None = None) -> Tensor:
        added: Tensor | None = None
        if self.q_bias is not None and self.v_bias is not None:
            added = torch.cat([self.q_bias, self.k_bias, self.v_bias])
        qkv = F.linear(x, self.qkv.weight, added)
        q, k, v = qkv.unflatten(2, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        if self.relative_position_bias_table is not None:
            own = bias_of(self.relative_position_bias_table, self.relative_position_index)
            bias = own if bias is None else own + bias
        return self.proj_drop(self.proj(self.attend(q, k, v, bias).transpose(1, 2).flatten(2)))


class Block(GammaBlock):
    def forward(self, state: State) -> State:  # type: ignore[override]
        x, bias = state
        x = x + self.drop_path1(scaled(self.attn(self.norm1(x), bias), self.gamma_1))
        return x + self.drop_path2(scaled(self.mlp(self.norm2(x)), self.gamma_2)), bias


class Beit(TokenModel):
    """Args:
    rel_pos: a bias by offset in each block, its own
    shared_rel_pos: one that all blocks share
    abs_pos: add learned positions to the tokens
    qkv_bias: biases of queries and values
    swiglu: gated mlps
    scale_mlp_norm: a norm between the layers of the mlps
    """

    exchanged = (Norms("layernorm"), HeadScale(0.001))
    layer_groups = {
        "stem": r"^cls_token|^pos_embed|^patch_embed|^rel_pos_bias",
        "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
    }
    no_decay = ("cls_token", "pos_embed", "*relative_position_bias_table")
    tables = {"pos_embed": GridTable()}

    def __init__(self, img_size: int | Size = 224, patch_size: int = 16, in_chans: int = 3, num_classes: int = 1000,
                 global_pool: str = "avg", embed_dim: int = 768, depth: int = 12, num_heads: int = 12,
                 mlp_ratio: float = 4.0, layer_scale: float | None = 1e-5, rel_pos: bool = True,
                 shared_rel_pos: bool = False, abs_pos: bool = False, qkv_bias: bool = True, swiglu: bool = False,
                 scale_mlp_norm: bool = False, drop_rate: float = 0.0, pos_drop_rate: float = 0.0,
                 proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0,
                 fc_norm: bool | None = None):  # fmt: skip
        super().__init__(num_classes, in_chans, img_size, patch_size, embed_dim, depth, global_pool)
        dim, hidden, mlp = embed_dim, int(embed_dim * mlp_ratio), SwiGlu if swiglu else Mlp
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        count = 1 + self.grid[0] * self.grid[1]
        self.pos_embed = nn.Parameter(torch.empty(1, count, dim)) if abs_pos else None
        self.patch_embed = PatchEmbed(pair(patch_size), in_chans, dim)
        self.pos_drop = dropout_of(pos_drop_rate)
        self.rel_pos_bias = RelPosBias(self.grid, num_heads, prefix=1) if shared_rel_pos else None
        if self.rel_pos_bias is not None:
            nn.init.zeros_(self.rel_pos_bias.relative_position_bias_table)
        self.blocks = SharedSequential(*(
            Block(dim, Attention(dim, num_heads, self.grid, rel_pos, attn_drop_rate, proj_drop_rate, qkv_bias),
                  mlp(dim, hidden, norm=LayerNorm if scale_mlp_norm else None, drop=proj_drop_rate), LayerNorm,
                  layer_scale, drop)
            for drop in drop_path_rates(drop_path_rate, depth)[0]
        ))  # fmt: skip
        after_pool = global_pool in ("avg", "max", "avgmax") if fc_norm is None else fc_norm
        self.norm = nn.Identity() if after_pool else LayerNorm(dim)
        self.add_head(drop_rate, LayerNorm(dim) if after_pool else None)
        self.init_weights()

    def init_weights(self) -> None:
        """Truncated normal of std 0.02; the last layers of each block shrink with depth, the classifier starts tiny."""
        init_linear_(self)
        trunc_normal_(self.cls_token, std=0.02)
        if self.pos_embed is not None:
            trunc_normal_(self.pos_embed, std=0.02)
        with torch.no_grad():
            block: Any
            for depth, block in enumerate(self.blocks, start=1):
                block.attn.proj.weight.div_((2 * depth) ** 0.5)
                block.mlp.fc2.weight.div_((2 * depth) ** 0.5)
            if isinstance(self.head, nn.Linear):
                self.head.weight.mul_(0.001)

    def embed(self, x: Tensor) -> State:  # (B, 3, H, W) -> (B, 1 + N, C)
        x = self.patch_embed(self.sized_input(x))
        x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)
        if self.pos_embed is not None:
            x = x + self.pos_embed
        return self.pos_drop(x), None if self.rel_pos_bias is None else self.rel_pos_bias()

    def forward_features(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(self.embed(x))[0])

    def sized(self):
        shared = [] if self.rel_pos_bias is None else [self.rel_pos_bias]
        return [(module, self.grid) for module in (*shared, *(block.attn for block in self.blocks))]

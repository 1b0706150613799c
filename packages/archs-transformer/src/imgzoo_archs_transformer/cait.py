"""CaiT: deep by layer scale, with talking heads and a class token that joins late (arXiv:2103.17239)."""

import torch
from torch import Tensor, nn

from imgzoo.model import TokenModel
from imgzoo_layers.attention import Attending, head_width
from imgzoo_layers.class_attention import ClassAttention
from imgzoo_layers.drop import dropout_of
from imgzoo_layers.exchange import Acts, Biases, Norms
from imgzoo_layers.init import init_linear_, trunc_normal_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import LayerNorm
from imgzoo_layers.patch_embed import PatchEmbed
from imgzoo_layers.tables import GridTable
from imgzoo_layers.transformer import GammaBlock, scaled
from imgzoo_layers.util import pair


class TalkingHeadAttention(Attending):
    """Self-attention whose heads are mixed before and after the softmax (arXiv:2003.02436): (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int, heads: int, attn_drop: float, proj_drop: float):
        super().__init__(heads, head_width(dim, heads), attn_drop)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = dropout_of(proj_drop)
        self.proj_l = nn.Linear(heads, heads)
        self.proj_w = nn.Linear(heads, heads)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        attn = q * self.scale @ k.transpose(-2, -1)  # (B, heads, N, N)
        attn = mix_heads(attn, self.proj_l.weight, self.proj_l.bias).softmax(-1)
        attn = mix_heads(attn, self.proj_w.weight, self.proj_w.bias)
        return self.proj_drop(self.proj((self.attn_drop(attn) @ v).transpose(1, 2).flatten(2)))


def mix_heads(attn: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A linear layer over the heads of (B, heads, N, N)."""
    return (weight @ attn.flatten(2) + bias[:, None]).view_as(attn)


class ClassBlock(GammaBlock):
    """Only the class token changes: (B, 1 + N, C) -> (B, 1 + N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        token = x[:, :1] + scaled(self.attn(self.norm1(x)), self.gamma_1)
        token = token + scaled(self.mlp(self.norm2(token)), self.gamma_2)
        return torch.cat([token, x[:, 1:]], dim=1)


class Cait(TokenModel):
    """The class token's blocks drop nothing.

    Args:
        depth_token_only: blocks at the end in which only the class token changes
        mlp_ratio_token_only: the hidden width of their mlp, as a multiple of the width
    """

    exchanged = (Acts("gelu"), Norms("layernorm"), Biases(("*.attn.q*", "*.attn.[kv]")))
    parts = TokenModel.parts._replace(tail=("cls_token", "blocks_token_only"))
    tables = {"pos_embed": GridTable()}
    token_joins_late = True

    def __init__(self, img_size: int | tuple[int, int] = 224, patch_size: int = 16, in_chans: int = 3,
                 num_classes: int = 1000, global_pool: str = "token", embed_dim: int = 192, depth: int = 24,
                 num_heads: int = 4, mlp_ratio: float = 4.0, layer_scale: float = 1e-5, depth_token_only: int = 2,
                 mlp_ratio_token_only: float = 4.0, drop_rate: float = 0.0, pos_drop_rate: float = 0.0,
                 proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans, img_size, patch_size, embed_dim, depth, global_pool)
        dim, hidden = embed_dim, int(embed_dim * mlp_ratio)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.empty(1, self.grid[0] * self.grid[1], dim))
        self.patch_embed = PatchEmbed(pair(patch_size), in_chans, dim)
        self.pos_drop = dropout_of(pos_drop_rate)
        self.blocks = nn.Sequential(*(
            GammaBlock(dim, TalkingHeadAttention(dim, num_heads, attn_drop_rate, proj_drop_rate),
                       Mlp(dim, hidden, drop=proj_drop_rate), LayerNorm, layer_scale, drop_path_rate)
            for _ in range(depth)
        ))  # fmt: skip
        self.blocks_token_only = nn.Sequential(*(
            ClassBlock(dim, ClassAttention(dim, num_heads), Mlp(dim, int(dim * mlp_ratio_token_only)), LayerNorm,
                       layer_scale)
            for _ in range(depth_token_only)
        ))  # fmt: skip
        self.norm = LayerNorm(dim)
        self.add_head(drop_rate)
        init_linear_(self)
        trunc_normal_(self.cls_token, std=0.02)
        trunc_normal_(self.pos_embed, std=0.02)

    def embed(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, N, C)
        return self.pos_drop(self.patch_embed(self.sized_input(x)) + self.pos_embed)

    def ask(self, x: Tensor) -> Tensor:
        """The class token joins and gathers from the finished patches: (B, N, C) -> (B, 1 + N, C)."""
        if self.cls_token is None:  # pruned
            return self.norm(x)
        return self.norm(self.blocks_token_only(torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)))

    def forward_features(self, x: Tensor) -> Tensor:
        return self.ask(self.blocks(self.embed(x)))

    def _collect(self, x: Tensor, norm: bool) -> Tensor:
        return self.norm(x) if norm else x

    def _final_norm(self, x: Tensor) -> Tensor:
        return self.ask(x)

    def _blocks(self) -> list[nn.Module]:
        return [*self.blocks, *self.blocks_token_only.children()]

    def group_matcher(self, coarse: bool = False) -> dict:
        """The last block of the class token counts as deep as the last block, the one before as the one before."""
        first = len(self.blocks) - len(self.blocks_token_only)
        asking = [(rf"^blocks_token_only\.{i}\.", (first + i,)) for i in range(len(self.blocks_token_only))]
        groups = super().group_matcher(coarse)
        return {"stem": groups["stem"], "blocks": asking + groups["blocks"]}

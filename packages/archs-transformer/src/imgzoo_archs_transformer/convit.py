"""ConViT: attention that begins as a convolution and learns how far to leave it (arXiv:2103.10697)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from imgzoo.errors import UsageError
from imgzoo.model import TokenModel
from imgzoo_layers.attention import Attending, Attention, head_width
from imgzoo_layers.drop import drop_path_rates, dropout_of
from imgzoo_layers.exchange import Biases, Norms
from imgzoo_layers.init import init_linear_, trunc_normal_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import LayerNorm
from imgzoo_layers.patch_embed import PatchEmbed
from imgzoo_layers.tables import GridTable
from imgzoo_layers.transformer import Block
from imgzoo_layers.util import pair


class GatedPositionalAttention(Attending):
    """Attention by content and by offset, weighed by a gate a head (equation 7): (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int, heads: int, attn_drop: float, proj_drop: float):
        super().__init__(heads, head_width(dim, heads), attn_drop)
        self.gating_param = nn.Parameter(torch.ones(heads))
        self.qk = nn.Linear(dim, 2 * dim, bias=False)
        self.v = nn.Linear(dim, dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = dropout_of(proj_drop)
        self.pos_proj = nn.Linear(3, heads)

    def init_local(self) -> None:
        """Each head looks at one place of a square around the token, as the taps of a convolution."""
        nn.init.eye_(self.v.weight)
        side = int(self.num_heads**0.5)
        with torch.no_grad():
            self.pos_proj.weight[:, 2] = -1
            for head in range(side * side):
                self.pos_proj.weight[head, 0] = 2 * (head // side) - (side - 1)
                self.pos_proj.weight[head, 1] = 2 * (head % side) - (side - 1)

    def forward(self, x: Tensor, offsets: Tensor) -> Tensor:
        q, k = self.qk(x).unflatten(2, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        v = self.v(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        place = self.pos_proj(offsets).permute(2, 0, 1).softmax(-1)  # (heads, N, N)
        gate = self.gating_param.sigmoid().view(-1, 1, 1)
        if self.fused_attn and not (self.training and self.attn_drop.p > 0):
            x = (1 - gate) * self.attend(q, k, v) + (gate * place) @ v
        else:  # the weights as one
            attn = (1 - gate) * (q * self.scale @ k.transpose(-2, -1)).softmax(-1) + gate * place
            x = self.attn_drop(attn) @ v
        return self.proj_drop(self.proj(x.transpose(1, 2).flatten(2)))


class LocalBlock(Block):
    """The patches attend by content and place; the class token, first of (B, 1 + N, C) where there is one, waits."""

    def __init__(self, dim: int, attn: nn.Module, mlp: nn.Module, grid: tuple[int, int], drop_path: float):
        super().__init__(dim, attn, mlp, drop_path=drop_path)
        self.grid, self.prefix = grid, 1

    def set_size(self, grid: tuple[int, int]) -> None:
        self.grid = grid

    def forward(self, x: Tensor) -> Tensor:
        token, x = x[:, : self.prefix], x[:, self.prefix :]
        x = x + self.drop_path1(self.attn(self.norm1(x), offsets(self.grid[0], self.grid[1], x)))
        x = x + self.drop_path2(self.mlp(self.norm2(x)))
        return torch.cat([token, x], dim=1)


def offsets(height: int, width: int, like: Tensor) -> Tensor:
    """Across, down and squared distance from each patch to each: (N, N, 3)."""
    down = torch.arange(height, device=like.device).repeat_interleave(width)
    across = torch.arange(width, device=like.device).repeat(height)
    down, across = down - down[:, None], across - across[:, None]
    return torch.stack([across, down, across**2 + down**2], dim=-1).to(like.dtype)


class ConVit(TokenModel):
    """Args:
    embed_dim: channels of each head
    local_up_to_layer: blocks at the start whose attention prefers neighbors
    """

    exchanged = (Norms("layernorm"), Biases(("*.attn.q*", "*.attn.v")))
    tables = {"pos_embed": GridTable()}

    def __init__(self, img_size: int | tuple[int, int] = 224, patch_size: int = 16, in_chans: int = 3,
                 num_classes: int = 1000, global_pool: str = "token", embed_dim: int = 48, depth: int = 12,
                 num_heads: int = 4, mlp_ratio: float = 4.0, local_up_to_layer: int = 10, abs_pos: bool = True,
                 drop_rate: float = 0.0, pos_drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
                 attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        dim = embed_dim * num_heads
        super().__init__(num_classes, in_chans, img_size, patch_size, dim, depth, global_pool)
        if local_up_to_layer >= depth:
            raise UsageError(f"the class token sees patches behind the local blocks only, so local_up_to_layer must be "
                             f"below depth={depth}, not {local_up_to_layer}")  # fmt: skip
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        table = torch.empty(1, self.grid[0] * self.grid[1], dim)
        self.pos_embed = nn.Parameter(table) if abs_pos else None
        self.patch_embed = PatchEmbed(pair(patch_size), in_chans, dim)
        self.pos_drop = dropout_of(pos_drop_rate)
        blocks: list[Block] = []
        for i, drop in enumerate(drop_path_rates(drop_path_rate, depth)[0]):
            mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop_rate)
            if i < local_up_to_layer:
                attn = GatedPositionalAttention(dim, num_heads, attn_drop_rate, proj_drop_rate)
                blocks.append(LocalBlock(dim, attn, mlp, self.grid, drop))
            else:
                attn = Attention(dim, num_heads, False, attn_drop=attn_drop_rate, proj_drop=proj_drop_rate)
                blocks.append(Block(dim, attn, mlp, drop_path=drop))
        self.blocks = nn.Sequential(*blocks)
        self.norm = LayerNorm(dim)
        self.add_head(drop_rate)
        init_linear_(self)
        trunc_normal_(self.cls_token, std=0.02)
        if self.pos_embed is not None:
            trunc_normal_(self.pos_embed, std=0.02)
        for block in blocks:
            if isinstance(block, LocalBlock) and isinstance(block.attn, GatedPositionalAttention):
                block.attn.init_local()

    def embed(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 1 + N, C)
        x = self.patch_embed(self.sized_input(x))
        x = self.pos_drop(x if self.pos_embed is None else x + self.pos_embed)
        return x if self.cls_token is None else torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(self.embed(x)))

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """As everywhere; without a block in which it attends the class token goes, too."""
        waits = all(isinstance(block, LocalBlock) for block in self.blocks[: max(self._asked(indices)) + 1])
        if waits and not prune_head and self.global_pool == "token":
            raise UsageError("the class token sees patches behind the local blocks only: let prune_head=True drop the "
                             "classifier, or pool by 'avg'")  # fmt: skip
        chosen = super().prune_intermediate_layers(indices, prune_norm, prune_head)
        if waits:
            self._drop(["cls_token"])
            self.has_class_token, self.num_prefix_tokens, self.pool_from = False, 0, 0
            for block, _ in self.sized():
                block.prefix = 0
        return chosen

    def sized(self):  # attention by place goes on measuring in patches
        return [(block, self.grid) for block in self.blocks if isinstance(block, LocalBlock)]

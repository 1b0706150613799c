"""BEiT (arXiv:2106.08254) and BEiT v2 (arXiv:2208.06366): a ViT with relative positions and layer scale."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import TokenModel
from imgzoo_layers.attention import Attending, head_width
from imgzoo_layers.drop import drop_path_rates
from imgzoo_layers.init import init_linear_, trunc_normal_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import LayerNorm
from imgzoo_layers.patch_embed import PatchEmbed
from imgzoo_layers.rel_pos import relative_index_with_class
from imgzoo_layers.tables import BiasTable, Computed, Size, Tabled
from imgzoo_layers.transformer import GammaBlock
from imgzoo_layers.util import pair


class Attention(Tabled, Attending):
    """Self-attention with a bias by offset and none on the keys: (B, 1 + N, C) -> (B, 1 + N, C)."""

    k_bias: Tensor
    relative_position_index: Tensor
    tables = {
        "relative_position_bias_table": BiasTable(),
        "relative_position_index": Computed(relative_index_with_class, "window"),
        "k_bias": Computed(torch.zeros, "dim"),
    }
    sized_by = "window"

    def __init__(self, dim: int, heads: int, window: Size):
        super().__init__(heads, head_width(dim, heads))
        self.dim, self.window = dim, window
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))
        offsets = (2 * window[0] - 1) * (2 * window[1] - 1) + 3
        self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets, heads))
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.init_non_persistent_buffers()

    def forward(self, x: Tensor) -> Tensor:
        count = x.shape[1]
        qkv = F.linear(x, self.qkv.weight, torch.cat([self.q_bias, self.k_bias, self.v_bias]))
        q, k, v = qkv.unflatten(2, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.relative_position_bias_table[self.relative_position_index.view(-1)]
        bias = bias.view(count, count, self.num_heads).permute(2, 0, 1).contiguous().unsqueeze(0)
        return self.proj(self.attend(q, k, v, bias).transpose(1, 2).flatten(2))


class Beit(TokenModel):
    layer_groups = {
        "stem": r"^cls_token|^patch_embed",
        "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
    }
    no_decay = ("cls_token", "*relative_position_bias_table")

    def __init__(self, img_size: int | Size = 224, patch_size: int = 16, in_chans: int = 3, num_classes: int = 1000,
                 global_pool: str = "avg", embed_dim: int = 768, depth: int = 12, num_heads: int = 12,
                 mlp_ratio: float = 4.0, layer_scale: float = 1e-5, drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans, img_size, patch_size, embed_dim, depth, global_pool)
        dim, hidden = embed_dim, int(embed_dim * mlp_ratio)
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.patch_embed = PatchEmbed(pair(patch_size), in_chans, dim)
        self.blocks = nn.Sequential(*(
            GammaBlock(dim, Attention(dim, num_heads, self.grid), Mlp(dim, hidden), LayerNorm, layer_scale, drop)
            for drop in drop_path_rates(drop_path_rate, depth)[0]
        ))  # fmt: skip
        after_pool = global_pool in ("avg", "max", "avgmax")
        self.norm = nn.Identity() if after_pool else LayerNorm(dim)
        self.add_head(drop_rate, LayerNorm(dim) if after_pool else None)
        self.init_weights()

    def init_weights(self) -> None:
        """Truncated normal of std 0.02; the last layers of each block shrink with depth, the classifier starts tiny."""
        init_linear_(self)
        trunc_normal_(self.cls_token, std=0.02)
        with torch.no_grad():
            block: Any
            for depth, block in enumerate(self.blocks, start=1):
                block.attn.proj.weight.div_((2 * depth) ** 0.5)
                block.mlp.fc2.weight.div_((2 * depth) ** 0.5)
            if isinstance(self.head, nn.Linear):
                self.head.weight.mul_(0.001)

    def embed(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 1 + N, C)
        x = self.patch_embed(self.sized_input(x))
        return torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(self.embed(x)))

    def sized(self):
        return [(block.attn, self.grid) for block in self.blocks]

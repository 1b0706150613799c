"""Qwen3-VL's vision tower (arXiv:2511.21631): a learned table of places, rotary places, and a merger of 2x2 tokens."""

from functools import partial

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.errors import UsageError
from imgzoo_layers.drop import drop_path_rates
from imgzoo_layers.exchange import Acts
from imgzoo_layers.init import init_linear_, trunc_normal_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import LayerNorm
from imgzoo_layers.patch_embed import PatchEmbed
from imgzoo_layers.rotary import AnyGridRotary
from imgzoo_layers.rotary_attention import RotaryAttention
from imgzoo_layers.tables import Size

from .vision_encoder import Block, Blocks, Classifier, Encoder, State, grouped, whole


class PatchMerger(nn.Module):
    """Squares of tokens, normalized one by one, become one: (B, h, w, C) -> (B, h/s * w/s, out)."""

    def __init__(self, dim: int, out: int, side: int, eps: float):
        super().__init__()
        self.side, hidden = side, side * side * dim
        self.norm = LayerNorm(dim, eps=eps)
        self.fc1 = nn.Linear(hidden, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(grouped(self.norm(x), self.side))))


class Qwen3Encoder(Encoder):
    """Returns (B, h/2 * w/2, out_features), the features being (B, h, w, C); out_features 0 leaves tokens as they are.

    A classifier that is grown reads the mean of what is returned.

    Args:
        merge_size: side of the square of patches that becomes one token
        pos_grid: rows, and columns, of the position table
    """

    exchanged = (Acts("gelu_tanh", ("!*merger.act",)),)
    layer_groups = {
        "stem": r"^patch_embed|pos_embed|rope",
        "blocks": [(r"^blocks\.(\d+)", None), (r"^merger", (99999,))],
    }
    no_decay = ("pos_embed",)

    def __init__(self, patch_size: int = 16, in_chans: int = 3, num_classes: int = 0, global_pool: str | None = None,
                 out_features: int = 0, embed_dim: int = 1152, depth: int = 27, num_heads: int = 16,
                 mlp_ratio: float = 4304 / 1152, merge_size: int = 2, pos_grid: int = 48, rope_theta: float = 10000.0,
                 eps: float = 1e-6, drop_rate: float = 0.0, proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.patch_size, self.embed_dim, dim = (patch_size, patch_size), embed_dim, embed_dim
        side = patch_size * (merge_size if out_features else 1)
        self.step, norm = (side, side), partial(LayerNorm, eps=eps)
        self.patch_embed = PatchEmbed(self.patch_size, in_chans, dim)
        self.pos_grid = (pos_grid, pos_grid)
        self.pos_embed = nn.Parameter(torch.empty(1, pos_grid * pos_grid, dim))
        self.rope = AnyGridRotary(dim // num_heads, rope_theta)
        self.blocks = Blocks(*(
            Block(dim, RotaryAttention(dim, num_heads, attn_drop=attn_drop_rate, proj_drop=proj_drop_rate, prefix=0,
                                       halves=True),
                  Mlp(dim, int(dim * mlp_ratio), act="gelu_tanh", drop=proj_drop_rate), norm, drop)
            for drop in drop_path_rates(drop_path_rate, depth)[0]
        ))  # fmt: skip
        self.merger = PatchMerger(dim, out_features, merge_size, eps) if out_features else nn.Identity()
        self.add_head(out_features or dim, global_pool, drop_rate)
        init_linear_(self)
        trunc_normal_(self.pos_embed, std=0.02)

    def embed(self, x: Tensor) -> State:
        grid = self.grid_of(x)
        x = self.patch_embed(whole(x, self.step)) + stretched(self.pos_embed, grid, self.pos_grid)
        return x, self.rope(grid), grid

    def merged(self, x: Tensor) -> Tensor:
        return self.merger(x)


class Qwen3ViT(Classifier):
    """The mean of the tokens, merged where `merges`, through a layer norm without weights to a classifier.

    Args:
        merge_size: side of the square of patches that becomes one token
        pos_grid: rows, and columns, of the position table
    """

    exchanged = (Acts("gelu_tanh", ("!*merger.act",)),)
    layer_groups = {
        "stem": r"^encoder\.(?:patch_embed|pos_embed|rope)",
        "blocks": [(r"^encoder\.blocks\.(\d+)", None), (r"^encoder\.merger|^norm|^head", (99999,))],
    }
    no_decay = ("encoder.pos_embed",)

    def __init__(self, patch_size: int = 16, in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg",
                 merges: bool = False, out_features: int = 0, embed_dim: int = 1152, depth: int = 27,
                 num_heads: int = 16, mlp_ratio: float = 4304 / 1152, merge_size: int = 2, pos_grid: int = 48,
                 rope_theta: float = 10000.0, eps: float = 1e-6, drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
                 attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        if merges and not out_features:
            raise UsageError("merges needs out_features, the channels of merged tokens")
        out = out_features if merges else 0
        encoder = Qwen3Encoder(patch_size, in_chans, 0, "", out, embed_dim, depth, num_heads, mlp_ratio,
                               merge_size, pos_grid, rope_theta, eps, 0.0, proj_drop_rate, attn_drop_rate,
                               drop_path_rate)  # fmt: skip
        super().__init__(encoder, LayerNorm(encoder.head_hidden_size, eps=eps, affine=False), merges, num_classes,
                         global_pool, drop_rate)  # fmt: skip
        init_linear_(self)


def stretched(table: Tensor, grid: Size, old: Size) -> Tensor:
    """A table of places (1, h' * w', C) from corner to corner of another grid: (1, h * w, C)."""
    if grid == old:
        return table
    x = table.unflatten(1, old).permute(0, 3, 1, 2).float()
    x = F.interpolate(x, grid, mode="bilinear", align_corners=True)
    return x.permute(0, 2, 3, 1).flatten(1, 2).to(table.dtype)


torch.fx.wrap("stretched")

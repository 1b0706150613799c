"""TNT: transformer in transformer, attention among the pixels of a patch inside that among patches (2103.00112)."""

import torch
from torch import Tensor, nn

from imgzoo.model import TokenModel
from imgzoo_layers.attention import Attending, head_width
from imgzoo_layers.drop import drop_path_of, drop_path_rates, dropout_of
from imgzoo_layers.exchange import Biases, Norms
from imgzoo_layers.init import init_linear_, trunc_normal_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.sequential import PairSequential
from imgzoo_layers.tables import GridTable

State = tuple[Tensor, Tensor]
"""Pixels (B * N, n, c) and patches with the class token (B, 1 + N, C)."""


class Attention(Attending):
    """Self-attention with the values' layer apart: (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int, heads: int, attn_drop: float, proj_drop: float):
        super().__init__(heads, head_width(dim, heads), attn_drop)
        self.qk = nn.Linear(dim, 2 * dim, bias=False)
        self.v = nn.Linear(dim, dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = dropout_of(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        q, k = self.qk(x).unflatten(2, (2, self.num_heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        v = self.v(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        return self.proj_drop(self.proj(self.attend(q, k, v).transpose(1, 2).flatten(2)))


class Block(nn.Module):
    """Pixels attend within their patch, are added to it, and patches attend.

    `legacy`, the form of the first weights, normalizes each pixel; the later form each patch, before and after `proj`.
    """

    def __init__(self, dim: int, heads: int, inner: int, inner_heads: int, pixels: int, mlp_ratio: float, legacy: bool,
                 attn_drop: float, proj_drop: float, drop_path: float):  # fmt: skip
        super().__init__()
        self.legacy = legacy
        self.norm_in = nn.LayerNorm(inner)
        self.attn_in = Attention(inner, inner_heads, attn_drop, proj_drop)
        self.norm_mlp_in = nn.LayerNorm(inner)
        self.mlp_in = Mlp(inner, inner * 4, drop=proj_drop)
        self.norm1_proj = nn.LayerNorm(inner if legacy else inner * pixels)
        self.proj = nn.Linear(inner * pixels, dim, bias=legacy)
        self.norm2_proj = nn.Identity() if legacy else nn.LayerNorm(dim)
        self.norm_out = nn.LayerNorm(dim)
        self.attn_out = Attention(dim, heads, attn_drop, proj_drop)
        self.drop_path = drop_path_of(drop_path)
        self.norm_mlp = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop)

    def forward(self, x: State) -> State:
        pixels, patches = x
        pixels = pixels + self.drop_path(self.attn_in(self.norm_in(pixels)))
        pixels = pixels + self.drop_path(self.mlp_in(self.norm_mlp_in(pixels)))
        shape = (patches.shape[0], patches.shape[1] - 1, -1)
        inside = self.norm1_proj(pixels).reshape(shape) if self.legacy else self.norm1_proj(pixels.reshape(shape))
        inside = self.norm2_proj(self.proj(inside))
        patches = torch.cat([patches[:, :1], patches[:, 1:] + inside], dim=1)
        patches = patches + self.drop_path(self.attn_out(self.norm_out(patches)))
        return pixels, patches + self.drop_path(self.mlp(self.norm_mlp(patches)))


class PixelEmbed(nn.Module):
    """Pixels of each patch, `stride` apart in the image: (B, 3, H, W) -> (B * N, c, p/stride, p/stride).

    The convolution sees over the border of a patch where `legacy`, else each patch by itself.
    """

    def __init__(self, in_chans: int, inner: int, patch_size: int, stride: int, legacy: bool):
        super().__init__()
        self.legacy = legacy
        self.side = patch_size // stride if legacy else patch_size
        self.proj = nn.Conv2d(in_chans, inner, 7, stride, 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.legacy:
            x = self.proj(x)
        height, width = x.shape[2] // self.side * self.side, x.shape[3] // self.side * self.side
        x = x[:, :, :height, :width].unflatten(3, (-1, self.side)).unflatten(2, (-1, self.side))  # (B, C, H, p, W, p)
        x = x.permute(0, 2, 4, 1, 3, 5).flatten(0, 2)
        return x if self.legacy else self.proj(x)


class TNT(TokenModel):
    """Args:
    inner_dim: channels of the pixel tokens
    inner_heads: heads of the attention between them
    stride: image pixels from one pixel token to the next
    legacy: normalize each pixel, not each patch, between the two levels
    """

    exchanged = (Norms("layernorm"), Biases(("*.qk", "*.v")))
    layer_groups = {
        "stem": r"^cls_token|^patch_pos|^pixel_pos|^pixel_embed|^norm[12]_proj|^proj",
        "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
    }
    no_decay = ("cls_token", "patch_pos", "pixel_pos")
    tables = {"patch_pos": GridTable()}
    level_part = 1

    def __init__(self, img_size: int | tuple[int, int] = 224, patch_size: int = 16, in_chans: int = 3,
                 num_classes: int = 1000, global_pool: str = "token", embed_dim: int = 384, inner_dim: int = 24,
                 depth: int = 12, num_heads: int = 6, inner_heads: int = 4, stride: int = 4,
                 mlp_ratio: float = 4.0, legacy: bool = False, drop_rate: float = 0.0, pos_drop_rate: float = 0.0,
                 proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans, img_size, patch_size, embed_dim, depth, global_pool)
        side = -(patch_size // -stride)
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim))
        self.patch_pos = nn.Parameter(torch.empty(1, 1 + self.grid[0] * self.grid[1], embed_dim))
        self.pixel_pos = nn.Parameter(torch.empty(1, inner_dim, side, side))
        self.pixel_embed = PixelEmbed(in_chans, inner_dim, patch_size, stride, legacy)
        self.norm1_proj = nn.LayerNorm(inner_dim * side * side)
        self.proj = nn.Linear(inner_dim * side * side, embed_dim)
        self.norm2_proj = nn.LayerNorm(embed_dim)
        self.pos_drop = dropout_of(pos_drop_rate)
        self.blocks = PairSequential(*(
            Block(embed_dim, num_heads, inner_dim, inner_heads, side * side, mlp_ratio, legacy, attn_drop_rate,
                  proj_drop_rate, drop)
            for drop in drop_path_rates(drop_path_rate, depth)[0]
        ))  # fmt: skip
        self.norm = nn.LayerNorm(embed_dim)
        self.add_head(drop_rate)
        init_linear_(self)
        for table in (self.cls_token, self.patch_pos, self.pixel_pos):
            trunc_normal_(table, std=0.02)

    def embed(self, x: Tensor) -> State:
        batch = x.shape[0]
        pixels = (self.pixel_embed(self.sized_input(x)) + self.pixel_pos).flatten(2).transpose(1, 2)  # (B * N, n, c)
        patches = self.norm2_proj(self.proj(self.norm1_proj(pixels.reshape(batch, self.grid[0] * self.grid[1], -1))))
        patches = torch.cat([self.cls_token.expand(batch, -1, -1), patches], dim=1) + self.patch_pos
        return pixels, self.pos_drop(patches)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(self.embed(x))[1])

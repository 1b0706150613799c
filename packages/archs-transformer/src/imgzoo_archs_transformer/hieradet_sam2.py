"""Hiera as the image encoder of SAM 2 (arXiv:2408.00714): windows of any size over maps, some blocks attend to all."""

from collections.abc import Sequence

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.errors import UsageError
from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.attention import Attending, head_width, layer_scale_of
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Acts, Norms
from imgzoo_layers.init import trunc_normal_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import LayerNorm
from imgzoo_layers.padding import pad_to_multiple
from imgzoo_layers.pool_norm import PoolNormHead
from imgzoo_layers.tables import Size
from imgzoo_layers.util import pair
from imgzoo_layers.window import from_windows, to_windows

from .hiera import PatchEmbed, init_blocks_, zero_linear_


class Halve(nn.Module):
    """Maximum of 2x2 neighbors: (B, H, W, C) -> (B, H/2, W/2, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x.permute(0, 3, 1, 2), 2).permute(0, 2, 3, 1)


class MultiScaleAttention(Attending):
    """Attention over a map, whose queries may be pooled: (B, H, W, C) -> (B, H, W, C) or (B, H/2, W/2, C)."""

    def __init__(self, dim: int, dim_out: int, heads: int, halve: bool):
        super().__init__(heads, head_width(dim_out, heads))
        self.q_pool = Halve() if halve else None
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=3)
        if self.q_pool is not None:
            q = self.q_pool(q)
        y = self.attend(self.per_head(q), self.per_head(k), self.per_head(v))
        return self.proj(y.transpose(1, 2).reshape(q.shape))

    def per_head(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, heads, H * W, D)."""
        return x.flatten(1, 2).unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)


class Block(nn.Module):
    """Attention in windows (0: over the map), then mlp: (B, H, W, C) -> (B, H, W, C), or half the size and twice C."""

    def __init__(self, dim: int, dim_out: int, heads: int, window: int, halve: bool, mlp_ratio: float,
                 layer_scale: float | None, drop_path: float):  # fmt: skip
        super().__init__()
        self.window, self.step = window, 2 if halve else 1
        self.proj = nn.Linear(dim, dim_out) if dim != dim_out else nn.Identity()
        self.pool = Halve() if halve else nn.Identity()
        self.norm1 = LayerNorm(dim)
        self.attn = MultiScaleAttention(dim, dim_out, heads, halve)
        self.ls1 = layer_scale_of(dim_out, layer_scale)
        self.drop_path1 = drop_path_of(drop_path)
        self.norm2 = LayerNorm(dim_out)
        self.mlp = Mlp(dim_out, int(dim_out * mlp_ratio))
        self.ls2 = layer_scale_of(dim_out, layer_scale)
        self.drop_path2 = drop_path_of(drop_path)
        self.widens = dim != dim_out

    def attend(self, x: Tensor) -> Tensor:
        if not self.window:
            return self.attn(x)
        height, width, window = x.shape[1] // self.step, x.shape[2] // self.step, (self.window, self.window)
        x = pad_to_multiple(x, window)
        high, wide = x.shape[1] // self.step, x.shape[2] // self.step
        x = self.attn(to_windows(x, window).unflatten(1, window)).flatten(1, 2)
        side = self.window // self.step
        return from_windows(x, (side, side), high, wide)[:, :height, :width]

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        if self.widens:
            x = self.pool(self.proj(y))
        x = x + self.drop_path1(self.ls1(self.attend(y)))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class HieraDet(ImageModel):
    """`window_size` is one a stage; the first block of a stage, which halves the map, has that of the stage before.

    Args:
        pos_size: rows and columns of the table of the whole image
        dim_mul: factor of the channels from stage to stage
        head_mul: factor of the attention heads from stage to stage
        q_pool: stages behind the first that pool as they begin; the others widen alone
        patch_kernel: kernel of the patches' convolution
        patch_stride: its stride, the side of a patch in pixels
        patch_padding: its padding
        patch_size: sides of patches that do not overlap, in place of these three
    """

    exchanged = (Acts("gelu"), Norms("layernorm"))
    parts = Parts(stem=("embed",), stages=("blocks",))
    layer_groups = {"stem": r"^pos_embed|pos_embed_window|patch_embed", "blocks": [(r"^blocks\.(\d+)", None)]}
    no_decay = ("pos_embed", "pos_embed_window")
    formats = ("NCHW", "NHWC")
    channels_last = True
    layout = "plain"

    def __init__(self, embed_dim: int = 96, num_heads: int = 1, depths: Sequence[int] = (2, 3, 16, 3),
                 global_blocks: Sequence[int] = (12, 16, 20), window_size: Sequence[int] = (8, 4, 14, 7),
                 pos_size: Size = (7, 7), mlp_ratio: float = 4.0, dim_mul: float = 2.0, head_mul: float = 2.0,
                 layer_scale: float | None = None, q_pool: int = 3, patch_kernel: Size = (7, 7),
                 patch_stride: Size = (4, 4), patch_padding: Size = (3, 3), patch_size: int | Size | None = None,
                 num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        if q_pool >= len(depths):
            raise UsageError(f"the first of {len(depths)} stages does not pool: q_pool is less, not {q_pool}")
        if patch_size is not None:
            patch_kernel, patch_stride, patch_padding = pair(patch_size), pair(patch_size), (0, 0)
        self.patch_embed = PatchEmbed(in_chans, embed_dim, patch_kernel, patch_stride, patch_padding)
        self.pos_embed = nn.Parameter(torch.empty(1, embed_dim, *pos_size))
        self.pos_embed_window = nn.Parameter(torch.empty(1, embed_dim, window_size[0], window_size[0]))
        blocks, levels, dim, dim_out, heads = [], [], embed_dim, embed_dim, num_heads
        for i, drops in enumerate(drop_path_rates(drop_path_rate, depths)):
            if i:
                dim_out, heads = int(dim * dim_mul), int(heads * head_mul)
            for j, drop in enumerate(drops):
                first = i > 0 and j == 0
                window = 0 if len(blocks) in global_blocks else window_size[i - first]
                halve = first and i <= q_pool
                if halve and dim_out == dim:
                    raise UsageError(f"a stage that pools widens, too: dim_mul is more than {dim_mul:g}")
                blocks.append(Block(dim, dim_out, heads, window, halve, mlp_ratio, layer_scale, drop))
                dim = dim_out
            levels.append(Feature(dim, patch_stride[0] * 2 ** min(i, q_pool), f"blocks.{len(blocks) - 1}"))
        self.blocks = nn.Sequential(*blocks)
        self.feature_info = FeatureInfo(levels)
        self.num_features = self.head_hidden_size = dim
        self.head = PoolNormHead(dim, num_classes, global_pool, drop_rate)
        trunc_normal_(self.pos_embed, std=0.02)
        trunc_normal_(self.pos_embed_window, std=0.02)
        trunc_normal_(self.patch_embed.proj.weight, std=0.02)
        init_blocks_(self.blocks)
        zero_linear_(self.head.fc)

    def embed(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, H/4, W/4, C)
        x = self.patch_embed(x).permute(0, 2, 3, 1)
        return x + positions(self.pos_embed, self.pos_embed_window, x)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, H/32, W/32, C)
        return self.blocks(self.embed(x))


def positions(table: Tensor, window: Tensor, x: Tensor) -> Tensor:
    """A table (1, C, h, w) stretched over the map (B, H, W, C), and one that repeats in every window (2311.05613)."""
    height, width = x.shape[1], x.shape[2]
    stretched = F.interpolate(table.float(), (height, width), mode="bicubic").to(table.dtype)
    down, across = -(height // -window.shape[2]), -(width // -window.shape[3])
    repeated = window.tile(1, 1, down, across)[:, :, :height, :width]
    return (stretched + repeated).permute(0, 2, 3, 1)


torch.fx.wrap("positions")

"""Hiera: a hierarchical transformer without the bells and whistles (arXiv:2306.00989); absolute windows (2311.05613).

Tokens lie mask unit by mask unit, 8x8 patches each, and within a unit in the order in which the stages pool them. So a
window is a slice, and pooling is a maximum over one dimension. Units that are pooled together lie together.

A unit of more patches than all pools make one of is no square of the image, as in the published code: of the places
that are left, counted row by row, it has every n-th, where the image has n units.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.errors import UsageError
from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.attention import Attending, LayerScale, head_width, layer_scale_of
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Norms
from imgzoo_layers.init import lecun_normal_, trunc_normal_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import LayerNorm
from imgzoo_layers.pool_norm import PoolNormHead
from imgzoo_layers.tables import GridTable, Size
from imgzoo_layers.util import pair

State = tuple[Tensor, Size]
"""Tokens (B, N, C), unit by unit, and the size of the map that they are."""
POOL = 4  # tokens that become one


class PatchEmbed(nn.Module):
    """Overlapping patches: (B, 3, H, W) -> (B, C, H/stride, W/stride)."""

    def __init__(self, in_chans: int, dim: int, kernel: Size = (7, 7), stride: Size = (4, 4), padding: Size = (3, 3)):
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, kernel, stride, padding)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class MaskUnitAttention(Attending):
    """Attention in mask units of `area` tokens, or over all of them (0); `left`, the tokens that pooling leaves of a
    unit, makes the queries: (B, N, C) -> (B, N or N/4, C)."""

    def __init__(self, dim: int, dim_out: int, heads: int, area: int, left: int):
        super().__init__(heads, head_width(dim_out, heads))
        self.area, self.left = area, left
        self.qkv = nn.Linear(dim, 3 * dim_out)
        self.proj = nn.Linear(dim_out, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        if self.area:
            x = x.reshape(-1, self.area, x.shape[2])
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        if self.left:
            q = q.unflatten(2, (-1, POOL, self.left)).amax(3).flatten(2, 3)
        return self.proj(self.attend(q, k, v).transpose(1, 2).reshape(batch, -1, self.num_heads * self.head_dim))


class Block(nn.Module):
    """Attention, then mlp, each on a residual; the first block of a stage pools what it attends from. Its shortcut is
    widened by `proj`, or by maximum and mean side by side."""

    def __init__(self, dim: int, dim_out: int, heads: int, area: int, left: int, mlp_ratio: float, project: bool,
                 layer_scale: float | None, drop_path: float):  # fmt: skip
        super().__init__()
        self.left = left
        self.norm1 = LayerNorm(dim)
        self.proj = nn.Linear(dim, dim_out) if (left or dim != dim_out) and project else None
        self.attn = MaskUnitAttention(dim, dim_out, heads, area, left)
        self.ls1 = layer_scale_of(dim_out, layer_scale)
        self.drop_path1 = drop_path_of(drop_path)
        self.norm2 = LayerNorm(dim_out)
        self.mlp = Mlp(dim_out, int(dim_out * mlp_ratio))
        self.ls2 = layer_scale_of(dim_out, layer_scale)
        self.drop_path2 = drop_path_of(drop_path)

    def forward(self, state: State) -> State:
        x, (height, width) = state
        y = self.norm1(x)
        if self.left:
            height, width = height // 2, width // 2
            x = (x if self.proj is None else self.proj(y)).unflatten(1, (-1, POOL, self.left))
            x = torch.cat([x.amax(2), x.mean(2)], dim=-1) if self.proj is None else x.amax(2)
            x = x.flatten(1, 2)
        elif self.proj is not None:
            x = self.proj(y)
        x = x + self.drop_path1(self.ls1(self.attn(y)))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x)))), (height, width)


class Hiera(ImageModel):
    """Args:
    window_pos: a table of positions in a mask unit, beside one of the whole image
    pos_size: rows and columns of the latter
    mask_unit_size: patches down and across a mask unit
    expand_proj: widen in the projection of the shortcut
    mask_unit_attn: whether each stage attends in mask units, or over the map
    dim_mul: factor of the channels from stage to stage
    q_pool: stages behind the first that pool as they begin; the others widen alone
    patch_kernel: kernel of the patches' convolution
    patch_stride: its stride, the side of a patch in pixels
    patch_padding: its padding
    head_mul: factor of the attention heads from stage to stage
    """

    exchanged = (Norms("layernorm"),)
    parts = Parts(stem=("embed",), stages=("blocks",))
    layer_groups = {"stem": r"^pos_embed|^patch_embed", "blocks": [(r"^blocks\.(\d+)", None)]}
    no_decay = ("pos_embed",)
    formats = ("NCHW", "NHWC")
    layout = "plain"

    def __init__(self, img_size: int | Size = 224, embed_dim: int = 96, num_heads: int = 1,
                 depths: Sequence[int] = (2, 3, 16, 3), mlp_ratio: float = 4.0, window_pos: bool = False,
                 pos_size: Size = (14, 14), mask_unit_size: Size = (8, 8), expand_proj: bool = True,
                 mask_unit_attn: Sequence[bool] = (True, True, False, False),
                 dim_mul: float = 2.0, head_mul: float = 2.0, layer_scale: float | None = None, q_pool: int = 3,
                 patch_kernel: Size = (7, 7), patch_stride: Size = (4, 4), patch_padding: Size = (3, 3),
                 num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.img_size = pair(img_size)
        self.patch_size = pair(patch_stride)
        self.unit = high, wide = mask_unit_size
        attend = [i + 1 for i, inside in enumerate(mask_unit_attn) if inside]
        area, reach, pooled = high * wide, len(depths) - 1, min(max(attend, default=0), q_pool)
        inner = max(level for level in range(reach + 1) if area % POOL**level == 0)
        self.rest = area // POOL**inner  # patches of a unit at one place of the map that pools of all stages leave
        if inner < pooled or (self.rest > 1 and inner < reach):
            raise UsageError(f"mask units are a multiple of {POOL**reach} patches, which all pools make one of, or a "
                             f"power of {POOL} of at least {POOL**pooled}, since they attend while pooled: "
                             f"mask_unit_size is not {tuple(mask_unit_size)}")  # fmt: skip
        if q_pool > reach:
            raise UsageError(
                f"the first of {len(depths)} stages does not pool: q_pool is at most {reach}, not {q_pool}"
            )
        outer = reach - inner
        self.side = 2**reach  # patches along a side of what is pooled together
        self.order = [*range(outer), *reversed(range(outer, reach))]
        self.grid = self.grid_of(self.img_size)
        self.patch_embed = PatchEmbed(in_chans, embed_dim, pair(patch_kernel), self.patch_size, pair(patch_padding))
        if q_pool < len(depths) - 1 and not expand_proj:
            raise UsageError("a stage that does not pool widens in a projection: expand_proj is true")
        if window_pos:  # a table of any size for the image, and one that repeats in each unit
            self.pos_embed = nn.Parameter(torch.zeros(1, embed_dim, *pos_size))
            self.pos_embed_win = nn.Parameter(torch.zeros(1, embed_dim, high, wide))
        else:
            self.tables: Mapping[str, Any] = {"pos_embed": GridTable()}
            self.pos_embed = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1], embed_dim))
            self.pos_embed_win = None
        blocks, levels, dim, dim_out, heads = [], [], embed_dim, embed_dim, num_heads
        for i, drops in enumerate(drop_path_rates(drop_path_rate, depths)):
            if i:
                dim_out, heads = int(dim * dim_mul), int(heads * head_mul)
            for j, drop in enumerate(drops):
                first = i > 0 and j == 0
                inside = i - first  # pooling happens where the stage before attended
                within = area // POOL ** min(inside, q_pool) if mask_unit_attn[inside] else 0
                left = max(area // POOL**i, 1) if first and i <= q_pool else 0
                blocks.append(Block(dim, dim_out, heads, within, left, mlp_ratio, expand_proj, layer_scale, drop))
                dim = dim_out
            levels.append(Feature(dim, self.patch_size[0] * 2 ** min(i, q_pool), f"blocks.{len(blocks) - 1}"))
        self.blocks = nn.Sequential(*blocks)
        self.feature_info = FeatureInfo(levels)
        self.num_features = self.head_hidden_size = dim
        self.head = PoolNormHead(dim, num_classes, global_pool, drop_rate, tokens=True)
        self.init_weights()

    def init_weights(self) -> None:
        """As the blocks begin; as in JAX with layer scale. The classifier begins at zero."""
        trunc_normal_(self.pos_embed, std=0.02)
        if self.pos_embed_win is not None:
            trunc_normal_(self.pos_embed_win, std=0.02)
        jax = any(isinstance(module, LayerScale) for module in self.modules())
        init_blocks_(self.blocks, jax)
        conv = self.patch_embed.proj
        if jax and conv.bias is not None:
            lecun_normal_(conv.weight)
            nn.init.zeros_(conv.bias)
        else:
            trunc_normal_(conv.weight, std=0.02)
        zero_linear_(self.head.fc)

    def embed(self, x: Tensor) -> State:  # (B, 3, H, W) -> (B, N, C)
        x = self.patch_embed(self.sized_input(x))
        if self.pos_embed_win is None:
            table = self.pos_embed.transpose(1, 2).unflatten(2, self.grid)
        else:
            repeats = (1, 1, self.grid[0] // self.unit[0], self.grid[1] // self.unit[1])
            table = F.interpolate(self.pos_embed.float(), self.grid, mode="bicubic", antialias=True)
            table = table.to(x.dtype) + self.pos_embed_win.tile(repeats)
        levels = len(self.order)
        halves = (-1, *[2] * levels)  # finest last on both axes
        x = (x + table).unflatten(3, halves).unflatten(2, halves)
        within = [axis + level for level in self.order for axis in (3, 4 + levels)]
        x = x.permute(0, 2, 3 + levels, *within, 1).flatten(1, 2)
        return x.unflatten(1, (self.rest, -1)).movedim(1, -2).flatten(1, -2), self.grid

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, H/32 * W/32, C)
        return self._final_norm(self.blocks(self.embed(x)))

    def _final_norm(self, x: State) -> Tensor:
        return self._map(*x).flatten(1, 2)

    def _stopped(self, x: State) -> Tensor:
        """Rows of the map, as at the end; the field's come in an order of its own, which nothing else knows."""
        return self._final_norm(x)

    def _collect(self, x: State, norm: bool) -> Tensor:
        return self._map(*x).permute(0, 3, 1, 2)

    def _map(self, x: Tensor, size: Size) -> Tensor:
        """Tokens in the order of units as the map they are: (B, N, C) -> (B, h, w, C)."""
        places = (self.grid[0] // self.side, self.grid[1] // self.side)
        pools = (size[0] // places[0]).bit_length() - 1
        x = x.unflatten(1, (-1, *[2] * (2 * pools), self.rest)).movedim(-2, 1).flatten(1, 2).unflatten(1, places)
        left = [level for level in self.order if level < pools]
        rows, columns = [[first + 2 * left.index(level) for level in range(pools)] for first in (3, 4)]
        x = x.permute(0, 1, *rows, 2, *columns, 3 + 2 * pools)
        return x.flatten(2 + pools, 2 + 2 * pools).flatten(1, 1 + pools)

    def fit_size(self, img_size: Size, **options: Any) -> None:
        self.grid = self.grid_of(img_size)
        super().fit_size(img_size, **options)

    def grid_of(self, img_size: Size) -> Size:
        """Patches down and across; the image is whole mask units, and whole places that are left."""
        high, wide = (math.lcm(self.side, unit) * patch for unit, patch in zip(self.unit, self.patch_size, strict=True))
        if img_size[0] % high or img_size[1] % wide:
            sides = high if high == wide else f"{high} and {wide}"
            raise UsageError(f"Hiera takes images whose sides are multiples of {sides}, not img_size={img_size}")
        return img_size[0] // self.patch_size[0], img_size[1] // self.patch_size[1]


def init_blocks_(blocks: nn.Module, jax: bool = False) -> None:
    """Truncated normal of std 0.02 and biases 0.02, or Xavier as in JAX; the last layers shrink with depth."""
    for depth, block in enumerate(blocks.children(), start=1):
        for name, module in block.named_modules():
            if not isinstance(module, nn.Linear):
                continue
            if jax:
                nn.init.xavier_uniform_(module.weight)
                nn.init.normal_(module.bias, std=1e-6 if name.startswith("mlp.") else 0.0)
            else:
                trunc_normal_(module.weight, std=0.02)
                nn.init.constant_(module.bias, 0.02)
            if name in ("attn.proj", "mlp.fc2"):
                with torch.no_grad():
                    module.weight.div_((2 * depth) ** 0.5)


def zero_linear_(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)

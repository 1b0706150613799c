"""NesT: transformers on blocks of the image, which meet only as four blocks become one (arXiv:2105.12723)."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.attention import Attention as HeadAttention
from imgzoo_layers.drop import drop_path_rates
from imgzoo_layers.exchange import Acts, Biases, Norms
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.init import init_linear_, trunc_normal_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import LayerNorm2d
from imgzoo_layers.pool import GlobalPool, MaxPool2dSame
from imgzoo_layers.position import resize_map
from imgzoo_layers.tables import Size, Table, Tabled, check_grid, square
from imgzoo_layers.transformer import Block
from imgzoo_layers.util import pair, per_stage


def cut(x: Tensor, side: int) -> Tensor:
    """A map (B, C, H, W) in side x side blocks: (B, side**2, H * W / side**2, C)."""
    x = x.unflatten(3, (side, -1)).unflatten(2, (side, -1))  # (B, C, side, h, side, w)
    return x.permute(0, 2, 4, 3, 5, 1).flatten(3, 4).flatten(1, 2)


def joined(x: Tensor, size: Size, side: int) -> Tensor:
    """What `cut` did, undone: (B, side**2, N, C) -> (B, C, H, W)."""
    x = x.unflatten(2, (size[0] // side, size[1] // side)).unflatten(1, (side, side))  # (B, side, side, h, w, C)
    return x.permute(0, 5, 1, 3, 2, 4).flatten(4, 5).flatten(2, 3)


class BlockTable(Table):
    """A position map cut into blocks: (1, blocks, positions of a block, C)."""

    def resize(self, table: Tensor, old: Size, new: Size) -> Tensor:
        side = int(table.shape[1] ** 0.5)
        return cut(resize_map(joined(table, old, side), new), side)

    def size_of(self, table: Tensor, own: Tensor, size: Size) -> Size | None:
        return square(table.shape[1] * table.shape[2]) if table.shape[1] == own.shape[1] else None


class Attention(HeadAttention):
    """Within each block, the heads' outputs interleaved, a channel of each in turn: (B, T, N, C) -> (B, T, N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x.flatten(0, 1)).unflatten(2, (3, self.num_heads, self.head_dim))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj_drop(self.proj(self.attend(q, k, v).permute(0, 2, 3, 1).flatten(2))).view_as(x)


class ConvPool(nn.Module):
    """Block aggregation, on the whole map: (B, C, H, W) -> (B, C', H/2, W/2); section 3.1."""

    def __init__(self, dim: int, dim_out: int, same: bool):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim_out, 3, padding=1)
        self.norm = LayerNorm2d(dim_out)
        self.pool = MaxPool2dSame(3, 2) if same else nn.MaxPool2d(3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.norm(self.conv(x)))


class Level(Tabled):
    """Aggregation, position, then a transformer in each of side x side blocks: (B, C, H, W) -> (B, C', H', W')."""

    tables = {"pos_embed": BlockTable()}

    def __init__(self, pool: nn.Module, grid: Size, side: int, dim: int, blocks: list[nn.Module]):
        super().__init__()
        self.grid, self.side = grid, side
        self.pos_embed = nn.Parameter(torch.empty(1, side * side, grid[0] * grid[1] // side**2, dim))
        self.pool = pool
        self.transformer_encoder = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        x = cut(check_grid(self.pool(x), self.grid), self.side) + self.pos_embed
        return joined(self.transformer_encoder(x), self.grid, self.side)


class Nest(ImageModel):
    """The last level is one block, each before it has four times as many; `pad_type` "same" pads as TensorFlow.

    Args:
        num_levels: levels, of which each takes a number that stands alone; None for as many as `depths` has
        pad_type: border of convolutions: "" (symmetric) or "same" (as TensorFlow pads)
    """

    exchanged = (Acts("gelu"), Norms("layernorm*"), Biases(("*.attn.qkv",)))
    reads_maps = True
    parts = Parts(stem=("patch_embed",), stages=("levels",), norm=("norm",), pool="global_pool", head="head")
    layer_groups = {
        "stem": r"^patch_embed",
        "blocks": [
            (r"^levels\.(\d+)\.transformer_encoder\.(\d+)", None),
            (r"^levels\.(\d+)\.(?:pool|pos_embed)", (0,)),
            (r"^norm", (99999,)),
        ],
        "coarse": [
            (r"^levels\.(\d+)", None),
            (r"^levels\.(\d+)\.(?:pool|pos_embed)", (0,)),
            (r"^norm", (99999,)),
        ],
    }
    no_decay = ("levels.*.pos_embed",)
    layout = "plain"

    def __init__(self, img_size: int | Size = 224, patch_size: int = 4, num_levels: int | None = None,
                 embed_dims: int | Sequence[int] = (96, 192, 384), depths: int | Sequence[int] = (2, 2, 8),
                 num_heads: int | Sequence[int] = (3, 6, 12), mlp_ratio: float = 4.0,
                 pad_type: Literal["", "same"] = "", num_classes: int = 1000, in_chans: int = 3,
                 global_pool: str = "avg", drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
                 attn_drop_rate: float = 0.0, drop_path_rate: float = 0.5):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.count = num_levels or (1 if isinstance(depths, int) else len(depths))
        embed_dims, depths, num_heads = (per_stage(each, self.count) for each in (embed_dims, depths, num_heads))
        self.patch_size = patch_size
        self.img_size = self.checked(pair(img_size))
        dim = embed_dims[0]
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(in_chans, dim, patch_size, patch_size)))
        levels = []
        for i, (out, drops) in enumerate(zip(embed_dims, drop_path_rates(drop_path_rate, depths), strict=True)):
            pool = ConvPool(dim, out, pad_type == "same") if i else nn.Identity()
            blocks: list[nn.Module] = [
                Block(out, Attention(out, num_heads[i], attn_drop=attn_drop_rate, proj_drop=proj_drop_rate),
                      Mlp(out, int(out * mlp_ratio), drop=proj_drop_rate), drop_path=drop) for drop in drops
            ]  # fmt: skip
            levels.append(Level(pool, self.map_of(i), 2 ** (self.count - 1 - i), out, blocks))
            dim = out
        self.levels = nn.Sequential(*levels)
        self.feature_info = FeatureInfo(
            Feature(out, patch_size * 2**i, f"levels.{i}") for i, out in enumerate(embed_dims)
        )
        self.norm = LayerNorm2d(dim)
        self.num_features = dim
        self.global_pool = GlobalPool(global_pool)
        self.head_hidden_size = dim * self.global_pool.width
        self.head_drop = nn.Dropout(drop_rate)
        self.head = linear_or_none(self.head_hidden_size, num_classes)
        init_linear_(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            elif isinstance(module, Level):
                trunc_normal_(module.pos_embed, std=0.02)

    def checked(self, size: Size) -> Size:
        step = self.patch_size * 2 ** (self.count - 1)
        if min(size) < step or size[0] % step or size[1] % step:
            raise ValueError(f"the sides of the image divide into blocks: img_size has multiples of {step}, not {size}")
        return size

    def map_of(self, level: int) -> Size:
        step = self.patch_size * 2**level
        return self.img_size[0] // step, self.img_size[1] // step

    def sized(self):
        return [(level, self.map_of(i)) for i, level in enumerate(self.levels)]

    def fit_size(self, img_size: Size, **options: Any) -> None:
        super().fit_size(self.checked(img_size), **options)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/16, W/16)
        return self.norm(self.levels(self.patch_embed(self.sized_input(x))))

    def _blocks(self) -> list[nn.Module]:
        return [block for _, level in self._stages() for block in level.transformer_encoder]

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.head_drop(self.global_pool(x))
        if pre_logits:
            return x
        if getattr(self.global_pool, "kind", "own") == "":  # the classifier looks at every position
            return self.head(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(x)

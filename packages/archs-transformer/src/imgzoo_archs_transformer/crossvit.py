"""CrossViT: two vision transformers of different patch size whose class tokens visit each other (arXiv:2103.14899)."""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.errors import UsageError
from imgzoo.features import to_map
from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts, swap_in
from imgzoo_layers.attention import Attending, Attention, head_width
from imgzoo_layers.drop import drop_path_of, drop_path_rates, dropout_of
from imgzoo_layers.exchange import Biases, Norms
from imgzoo_layers.init import init_linear_, trunc_normal_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import LayerNorm
from imgzoo_layers.sequential import PairSequential
from imgzoo_layers.tables import GridTable
from imgzoo_layers.transformer import Block
from imgzoo_layers.util import pair, per_stage

State = tuple[Tensor, Tensor]
"""Tokens (B, 1 + N, C) of the branch with small patches and of the one with large."""


class PatchEmbed(nn.Module):
    """Patches by one convolution, or by three (the variants called dagger): (B, 3, H, W) -> (B, N, C)."""

    def __init__(self, in_chans: int, dim: int, patch_size: int, multi_conv: bool):
        super().__init__()
        if not multi_conv:
            self.proj = nn.Conv2d(in_chans, dim, patch_size, patch_size)
            return
        if patch_size not in (12, 16):
            raise UsageError(f"three convolutions make patches of 12 or 16 pixels: multi_conv is not for {patch_size}")
        stride = 3 if patch_size == 12 else 2
        self.proj = nn.Sequential(
            nn.Conv2d(in_chans, dim // 4, 7, 4, 3),
            nn.ReLU(inplace=True),
            nn.Conv2d(dim // 4, dim // 2, 3, stride, 3 % stride),
            nn.ReLU(inplace=True),
            nn.Conv2d(dim // 2, dim, 3, patch_size // 4 // stride, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).flatten(2).transpose(1, 2)


class CrossAttention(Attending):
    """The first token asks all: (B, 1 + N, C) -> (B, 1, C)."""

    def __init__(self, dim: int, heads: int, attn_drop: float, proj_drop: float):
        super().__init__(heads, head_width(dim, heads), attn_drop)
        self.wq = nn.Linear(dim, dim)
        self.wk = nn.Linear(dim, dim)
        self.wv = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = dropout_of(proj_drop)

    def forward(self, x: Tensor) -> Tensor:
        q = self.wq(x[:, :1]).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        k = self.wk(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        v = self.wv(x).unflatten(2, (self.num_heads, -1)).transpose(1, 2)
        return self.proj_drop(self.proj(self.attend(q, k, v).transpose(1, 2).flatten(2)))


class CrossAttentionBlock(nn.Module):
    """The visiting class token with what it gathered: (B, 1 + N, C) -> (B, 1, C)."""

    def __init__(self, dim: int, heads: int, attn_drop: float, proj_drop: float, drop_path: float):
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attn = CrossAttention(dim, heads, attn_drop, proj_drop)
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1] + self.drop_path(self.attn(self.norm1(x)))


def project(dim: int, dim_out: int) -> nn.Sequential:
    """A class token to the width of the other branch."""
    return nn.Sequential(LayerNorm(dim), nn.GELU(), nn.Linear(dim, dim_out))


class MultiScaleBlock(nn.Module):
    """Blocks of each branch, then each class token goes to the other branch, gathers, and returns (figure 3)."""

    def __init__(self, dims: Sequence[int], heads: Sequence[int], mlp_ratios: Sequence[float], depths: Sequence[int],
                 attn_drop: float, proj_drop: float, drop_paths: Sequence[float]):  # fmt: skip
        super().__init__()
        self.blocks = nn.ModuleList()
        for dim, count, ratio, depth in zip(dims, heads, mlp_ratios, depths, strict=True):
            blocks = [Block(dim, Attention(dim, count, attn_drop=attn_drop, proj_drop=proj_drop),
                            Mlp(dim, int(dim * ratio), drop=proj_drop), drop_path=drop_paths[i])
                      for i in range(depth)]  # fmt: skip
            self.blocks.append(nn.Sequential(*blocks))
        small, large = dims
        self.projs = nn.ModuleList([project(small, large), project(large, small)])
        drops = (attn_drop, proj_drop, drop_paths[-1])
        self.fusion = nn.ModuleList(CrossAttentionBlock(dim, count, *drops)
                                    for dim, count in ((large, heads[1]), (small, heads[0])))  # fmt: skip
        self.revert_projs = nn.ModuleList([project(large, small), project(small, large)])

    def forward(self, x: State) -> State:
        a, b = self.blocks[0](x[0]), self.blocks[1](x[1])
        first = self.fusion[0](torch.cat([self.projs[0](a[:, :1]), b[:, 1:]], dim=1))
        second = self.fusion[1](torch.cat([self.projs[1](b[:, :1]), a[:, 1:]], dim=1))
        first, second = self.revert_projs[0](first), self.revert_projs[1](second)
        return torch.cat([first, a[:, 1:]], dim=1), torch.cat([second, b[:, 1:]], dim=1)


class Lone:
    """In front of the last block of a pruned network with levels of one branch: only its class token travels."""

    branch: int

    def forward(self: Any, x: State) -> State:
        tokens, i = [self.blocks[0](x[0]), self.blocks[1](x[1])], self.branch
        visitor = self.fusion[i](torch.cat([self.projs[i](tokens[i][:, :1]), tokens[1 - i][:, 1:]], dim=1))
        tokens[i] = torch.cat([self.revert_projs[i](visitor), tokens[i][:, 1:]], dim=1)
        return tokens[0], tokens[1]


class CrossVit(ImageModel):
    """An image of another size is seen as it is, by tables that `set_input_size` resizes; with `dynamic_img_size` it is
    scaled to the size of each branch.

    Args:
        img_scale: side of the second branch's image as a share of the first's
        crop_scale: a branch sees the middle of an image that is larger than it wants, not all of it in small
        patch_size: side of the patches of either branch in pixels
        num_heads: attention heads of either branch, or of both
        mlp_ratio: hidden channels of an mlp of either branch as a multiple, or of both; a third has no effect
        depth: blocks of the fine branch in a stage
        stages: number of stages
        multi_conv: patches by three convolutions
    """

    exchanged = (Norms("layernorm"), Biases(("*.attn.qkv", "*.attn.w[qkv]")))
    default_levels = (2, 5)
    parts = Parts(stem=("embed",), stages=("blocks",), norm=("norm.0", "norm.1"), pool="", head=("head.0", "head.1"))
    layer_groups = {
        "stem": r"^cls_token|^pos_embed|^patch_embed",
        "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))],
    }
    no_decay = ("cls_token_*", "pos_embed_*")
    tables = {"pos_embed_0": GridTable("grid_0"), "pos_embed_1": GridTable("grid_1")}
    isotropic = True
    formats = ("NCHW", "NLC")
    layout = "plain"

    def __init__(self, img_size: int | tuple[int, int] = 240, img_scale: float = 224 / 240, crop_scale: bool = False,
                 patch_size: Sequence[int] = (12, 16), embed_dims: Sequence[int] = (128, 256), depth: int = 3,
                 stages: int = 3, num_heads: int | Sequence[int] = (4, 4),
                 mlp_ratio: float | Sequence[float] = (3.0, 3.0, 1.0), multi_conv: bool = False,
                 num_classes: int = 1000, in_chans: int = 3, global_pool: str = "token",
                 dynamic_img_size: bool = False, drop_rate: float = 0.0, pos_drop_rate: float = 0.0,
                 proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.img_scale, self.embed_dims, self.dynamic_img_size = img_scale, list(embed_dims), dynamic_img_size
        self.crop_scale, self.patch_sizes = crop_scale, tuple(patch_size)
        self.measure(pair(img_size))
        self._set_pool(global_pool)
        self.num_features = self.head_hidden_size = sum(embed_dims)
        for i, (dim, grid) in enumerate(zip(embed_dims, (self.grid_0, self.grid_1), strict=True)):
            self.register_parameter(f"pos_embed_{i}", nn.Parameter(torch.empty(1, 1 + grid[0] * grid[1], dim)))
            self.register_parameter(f"cls_token_{i}", nn.Parameter(torch.empty(1, 1, dim)))
        self.patch_embed = nn.ModuleList(PatchEmbed(in_chans, d, p, multi_conv) for d, p in zip(embed_dims, patch_size))
        self.pos_drop = dropout_of(pos_drop_rate)
        ratios = list(mlp_ratio)[:2] if isinstance(mlp_ratio, Sequence) else [mlp_ratio] * 2
        heads = per_stage(num_heads, 2)
        self.blocks = PairSequential(*(
            MultiScaleBlock(embed_dims, heads, ratios, (1, depth), attn_drop_rate, proj_drop_rate, drop_paths)
            for drop_paths in drop_path_rates(drop_path_rate, [depth] * stages)
        ))  # fmt: skip
        reductions = (patch_size[0], round(patch_size[1] / img_scale))
        self.feature_info = FeatureInfo(Feature(dim, reduction, f"blocks.{i}")
                                        for dim, reduction in zip(embed_dims, reductions)
                                        for i in range(stages))  # fmt: skip
        self.norm = nn.ModuleList(LayerNorm(dim) for dim in embed_dims)
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.ModuleList(self._classifier(dim) for dim in embed_dims)
        init_linear_(self)
        for _, table in self.named_parameters(recurse=False):
            trunc_normal_(table, std=0.02)

    def _classifier(self, dim: int) -> nn.Module:
        return nn.Linear(dim, self.num_classes) if self.num_classes else nn.Identity()

    def measure(self, img_size: tuple[int, int]) -> None:
        """The second branch sees the image smaller, in whole patches."""
        small, wide = self.patch_sizes
        large = (round(img_size[0] * self.img_scale / wide), round(img_size[1] * self.img_scale / wide))
        if min(*large, min(img_size) // small) < 1:
            raise ValueError(f"img_size {img_size} has no whole patch of {small} pixels, and {wide} scaled")
        self.img_size = img_size
        self.grid_0, self.grid_1 = (img_size[0] // small, img_size[1] // small), large
        self.second = (large[0] * wide, large[1] * wide)

    def fit_size(self, img_size: tuple[int, int], **options: Any) -> None:
        super().fit_size(img_size, **options)
        self.measure(img_size)

    def embed(self, x: Tensor) -> State:
        x, batch = self.sized_input(x), x.shape[0]
        smaller = resize_image(x, self.second, self.crop_scale)
        x = resize_image(x, self.img_size, self.crop_scale) if self.dynamic_img_size else x
        a = torch.cat([self.cls_token_0.expand(batch, -1, -1), self.patch_embed[0](x)], dim=1) + self.pos_embed_0
        b = torch.cat([self.cls_token_1.expand(batch, -1, -1), self.patch_embed[1](smaller)], dim=1) + self.pos_embed_1
        return self.pos_drop(a), self.pos_drop(b)

    def forward_features(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        """(B, 3, H, W) -> the tokens of both branches."""
        a, b = self.blocks(self.embed(x))
        return [self.norm[0](a), self.norm[1](b)]

    def pool(self, x: Tensor) -> Tensor:
        return x[:, 0] if self.global_pool == "token" else x[:, 1:].mean(1)

    def forward_head(self, x: list[Tensor], pre_logits: bool = False) -> Tensor:  # type: ignore[override]
        a, b = self.head_drop(self.pool(x[0])), self.head_drop(self.pool(x[1]))
        if pre_logits or self.num_classes == 0:
            return torch.cat([a, b], dim=1)
        return (self.head[0](a) + self.head[1](b)) / 2

    def _advance(self, path: str, step: Any, x: Any) -> tuple[Any, dict[str, Any]]:
        """Every block ends in two levels."""
        x = step(x)
        return x, {path: [(0, x[0]), (1, x[1])]}

    def _collect(self, x: Any, norm: bool) -> Tensor:
        branch, tokens = x
        return (self.norm[branch](tokens) if norm else tokens)[:, 1:]

    def _format(self, level: Tensor, output_fmt: str, index: int) -> Tensor:
        if output_fmt == "NLC":
            return level
        return to_map(level, self.grid_0 if index < len(self.feature_info) // 2 else self.grid_1)

    def _cut(self, level: str, chosen: list[int]) -> None:
        block: Any = self.get_submodule(level)
        count = len(self.feature_info) // 2
        branches = {i // count for i in chosen if f"blocks.{i % count}" == level}
        if len(branches) == 1:
            block.branch = branches.pop()
            swap_in(block, Lone)
            self._drop(f"{level}.{name}.{1 - block.branch}" for name in ("projs", "fusion", "revert_projs"))

    def _idle_norms(self, chosen: Sequence[int]) -> Iterable[str]:
        count = len(self.feature_info) // 2
        return [f"norm.{branch}" for branch in {0, 1} - {i // count for i in chosen}]

    def _final_norm(self, x: Any) -> list[Tensor]:
        return [norm(tokens) for norm, tokens in zip(self.norm, x)]

    def _new_head(self, index: int, num_classes: int, bias: bool) -> nn.Module:
        return nn.Linear(self.embed_dims[index], num_classes, bias=bias)

    def pool_kind(self) -> str:
        return self.global_pool

    def _set_pool(self, global_pool: str) -> None:
        if global_pool not in ("token", "avg"):
            raise ValueError(f"global_pool of two branches of tokens is 'token' or 'avg', not '{global_pool}'")
        self.global_pool = global_pool


def resize_image(x: Tensor, size: tuple[int, int], crop: bool = False) -> Tensor:
    return image_resized(x, size, crop)


def image_resized(x: Tensor, size: tuple[int, int], crop: bool) -> Tensor:
    """The image in another size, or its middle where that is smaller: (B, C, H, W) -> (B, C, h, w)."""
    high, wide = x.shape[2], x.shape[3]
    if (high, wide) == size:
        return x
    if crop and size[0] <= high and size[1] <= wide:
        top, left = (high - size[0]) // 2, (wide - size[1]) // 2
        return x[:, :, top : top + size[0], left : left + size[1]]
    return F.interpolate(x, size=size, mode="bicubic", align_corners=False)


torch.fx.wrap("image_resized")  # tracers need not know whether the size is another

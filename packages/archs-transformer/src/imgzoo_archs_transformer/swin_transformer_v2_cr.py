"""Swin Transformer V2 (arXiv:2111.09883) as Christoph Reich reconstructed it from the paper alone: offsets are not
scaled to a trained window, the bias is not bounded, and a norm closes stages or every few blocks."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import Feature, FeatureInfo, Parts
from imgzoo_layers.attention import head_width
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Norms
from imgzoo_layers.head import ClassifierHead
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.shifted_windows import ShiftedWindows
from imgzoo_layers.stage import Stage
from imgzoo_layers.tables import Computed, Size, Tabled
from imgzoo_layers.util import pair
from imgzoo_layers.window import WindowAttending

from .swin_transformer import PatchEmbed, PatchMerging, SwinTransformer, windows_by, windows_of


def log_offsets(window: Size) -> Tensor:
    """sign(d) log(1 + |d|) down and across, from each position of a window to each: (N * N, 2)."""
    places = torch.stack(torch.meshgrid(*(torch.arange(float(side)) for side in window), indexing="ij"), -1).flatten(
        0, 1
    )
    offsets = (places[:, None] - places).flatten(0, 1)
    return offsets.sign() * offsets.abs().log1p()


class WindowMultiHeadAttention(Tabled, WindowAttending):
    """Attention by angle in windows, with a learned temperature and a bias that a network makes of each offset."""

    relative_coordinates_log: Tensor
    tables = {"relative_coordinates_log": Computed(log_offsets, "window")}
    sized_by = "window"

    def __init__(self, dim: int, heads: int, window: Size, attn_drop: float, proj_drop: float):
        super().__init__(heads, head_width(dim, heads), attn_drop)
        self.window = window
        self.logit_scale = nn.Parameter(torch.full((heads,), math.log(10)))
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        self.meta_mlp = Mlp(2, 384, heads, act="relu")
        self.meta_mlp.drop1.p = 0.125
        self.init_non_persistent_buffers()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        area = x.shape[1]
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        temperature = self.logit_scale.clamp(max=math.log(100)).exp()[:, None, None] / self.scale
        q, k = F.normalize(q, dim=-1) * temperature, F.normalize(k, dim=-1)
        bias = self.meta_mlp(self.relative_coordinates_log).view(area, area, -1)
        bias = bias.permute(2, 0, 1).contiguous().unsqueeze(0)
        return self.proj_drop(self.proj(self.attend_windows(q, k, v, bias, mask)))


class Block(ShiftedWindows):
    """Attention in windows, then mlp, each normalized at its end, the sum too where `closing`: (B, H, W, C)."""

    def __init__(self, dim: int, heads: int, resolution: Size, window: Size, shifted: bool, closing: bool,
                 always_partition: bool, dynamic: bool, mlp_ratio: float, drop: float, attn_drop: float,
                 drop_path: float):  # fmt: skip
        super().__init__(resolution, window, shifted, always_partition, dynamic)
        self.attn = WindowMultiHeadAttention(dim, heads, self.window, attn_drop, drop)
        self.norm1 = nn.LayerNorm(dim)
        self.drop_path1 = drop_path_of(drop_path)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=drop)
        self.norm2 = nn.LayerNorm(dim)
        self.drop_path2 = drop_path_of(drop_path)
        self.norm3 = nn.LayerNorm(dim) if closing else nn.Identity()
        self.init_non_persistent_buffers()
        nn.init.zeros_(self.norm1.weight)  # every branch begins at zero
        nn.init.zeros_(self.norm2.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.norm1(self.attend(x)))
        return self.norm3(x + self.drop_path2(self.norm2(self.mlp(x))))


class MapEmbed(PatchEmbed):
    """(B, 3, H, W) -> (B, C, H/4, W/4)."""

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class MapStage(Stage):
    """A stage whose blocks see (B, H, W, C): (B, C, H, W) -> (B, C', H', W')."""

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x.permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class SwinTransformerV2Cr(SwinTransformer):
    """A norm closes the last stage, every stage with `extra_norm_stage`, and every `extra_norm_period` blocks of one.

    Args:
        window_ratio: windows are the patch grid divided by this, for all stages or for each, unless `window_size` says
        extra_norm_stage: a norm behind every stage
        extra_norm_period: a norm behind every so many blocks; 0 for none
    """

    exchanged = (Norms("layernorm"),)
    parts = Parts(stem=("patch_embed",), stages=("stages",))
    layer_groups = {
        "stem": r"^patch_embed",
        "blocks": [(r"^stages\.(\d+).downsample", (0,)), (r"^stages\.(\d+)\.\w+\.(\d+)", None)],
        "coarse": r"^stages\.(\d+)",
    }
    no_decay = ()
    channels_last = False

    def __init__(self, img_size: int | Size = 224, patch_size: int | Size = 4, embed_dim: int = 96,
                 depths: Sequence[int] = (2, 2, 18, 2), num_heads: Sequence[int] = (3, 6, 12, 24),
                 window_size: int | Sequence[int | Size] | None = None, window_ratio: int | Sequence[int] = 8,
                 always_partition: bool = False, dynamic_img_size: bool = False, mlp_ratio: float = 4.0,
                 extra_norm_stage: bool = False, extra_norm_period: int = 0, num_classes: int = 1000,
                 in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
                 attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super(SwinTransformer, self).__init__(num_classes, in_chans)
        self.img_size, self.patch_size, self.dynamic_img_size = pair(img_size), pair(patch_size), dynamic_img_size
        by_ratio = windows_by(window_ratio, self.resolution(0), len(depths))
        self.set_windows(windows_of(window_size, len(depths)) if window_size else by_ratio)
        self.patch_embed = MapEmbed(patch_size, in_chans, embed_dim)
        stages, levels = [], []
        make_block = partial(Block, always_partition=always_partition, dynamic=dynamic_img_size, mlp_ratio=mlp_ratio,
                             drop=proj_drop_rate, attn_drop=attn_drop_rate)  # fmt: skip
        for i, drops in enumerate(drop_path_rates(drop_path_rate, depths)):
            dim, resolution = embed_dim * 2**i, self.resolution(i)
            down, closed = PatchMerging(dim // 2, dim) if i else nn.Identity(), extra_norm_stage or i == len(depths) - 1
            ends = [(closed and j == depths[i]) or bool(extra_norm_period and j % extra_norm_period == 0)
                    for j in range(1, depths[i] + 1)]  # fmt: skip
            blocks = [make_block(dim, num_heads[i], resolution, self.windows[i], j % 2 == 1, ends[j], drop_path=drop)
                      for j, drop in enumerate(drops)]  # fmt: skip
            stages.append(MapStage(down, *blocks))
            levels.append(Feature(dim, self.patch_size[0] * 2**i, f"stages.{i}"))
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim
        self.head = ClassifierHead(dim, num_classes, global_pool, drop_rate)
        self.head_hidden_size = dim * self.head.global_pool.width

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.stages(self.patch_embed(self.sized_input(x)))

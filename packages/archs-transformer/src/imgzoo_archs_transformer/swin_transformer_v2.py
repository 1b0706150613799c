"""Swin Transformer V2: cosine attention, positions by a small network, norms behind the branches (arXiv:2111.09883)."""

import math
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import Feature, FeatureInfo
from imgzoo_layers.attention import head_width
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Acts, Norms
from imgzoo_layers.head import ClassifierHead
from imgzoo_layers.init import init_linear_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.padding import pad_to_multiple
from imgzoo_layers.shifted_windows import ShiftedWindows
from imgzoo_layers.stage import Stage
from imgzoo_layers.tables import Computed, Size, Tabled
from imgzoo_layers.util import pair, per_stage
from imgzoo_layers.window import WindowAttending, relative_index

from .swin_transformer import PatchEmbed, SwinTransformer, windows_of


def scaled_log_offsets(window: Size, trained: int) -> Tensor:
    """Offsets on a log scale; 8 is the farthest in the window that the network was trained for, or in this one:
    (1, 2h - 1, 2w - 1, 2)."""
    down, across = (torch.arange(1.0 - side, side) * 8 / max((trained or side) - 1, 1) for side in window)
    offsets = torch.stack(torch.meshgrid(down, across, indexing="ij"), dim=-1)
    return (offsets.sign() * offsets.abs().log1p() / math.log(8))[None]


class CosineAttention(Tabled, WindowAttending):
    """Attention by angle in windows, with a learned temperature and a bias that a network makes of the offset."""

    k_bias: Tensor
    relative_coords_table: Tensor
    relative_position_index: Tensor
    tables = {
        "k_bias": Computed(torch.zeros, "dim"),
        "relative_coords_table": Computed(scaled_log_offsets, "window", "trained"),
        "relative_position_index": Computed(relative_index, "window"),
    }
    sized_by = "window"

    def __init__(self, dim: int, heads: int, window: Size, trained: int, qkv_bias: bool, attn_drop: float,
                 proj_drop: float):  # fmt: skip
        super().__init__(heads, head_width(dim, heads), attn_drop)
        self.dim, self.window, self.trained = dim, window, trained
        self.logit_scale = nn.Parameter(torch.full((heads, 1, 1), math.log(10)))
        self.q_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.v_bias = nn.Parameter(torch.zeros(dim)) if qkv_bias else None
        self.cpb_mlp = nn.Sequential(nn.Linear(2, 512), nn.ReLU(), nn.Linear(512, heads, bias=False))
        self.qkv = nn.Linear(dim, 3 * dim, bias=False)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        self.init_non_persistent_buffers()

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        area = x.shape[1]
        if self.q_bias is None or self.v_bias is None:
            qkv = self.qkv(x)
        else:
            qkv = F.linear(x, self.qkv.weight, torch.cat([self.q_bias, self.k_bias, self.v_bias]))
        q, k, v = qkv.unflatten(2, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        temperature = self.logit_scale.clamp(max=math.log(100)).exp() / self.scale
        q, k = F.normalize(q, dim=-1) * temperature, F.normalize(k, dim=-1)
        bias = self.cpb_mlp(self.relative_coords_table).flatten(0, 2)[self.relative_position_index.view(-1)]
        bias = 16 * bias.view(area, area, self.num_heads).permute(2, 0, 1).contiguous().unsqueeze(0).sigmoid()
        return self.proj_drop(self.proj(self.attend_windows(q, k, v, bias, mask)))


class Block(ShiftedWindows):
    """Attention in windows, then mlp, each normalized at its end: (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int, heads: int, resolution: Size, window: Size, trained: int, shifted: bool,
                 always_partition: bool, dynamic: bool, mlp_ratio: float, qkv_bias: bool, drop: float,
                 attn_drop: float, drop_path: float):  # fmt: skip
        super().__init__(resolution, window, shifted, always_partition, dynamic)
        self.attn = CosineAttention(dim, heads, self.window, trained, qkv_bias, attn_drop, drop)
        self.norm1 = nn.LayerNorm(dim)
        self.drop_path1 = drop_path_of(drop_path)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=drop)
        self.norm2 = nn.LayerNorm(dim)
        self.drop_path2 = drop_path_of(drop_path)
        self.init_non_persistent_buffers()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.norm1(self.attend(x)))
        return x + self.drop_path2(self.norm2(self.mlp(x)))


class PatchMerging(nn.Module):
    """Four neighbors become one of twice the width: (B, H, W, C) -> (B, H/2, W/2, 2C)."""

    def __init__(self, dim: int, dim_out: int):
        super().__init__()
        self.reduction = nn.Linear(4 * dim, dim_out, bias=False)
        self.norm = nn.LayerNorm(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        x = pad_to_multiple(x, (2, 2)).unflatten(2, (-1, 2)).unflatten(1, (-1, 2))
        return self.norm(self.reduction(x.permute(0, 1, 3, 4, 2, 5).flatten(3)))


class SwinTransformerV2(SwinTransformer):
    """`trained_windows` are those of the first training, where another size went on from it.

    Args:
        trained_windows: windows of the first training, where one of another size went on; 0 for none
    """

    exchanged = (Acts("gelu"), Norms("layernorm"))
    layer_groups = {**SwinTransformer.layer_groups, "coarse": r"^layers\.(\d+)"}
    no_decay = ("*cpb_mlp*", "*logit_scale")

    def __init__(self, img_size: int | Size = 256, patch_size: int | Size = 4, embed_dim: int = 96,
                 depths: Sequence[int] = (2, 2, 6, 2), num_heads: Sequence[int] = (3, 6, 12, 24),
                 window_size: int | Sequence[int | Size] = 7, trained_windows: int | Sequence[int] = 0,
                 always_partition: bool = False, dynamic_img_size: bool = False, mlp_ratio: float = 4.0,
                 qkv_bias: bool = True, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg",
                 drop_rate: float = 0.0, proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0,
                 drop_path_rate: float = 0.1):  # fmt: skip
        super(SwinTransformer, self).__init__(num_classes, in_chans)
        self.img_size, self.patch_size, self.dynamic_img_size = pair(img_size), pair(patch_size), dynamic_img_size
        self.set_windows(windows_of(window_size, len(depths)))
        trained = per_stage(trained_windows, len(depths))
        self.patch_embed = PatchEmbed(patch_size, in_chans, embed_dim)
        stages, levels = [], []
        make_block = partial(Block, always_partition=always_partition, dynamic=dynamic_img_size, mlp_ratio=mlp_ratio,
                             qkv_bias=qkv_bias, drop=proj_drop_rate, attn_drop=attn_drop_rate)  # fmt: skip
        for i, drops in enumerate(drop_path_rates(drop_path_rate, depths)):
            dim, resolution = embed_dim * 2**i, self.resolution(i)
            down = PatchMerging(dim // 2, dim) if i else nn.Identity()
            blocks = [make_block(dim, num_heads[i], resolution, self.windows[i], trained[i], j % 2 == 1, drop_path=drop)
                      for j, drop in enumerate(drops)]  # fmt: skip
            stages.append(Stage(down, *blocks))
            levels.append(Feature(dim, self.patch_size[0] * 2**i, f"layers.{i}"))
        self.layers = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim
        self.norm = nn.LayerNorm(dim)
        self.head = ClassifierHead(dim, num_classes, global_pool, drop_rate, channels_last=True)
        self.head_hidden_size = dim * self.head.global_pool.width
        init_linear_(self)
        for module in self.modules():
            if isinstance(module, Block):  # every branch begins at zero
                nn.init.zeros_(module.norm1.weight)
                nn.init.zeros_(module.norm2.weight)

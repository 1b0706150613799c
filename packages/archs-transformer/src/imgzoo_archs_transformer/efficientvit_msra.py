"""EfficientViT of MSRA: each head attends to its share of the channels plus the last head's output (2305.07027)."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.attention import Attending, head_width
from imgzoo_layers.conv import ConvNorm
from imgzoo_layers.distance_bias import DistanceTable, distance_bias, distance_index
from imgzoo_layers.norm_linear import NormLinear, NormLinearHead
from imgzoo_layers.padding import pad_to_multiple
from imgzoo_layers.pool import GlobalPool
from imgzoo_layers.stage import Stage
from imgzoo_layers.tables import Computed, Size, Tabled
from imgzoo_layers.util import pair
from imgzoo_layers.window import from_windows, to_windows

from .shvit import Mlp, PatchMerging, Residual


class CascadedGroupAttention(Tabled, Attending):
    """Heads one after another, each with a kernel size of its own for queries: (B, C, h, w) -> (B, C, h, w)."""

    attention_bias_idxs: Tensor
    tables = {
        "attention_biases": DistanceTable("window"),
        "attention_bias_idxs": Computed(distance_index, "window"),
    }
    sized_by = "window"

    def __init__(self, dim: int, kernels: Sequence[int], key_dim: int, window: Size):
        heads, share = len(kernels), head_width(dim, len(kernels))
        super().__init__(heads, key_dim, fused=False)
        self.window, self.widths = window, [key_dim, key_dim, share]
        self.attention_biases = nn.Parameter(torch.zeros(heads, window[0] * window[1]))
        self.qkvs = nn.ModuleList(ConvNorm(share, sum(self.widths)) for _ in kernels)
        self.dws = nn.ModuleList(ConvNorm(key_dim, key_dim, kernel, groups=key_dim) for kernel in kernels)
        self.proj = nn.Sequential(nn.ReLU(), ConvNorm(dim, dim, scale=0.0))
        self.init_non_persistent_buffers()

    def forward(self, x: Tensor) -> Tensor:
        size, shares = (x.shape[2], x.shape[3]), x.chunk(self.num_heads, 1)
        biases = distance_bias(self.attention_biases, self.attention_bias_idxs)
        found: list[Tensor] = []
        for i, (qkv, dw) in enumerate(zip(self.qkvs, self.dws)):
            y = shares[i] + found[-1] if i else shares[i]
            q, k, v = qkv(y).split(self.widths, 1)
            q, k, v = positions(dw(q)), positions(k), positions(v)
            found.append(self.attend(q, k, v, biases[i])[:, 0].transpose(1, 2).unflatten(2, size))
        return self.proj(torch.cat(found, 1))


def positions(x: Tensor) -> Tensor:  # (B, C, h, w) -> (B, 1, h * w, C)
    return x.flatten(2).transpose(1, 2)[:, None]


class LocalWindowAttention(nn.Module):
    """Attention in windows, as far as the map is larger than one; zeros fill the last: (B, C, H, W) -> the same."""

    def __init__(self, dim: int, kernels: Sequence[int], key_dim: int, window: int, grid: Size):
        super().__init__()
        self.largest, self.window, self.whole, self.dynamic = window, grid, True, False
        self.attn: Any = CascadedGroupAttention(dim, kernels, key_dim, self.fitting(grid))
        self.set_size(grid)

    def fitting(self, grid: Size) -> Size:
        return pair(min(self.largest, *grid))

    def set_size(self, grid: Size) -> None:
        """Take maps of another size."""
        self.window = self.attn.window = self.fitting(grid)
        self.whole = self.window == grid and not self.dynamic

    def forward(self, x: Tensor) -> Tensor:
        if self.whole:
            return self.attn(x)
        height, width = x.shape[2], x.shape[3]
        x = pad_to_multiple(x.permute(0, 2, 3, 1), self.window)
        high, wide = x.shape[1], x.shape[2]
        x = self.attn(to_windows(x, self.window).transpose(1, 2).unflatten(2, self.window))
        x = from_windows(x.flatten(2).transpose(1, 2), self.window, high, wide)
        return x[:, :height, :width].permute(0, 3, 1, 2)


class Block(nn.Module):
    """Attention between two pairs of depthwise convolution and mlp, each on a residual: (B, C, H, W) -> the same."""

    def __init__(self, dim: int, kernels: Sequence[int], key_dim: int, window: int, grid: Size):
        super().__init__()
        self.dw0, self.ffn0 = depthwise(dim, scale=0.0), mlp(dim)
        self.mixer = Residual(LocalWindowAttention(dim, kernels, key_dim, window, grid))
        self.dw1, self.ffn1 = depthwise(dim, scale=0.0), mlp(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.mixer(self.ffn0(self.dw0(x)))
        return self.ffn1(self.dw1(x))


class EfficientVitMsra(NormLinearHead, ImageModel):
    """`kernels` are those of the heads, of which a stage has at most as many.

    Windows are as large as maps allow: `set_input_size` fits them and their tables to the size of the image. With
    `dynamic_img_size` they stay, and zeros fill the last of a map.

    Args:
        key_dim: channels of a head's queries and keys, by stage
    """

    parts = Parts(stem=("patch_embed",), pool="global_pool", head="head.linear")
    flat_parts = ("patch_embed",)
    layer_groups = {
        "stem": r"^patch_embed",
        "blocks": [(r"^stages\.(\d+)\.downsample", (0,)), (r"^stages\.(\d+)\.\w+\.(\d+)", None)],
        "coarse": r"^stages\.(\d+)",
    }
    no_decay = ("*attention_biases",)

    def __init__(self, img_size: int | Size = 224, embed_dim: Sequence[int] = (64, 128, 192),
                 depth: Sequence[int] = (1, 2, 3), num_heads: Sequence[int] = (4, 4, 4),
                 key_dim: Sequence[int] = (16, 16, 16), window_size: int = 7,
                 kernels: Sequence[int] = (5, 5, 5, 5), num_classes: int = 1000, in_chans: int = 3,
                 global_pool: str = "avg", dynamic_img_size: bool = False, drop_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.img_size = pair(img_size)
        self.patch_embed, dim = stem(in_chans, embed_dim[0]), embed_dim[0]
        stages, levels = [], []
        for i, out in enumerate(embed_dim):
            down: nn.Module = nn.Identity()
            if i:
                res1, res2 = (nn.Sequential(depthwise(width), mlp(width)) for width in (dim, out))
                merge = PatchMerging(dim, out, ConvNorm)
                down = nn.Sequential(OrderedDict(res1=res1, patchmerge=merge, res2=res2))
            heads = kernels[: num_heads[i]]
            options = (out, heads, key_dim[i], window_size, self.grid(i))
            stages.append(Stage(down, *(Block(*options) for _ in range(depth[i]))))
            levels.append(Feature(out, 16 * 2**i, f"stages.{i}"))
            dim = out
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim
        self.global_pool = GlobalPool(global_pool)
        self.head_hidden_size = dim * self.global_pool.width
        self.head = NormLinear(self.head_hidden_size, num_classes, "linear", drop_rate)
        if dynamic_img_size:
            self.take_any_size()

    def take_any_size(self) -> None:
        super().take_any_size()
        for _, stage in self._stages():
            for block in stage.blocks:
                block.mixer.m.dynamic, block.mixer.m.whole = True, False

    def grid(self, stage: int) -> Size:
        """Height and width of a stage's map."""
        stride = 16 * 2**stage
        return -(self.img_size[0] // -stride), -(self.img_size[1] // -stride)

    def sized(self):
        stages: Any = self.stages
        for i, stage in enumerate(stages):
            yield from ((block.mixer.m, self.grid(i)) for block in stage.blocks)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/64, W/64)
        return self.stages(self.patch_embed(self.sized_input(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.global_pool(x)
        return x if pre_logits else self.head(x)


def depthwise(dim: int, scale: float = 1.0) -> nn.Module:
    """3x3 of each channel on a residual."""
    return Residual(ConvNorm(dim, dim, 3, groups=dim, scale=scale))


def mlp(dim: int) -> nn.Module:
    """Two pointwise layers on a residual."""
    return Residual(Mlp(dim, ConvNorm))


def stem(in_chans: int, dim: int) -> nn.Sequential:
    """Four convolutions of stride 2, each with twice the channels: (B, 3, H, W) -> (B, dim, H/16, W/16)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i in range(1, 5):
        out = dim >> (4 - i)
        layers[f"conv{i}"] = ConvNorm(in_chans, out, 3, 2)
        if i < 4:
            layers[f"relu{i}"] = nn.ReLU()
        in_chans = out
    return nn.Sequential(layers)

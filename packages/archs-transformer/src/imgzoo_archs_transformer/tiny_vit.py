"""TinyViT: mobile convolutions, then attention in windows with a bias by distance (arXiv:2207.10666)."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.attention import head_width
from imgzoo_layers.conv import ConvNorm
from imgzoo_layers.distance_bias import DistanceTable, distance_bias, distance_index
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Acts, Checkpoints
from imgzoo_layers.head import NormMlpHead
from imgzoo_layers.init import init_linear_
from imgzoo_layers.norm import LayerNorm2d
from imgzoo_layers.padding import pad_to_multiple
from imgzoo_layers.stage import Stage
from imgzoo_layers.tables import Computed, Tabled
from imgzoo_layers.window import WindowAttending, from_windows, to_windows


class PatchEmbed(nn.Sequential):
    """(B, 3, H, W) -> (B, dim, H/4, W/4)."""

    def __init__(self, in_chans: int, dim: int):
        super().__init__()
        self.conv1 = ConvNorm(in_chans, dim // 2, 3, 2)
        self.act = nn.GELU()
        self.conv2 = ConvNorm(dim // 2, dim, 3, 2)


class MBConv(nn.Module):
    """Widen, 3x3 of each channel, project, on a residual (arXiv:1801.04381): (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, expand: float, drop_path: float):
        super().__init__()
        hidden = int(dim * expand)
        self.conv1 = ConvNorm(dim, hidden)
        self.act1 = nn.GELU()
        self.conv2 = ConvNorm(hidden, hidden, 3, groups=hidden)
        self.act2 = nn.GELU()
        self.conv3 = ConvNorm(hidden, dim, scale=0.0)
        self.drop_path = drop_path_of(drop_path)
        self.act3 = nn.GELU()

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(self.act2(self.conv2(self.act1(self.conv1(x)))))
        return self.act3(x + self.drop_path(y))


class PatchMerging(nn.Sequential):
    """Halve the map between two pointwise layers: (B, C, H, W) -> (B, dim_out, H/2, W/2)."""

    def __init__(self, dim: int, dim_out: int):
        super().__init__()
        self.conv1 = ConvNorm(dim, dim_out)
        self.act1 = nn.GELU()
        self.conv2 = ConvNorm(dim_out, dim_out, 3, 2, dim_out)
        self.act2 = nn.GELU()
        self.conv3 = ConvNorm(dim_out, dim_out)


class Attention(Tabled, WindowAttending):
    """Attention in windows with a bias by distance: (B * windows, N, C) -> (B * windows, N, C)."""

    attention_bias_idxs: Tensor
    tables = {
        "attention_biases": DistanceTable("window"),
        "attention_bias_idxs": Computed(distance_index, "window"),
    }
    sized_by = "window"

    def __init__(self, dim: int, heads: int, window: int):
        super().__init__(heads, head_width(dim, heads))
        self.window = (window, window)
        self.attention_biases = nn.Parameter(torch.zeros(heads, window * window))
        self.norm = nn.LayerNorm(dim)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.init_non_persistent_buffers()

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(self.norm(x)).unflatten(2, (self.num_heads, 3, self.head_dim))
        q, k, v = qkv.permute(3, 0, 2, 1, 4).unbind(0)
        bias = distance_bias(self.attention_biases, self.attention_bias_idxs).unsqueeze(0)
        return self.proj(self.attend_windows(q, k, v, bias, None))


class NormMlp(nn.Sequential):
    """Norm, linear, activation, linear: (..., C) -> (..., C)."""

    def __init__(self, dim: int, hidden: int, drop: float):
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.drop1 = nn.Dropout(drop)
        self.fc2 = nn.Linear(hidden, dim)
        self.drop2 = nn.Dropout(drop)


class Block(nn.Module):
    """Attention in windows, the last ones filled up with zeros, 3x3 of each channel, mlp: (B, H, W, C) -> the same."""

    def __init__(self, dim: int, heads: int, window: int, mlp_ratio: float, kernel: int, drop: float,
                 drop_path: float):  # fmt: skip
        super().__init__()
        self.attn = Attention(dim, heads, window)
        self.drop_path1 = drop_path_of(drop_path)
        self.mlp = NormMlp(dim, int(dim * mlp_ratio), drop)
        self.drop_path2 = drop_path_of(drop_path)
        self.local_conv = ConvNorm(dim, dim, kernel, groups=dim)

    def forward(self, x: Tensor) -> Tensor:
        size, window = (x.shape[1], x.shape[2]), self.attn.window
        y = pad_to_multiple(x, window)
        high, wide = y.shape[1], y.shape[2]
        y = from_windows(self.attn(to_windows(y, window)), window, high, wide)[:, : size[0], : size[1]]
        x = x + self.drop_path1(y)
        x = self.local_conv(x.permute(0, 3, 1, 2)).flatten(2).transpose(1, 2)  # (B, N, C)
        return (x + self.drop_path2(self.mlp(x))).unflatten(1, size)


class AttentionStage(Stage):
    """The same with blocks of maps whose channels are last."""

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class TinyVit(ImageModel):
    """The first stage is of convolutions, the others attend in windows of `window_sizes`.

    Args:
        expand: widening of the blocks of the first stage
        window_sizes: side of an attention window of each stage in positions
        local_kernel: kernel of the convolution behind attention
    """

    exchanged = (Acts("gelu"), Checkpoints())
    parts = Parts(stem=("patch_embed",))
    layer_groups = {
        "stem": r"^patch_embed",
        "blocks": [(r"^stages\.(\d+)\.downsample", (0,)), (r"^stages\.(\d+)\.\w+\.(\d+)", None)],
        "coarse": r"^stages\.(\d+)",
    }
    no_decay = ("*attention_biases",)

    def __init__(self, embed_dims: Sequence[int] = (96, 192, 384, 576), depths: Sequence[int] = (2, 2, 6, 2),
                 num_heads: Sequence[int] = (3, 6, 12, 18), window_sizes: Sequence[int] = (7, 7, 14, 7),
                 mlp_ratio: float = 4.0, expand: float = 4.0, local_kernel: int = 3,
                 num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0,
                 proj_drop_rate: float = 0.0, drop_path_rate: float = 0.1):  # fmt: skip
        super().__init__(num_classes, in_chans)
        dim = embed_dims[0]
        self.patch_embed = PatchEmbed(in_chans, dim)
        stages, levels = [], []
        for i, drops in enumerate(drop_path_rates(drop_path_rate, depths)):
            out, down, make = embed_dims[i], nn.Identity(), partial(MBConv, expand=expand)
            if i:
                down = PatchMerging(dim, out)
                make = partial(Block, heads=num_heads[i], window=window_sizes[i], mlp_ratio=mlp_ratio,
                               kernel=local_kernel, drop=proj_drop_rate)  # fmt: skip
            stage = AttentionStage if i else Stage
            stages.append(stage(down, *(make(out, drop_path=drop) for drop in drops)))
            levels.append(Feature(out, 4 * 2**i, f"stages.{i}"))
            dim = out
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = self.head_hidden_size = dim
        self.head = NormMlpHead(dim, num_classes, global_pool, drop_rate, partial(LayerNorm2d, eps=1e-5))
        init_linear_(self)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.stages(self.patch_embed(x))

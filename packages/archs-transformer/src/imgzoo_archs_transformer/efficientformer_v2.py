"""EfficientFormer V2: attention on maps with a local branch, in the last blocks of two stages (arXiv:2212.08059)."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import Distilled, Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.attention import LayerScale2d
from imgzoo_layers.conv import ConvNorm
from imgzoo_layers.distance_bias import distance_bias
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Acts, Norms
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.init import init_linear_
from imgzoo_layers.pool import GlobalPool
from imgzoo_layers.stage import Stage, shrinking
from imgzoo_layers.tables import Size
from imgzoo_layers.util import pair, per_stage

from .levit import DistanceAttention

HEADS = 8
conv_norm = partial(ConvNorm, bias=True)


class Attention2d(DistanceAttention):
    """Self-attention whose heads talk (arXiv:2003.02436), to which 3x3 of each channel of the values are added:
    (B, C, H, W) -> (B, C, H, W). With `strided` at half the size."""

    def __init__(self, dim: int, grid: Size, strided: bool):
        super().__init__(HEADS, 32, halved(grid) if strided else grid, conv=True)
        wide, self.strided = 4 * HEADS * self.head_dim, strided
        self.stride_conv = conv_norm(dim, dim, 3, 2, dim) if strided else nn.Identity()
        self.q = conv_norm(dim, HEADS * self.head_dim)
        self.k = conv_norm(dim, HEADS * self.head_dim)
        self.v = conv_norm(dim, wide)
        self.v_local = conv_norm(wide, wide, 3, groups=wide)
        self.talking_head1 = nn.Conv2d(HEADS, HEADS, 1)
        self.talking_head2 = nn.Conv2d(HEADS, HEADS, 1)
        self.act = nn.GELU()
        self.proj = conv_norm(wide, dim)
        self.init_non_persistent_buffers()

    def set_size(self, size: Size) -> None:
        super().set_size(halved(size) if self.strided else size)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stride_conv(x)
        q, k, v = self.heads_of(self.q(y)), self.heads_of(self.k(y)), self.v(y)
        scores = (q * self.scale) @ k.transpose(2, 3) + distance_bias(self.attention_biases, self.attention_bias_idxs)
        scores = self.talking_head2(self.attn_drop(self.talking_head1(scores).softmax(-1)))
        local = self.v_local(v)
        y = (scores @ self.heads_of(v)).transpose(2, 3).reshape(local.shape) + local
        if self.strided:
            y = F.interpolate(y, scale_factor=2.0, mode="bilinear")[:, :, : x.shape[2], : x.shape[3]]
        return self.proj(self.act(y))


class LocalGlobalQuery(nn.Module):
    """3x3 of each channel plus every other position: (B, C, H, W) -> (B, dim_out, H/2, W/2)."""

    def __init__(self, dim: int, dim_out: int):
        super().__init__()
        self.local = nn.Conv2d(dim, dim, 3, 2, 1, groups=dim)
        self.proj = conv_norm(dim, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.local(x) + x[:, :, ::2, ::2])


class Attention2dDownsample(DistanceAttention):
    """The same at half the size in another width, every other position asking: (B, C, H, W) -> (B, C', H/2, W/2)."""

    stride = 2

    def __init__(self, dim: int, dim_out: int, grid: Size):
        super().__init__(HEADS, 16, grid, conv=True)
        wide = 4 * HEADS * self.head_dim
        self.q = LocalGlobalQuery(dim, HEADS * self.head_dim)
        self.k = conv_norm(dim, HEADS * self.head_dim)
        self.v = conv_norm(dim, wide)
        self.v_local = conv_norm(wide, wide, 3, 2, wide)
        self.act = nn.GELU()
        self.proj = conv_norm(wide, dim_out)
        self.init_non_persistent_buffers()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads_of(self.q(x)), self.heads_of(self.k(x)), self.v(x)
        local = self.v_local(v)
        y = self.attend(q, k, self.heads_of(v), distance_bias(self.attention_biases, self.attention_bias_idxs))
        return self.proj(self.act(y.transpose(2, 3).reshape(local.shape) + local))


class Downsample(nn.Module):
    """Halve the map by convolution, and by attention if `grid` tells its size: (B, C, H, W) -> (B, C', H/2, W/2)."""

    def __init__(self, dim: int, dim_out: int, grid: Size | None):
        super().__init__()
        self.conv = conv_norm(dim, dim_out, 3, 2)
        self.attn = Attention2dDownsample(dim, dim_out, grid) if grid else None

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        return y if self.attn is None else y + self.attn(x)


class Mlp(nn.Sequential):
    """Widen, 3x3 of each channel, narrow: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, hidden: int, drop: float):
        super().__init__()
        self.fc1 = conv_norm(dim, hidden)
        self.act1 = nn.GELU()
        self.mid = conv_norm(hidden, hidden, 3, groups=hidden)
        self.act2 = nn.GELU()
        self.drop1 = nn.Dropout(drop)
        self.fc2 = conv_norm(hidden, dim)
        self.drop2 = nn.Dropout(drop)


class Block(nn.Module):
    """Attention (where there is one), then mlp, each on a residual: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, mixer: nn.Module | None, ratio: float, layer_scale: float, drop: float,
                 drop_path: float):  # fmt: skip
        super().__init__()
        self.token_mixer = mixer
        if mixer is not None:
            self.ls1 = LayerScale2d(dim, layer_scale)
            self.drop_path1 = drop_path_of(drop_path)
        self.mlp = Mlp(dim, int(dim * ratio), drop)
        self.ls2 = LayerScale2d(dim, layer_scale)
        self.drop_path2 = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        if self.token_mixer is not None:
            x = x + self.drop_path1(self.ls1(self.token_mixer(x)))
        return x + self.drop_path2(self.ls2(self.mlp(x)))


class EfficientFormerV2(Distilled, ImageModel):
    """The last `num_vit` blocks of the last two stages attend; `mlp_ratios` are a number for a stage or one a block.

    Two classifiers read one vector; outside of distilled training their logits are averaged.

    Args:
        downsamples: whether each stage begins with a downsampling, as those that widen do; none for all but the first
        num_vit: blocks at the end of the last two stages that attend
        distilled: a second head for distillation
    """

    exchanged = (
        Acts("gelu"),
        Norms("batchnorm", ("!*.token_mixer.*", "!*.attn.*"), options=("eps",)),
        Norms("batchnorm", ("!*.token_mixer.*", "!*.attn.*"), options=("norm",)),
    )
    parts = Parts(norm=("norm",), pool="pool", head=("head", "head_dist"))
    flat_parts = ("stem",)
    layer_groups = {"stem": r"^stem", "blocks": [(r"^stages\.(\d+)", None), (r"^norm", (99999,))]}
    no_decay = ("*attention_biases",)

    def __init__(self, img_size: int | Size = 224, depths: Sequence[int] = (2, 2, 6, 4),
                 embed_dims: Sequence[int] = (32, 48, 96, 176), num_vit: int = 2,
                 downsamples: Sequence[bool] | None = None,
                 mlp_ratios: Any = (4, 4, (4, 3, 3, 3, 4, 4), (4, 3, 3, 4)), layer_scale: float = 1e-5,
                 distilled: bool = True, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg",
                 drop_rate: float = 0.0, proj_drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.img_size, dim, last = pair(img_size), embed_dims[0], len(depths) - 1
        self.stem = nn.Sequential(OrderedDict(
            conv1=conv_norm(in_chans, dim // 2, 3, 2), act1=nn.GELU(), conv2=conv_norm(dim // 2, dim, 3, 2),
            act2=nn.GELU(),
        ))  # fmt: skip
        stages, levels, ratios = [], [], per_stage(mlp_ratios, len(depths))
        shrinks, self.strides = shrinking(downsamples, embed_dims), []
        for i, drops in enumerate(drop_path_rates(drop_path_rate, depths)):
            out, blocks = embed_dims[i], []
            self.strides.append((self.strides[-1] if i else 4) * (2 if shrinks[i] else 1))
            attends_between = i == last and i > 0
            down: nn.Module = nn.Identity()
            if shrinks[i]:
                down = Downsample(dim, out, self.grid(i - 1) if attends_between else None)
            for j, (ratio, drop) in enumerate(zip(per_stage(ratios[i], depths[i]), drops)):
                attends = i >= last - 1 and j >= depths[i] - num_vit
                mixer = Attention2d(out, self.grid(i), strided=i < last) if attends else None
                blocks.append(Block(out, mixer, ratio, layer_scale, proj_drop_rate, drop))
            stages.append(Stage(down, *blocks))
            levels.append(Feature(out, self.strides[i], f"stages.{i}"))
            dim = out
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim
        self.norm = nn.BatchNorm2d(dim)
        self.pool = GlobalPool(global_pool)
        self.head_hidden_size = dim * self.pool.width
        self.head_drop = nn.Dropout(drop_rate)
        self.head = linear_or_none(self.head_hidden_size, num_classes)
        self.head_dist = linear_or_none(self.head_hidden_size, num_classes) if distilled else None
        init_linear_(self)

    def grid(self, stage: int) -> Size:
        """Height and width of a stage's map."""
        stride = self.strides[stage]
        return -(self.img_size[0] // -stride), -(self.img_size[1] // -stride)

    def sized(self):
        stages: Any = self.stages
        for i, stage in enumerate(stages):
            if getattr(stage.downsample, "attn", None) is not None:
                yield stage.downsample.attn, self.grid(i - 1)
            yield from ((block.token_mixer, self.grid(i)) for block in stage.blocks if block.token_mixer is not None)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.norm(self.stages(self.stem(self.sized_input(x))))


def halved(size: Size) -> Size:
    """The size of a map behind a convolution of stride 2."""
    return -(size[0] // -2), -(size[1] // -2)

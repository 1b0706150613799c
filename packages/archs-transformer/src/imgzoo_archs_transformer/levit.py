"""LeViT: attention with a bias by distance on a map that convolutions made small, without layer norm (2104.01136)."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from imgzoo.model import Distilled, Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.act import create_act
from imgzoo_layers.attention import Attending
from imgzoo_layers.distance_bias import DistanceTable, distance_bias, distance_index
from imgzoo_layers.drop import drop_path_of
from imgzoo_layers.norm_linear import NormLinear, NormLinearHead
from imgzoo_layers.pool import GlobalPool
from imgzoo_layers.stage import Stage
from imgzoo_layers.tables import Computed, Size, Tabled
from imgzoo_layers.util import pair


class ConvNorm(nn.Module):
    """Convolution and batch norm whose weights start at `scale`; keys `linear` and `bn`."""

    def __init__(self, dim: int, dim_out: int, kernel: int = 1, stride: int = 1, scale: float = 1.0):
        super().__init__()
        self.linear = nn.Conv2d(dim, dim_out, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(dim_out)
        nn.init.constant_(self.bn.weight, scale)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.linear(x))


class LinearNorm(nn.Module):
    """The same over tokens (B, N, C)."""

    def __init__(self, dim: int, dim_out: int, scale: float = 1.0):
        super().__init__()
        self.linear = nn.Linear(dim, dim_out, bias=False)
        self.bn = nn.BatchNorm1d(dim_out)
        nn.init.constant_(self.bn.weight, scale)

    def forward(self, x: Tensor) -> Tensor:
        x = self.linear(x)
        return self.bn(x.flatten(0, 1)).view_as(x)


class DistanceAttention(Tabled, Attending):
    """What both attentions share, over tokens (B, N, C), or with `conv` over a map (B, C, H, W)."""

    attention_bias_idxs: Tensor
    if TYPE_CHECKING:  # TorchScript would read the annotation
        proj: nn.Module
    tables = {
        "attention_biases": DistanceTable(),
        "attention_bias_idxs": Computed(distance_index, "grid", "stride"),
    }
    stride = 1

    def __init__(self, heads: int, key_dim: int, grid: Size, conv: bool):
        super().__init__(heads, key_dim, fused=False)
        self.grid, self.conv = grid, conv
        self.attention_biases = nn.Parameter(torch.zeros(heads, grid[0] * grid[1]))

    def heads_of(self, x: Tensor) -> Tensor:
        """Tokens or a map -> (B, heads, N, D)."""
        if self.conv:
            return x.flatten(2).unflatten(1, (self.num_heads, -1)).transpose(2, 3)
        return x.unflatten(2, (self.num_heads, -1)).transpose(1, 2)

    def mix(self, q: Tensor, k: Tensor, v: Tensor, grid: Size) -> Tensor:
        """Attend, and project the heads' output, of a map of that grid."""
        x = self.attend(q, k, v, distance_bias(self.attention_biases, self.attention_bias_idxs))
        x = x.transpose(2, 3).flatten(1, 2).unflatten(2, grid) if self.conv else x.transpose(1, 2).flatten(2)
        return self.proj(x)


class Attention(DistanceAttention):
    """Self-attention whose values are `ratio` times as wide as keys."""

    def __init__(self, dim: int, heads: int, key_dim: int, ratio: float, grid: Size, act: str, conv: bool):
        super().__init__(heads, key_dim, grid, conv)
        self.widths = [key_dim, key_dim, int(ratio * key_dim)]
        self.qkv = layer_of(conv)(dim, heads * sum(self.widths))
        self.proj = projection(self.widths[2] * heads, dim, act, conv, scale=0.0)
        self.init_non_persistent_buffers()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = torch.split(self.heads_of(self.qkv(x)), self.widths, 3)
        return self.mix(q, k, v, self.grid)


class AttentionDownsample(DistanceAttention):
    """Every other position asks all, and values are four times as wide as keys: half the size and another width."""

    stride = 2

    def __init__(self, dim: int, dim_out: int, key_dim: int, grid: Size, act: str, conv: bool):
        heads = dim // key_dim
        super().__init__(heads, key_dim, grid, conv)
        self.widths = [key_dim, 4 * key_dim]
        self.kv = layer_of(conv)(dim, heads * sum(self.widths))
        self.q = nn.Sequential(OrderedDict(ln=layer_of(conv)(dim, heads * key_dim)))
        self.proj = projection(4 * key_dim * heads, dim_out, act, conv, scale=1.0)
        self.init_non_persistent_buffers()

    def forward(self, x: Tensor) -> Tensor:
        k, v = torch.split(self.heads_of(self.kv(x)), self.widths, 3)
        x = x[:, :, ::2, ::2] if self.conv else x.unflatten(1, self.grid)[:, ::2, ::2].flatten(1, 2)
        return self.mix(self.heads_of(self.q(x)), k, v, (-(self.grid[0] // -2), -(self.grid[1] // -2)))


class Mlp(nn.Module):
    def __init__(self, dim: int, ratio: float, act: str, conv: bool):
        super().__init__()
        hidden = int(ratio * dim)
        self.ln1 = layer_of(conv)(dim, hidden)
        self.act = create_act(act)
        self.ln2 = layer_of(conv)(hidden, dim, scale=0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.ln2(self.act(self.ln1(x)))


class Block(nn.Module):
    """Attention, then mlp, each on a residual."""

    def __init__(self, attn: nn.Module, mlp: nn.Module, drop_path: float):
        super().__init__()
        self.attn = attn
        self.drop_path1 = drop_path_of(drop_path)
        self.mlp = mlp
        self.drop_path2 = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.attn(x))
        return x + self.drop_path2(self.mlp(x))


class Downsample(nn.Module):
    def __init__(self, attn: nn.Module, mlp: nn.Module, drop_path: float):
        super().__init__()
        self.attn_downsample = attn
        self.mlp = mlp
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attn_downsample(x)
        return x + self.drop_path(self.mlp(x))


class Levit(NormLinearHead, ImageModel):
    """`use_conv` keeps maps (B, C, H, W) where else there are tokens; `stem_stride` is 16, or 8 for a finer map.

    Args:
        key_dim: channels of a head's keys
        attn_ratio: channels of a head's values as a multiple of its keys', not where the size is halved
        mlp_ratio: hidden channels of an mlp as a multiple of its input, not where the size is halved
        attn_act: activation behind attention; None for `act`
        use_conv: maps and 1x1 convolutions in place of tokens and linear layers
    """

    parts = Parts(stem=("embed",), pool="pool", head="head.linear")
    flat_parts = ("stem",)
    layer_groups = {
        "stem": r"^stem",
        "blocks": [(r"^stages\.(\d+)\.downsample", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)],
        "coarse": r"^stages\.(\d+)",
    }
    no_decay = ("*attention_biases",)
    layout = "plain"

    def __init__(self, img_size: int | Size = 224, embed_dim: Sequence[int] = (128, 256, 384), key_dim: int = 32,
                 depth: Sequence[int] = (4, 4, 4), num_heads: Sequence[int] = (4, 6, 8),
                 attn_ratio: float = 2.0, mlp_ratio: float = 2.0, stem_stride: int = 16, act: str = "hard_swish",
                 attn_act: str | None = None, use_conv: bool = False, num_classes: int = 1000, in_chans: int = 3,
                 global_pool: str = "avg", drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.img_size, self.stem_stride, self.use_conv = pair(img_size), stem_stride, use_conv
        dim, self.stem = embed_dim[0], stem(in_chans, embed_dim[0], stem_stride, act)
        stages, levels, behind = [], [], act if attn_act is None else attn_act
        for i, out in enumerate(embed_dim):
            down: nn.Module = nn.Identity()
            if i:
                attn = AttentionDownsample(dim, out, key_dim, self.grid(i - 1), behind, use_conv)
                down = Downsample(attn, Mlp(out, 2.0, act, use_conv), drop_path_rate)
            blocks: list[nn.Module] = [
                Block(Attention(out, num_heads[i], key_dim, attn_ratio, self.grid(i), behind, use_conv),
                      Mlp(out, mlp_ratio, act, use_conv), drop_path_rate) for _ in range(depth[i])
            ]  # fmt: skip
            stages.append(Stage(down, *blocks))
            levels.append(Feature(out, stem_stride * 2**i, f"stages.{i}"))
            dim = out
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim
        self.pool = GlobalPool(global_pool)
        if not use_conv:
            self.pool.dims = (1,)
        self.head_hidden_size = dim * self.pool.width
        self.head: nn.Module = NormLinear(self.head_hidden_size, num_classes, "linear", drop_rate)

    def grid(self, stage: int) -> Size:
        """Height and width of a stage's map."""
        stride = self.stem_stride * 2**stage
        return -(self.img_size[0] // -stride), -(self.img_size[1] // -stride)

    def sized(self):
        stages: Any = self.stages
        for i, stage in enumerate(stages):
            if i:
                yield stage.downsample.attn_downsample, self.grid(i - 1)
            yield from ((block.attn, self.grid(i)) for block in stage.blocks)

    def embed(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, N, C), or with `use_conv` (B, C, H/16, W/16)
        x = self.stem(self.sized_input(x))
        return x if self.use_conv else x.flatten(2).transpose(1, 2)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.stages(self.embed(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.pool(x)
        return x if pre_logits else self.head(x)

    def _advance(self, path: str, step: Any, x: Any) -> tuple[Any, dict[str, Any]]:
        x = step(x)
        return x, {path: x if self.use_conv or path == "embed" else (x, self.grid(int(path.split(".")[1])))}


class LevitDistilled(Distilled, Levit):
    """With a second classifier that learns from a teacher; outside of distilled training the two are averaged."""

    parts = Levit.parts._replace(head=("head.linear", "head_dist.linear"))

    def __init__(self, num_classes: int = 1000, drop_rate: float = 0.0, **options: Any):
        super().__init__(num_classes=num_classes, drop_rate=drop_rate, **options)
        self.head_drop = nn.Identity()  # each head drops behind its norm
        self.head_dist: nn.Module = NormLinear(self.head_hidden_size, num_classes, "linear", drop_rate)


def layer_of(conv: bool) -> type[nn.Module]:
    return ConvNorm if conv else LinearNorm


def projection(dim: int, dim_out: int, act: str, conv: bool, scale: float) -> nn.Sequential:
    """An activation and a layer."""
    return nn.Sequential(OrderedDict(act=create_act(act), ln=layer_of(conv)(dim, dim_out, scale=scale)))


def stem(in_chans: int, dim: int, stride: int, act: str) -> nn.Sequential:
    """Convolutions of stride 2, each with twice the channels: (B, 3, H, W) -> (B, dim, H/stride, W/stride)."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    count = stride.bit_length() - 1
    for i in range(1, count + 1):
        out = dim >> (count - i)
        layers[f"conv{i}"] = ConvNorm(in_chans, out, 3, 2)
        if i < count:
            layers[f"act{i}"] = create_act(act)
        in_chans = out
    return nn.Sequential(layers)

"""EfficientFormer: pooling on maps with batch norms, then attention on tokens in the last blocks (arXiv:2206.01191)."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo.model import Distilled, Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.attention import LayerScale, LayerScale2d
from imgzoo_layers.distance_bias import distance_index
from imgzoo_layers.drop import drop_path_of, drop_path_rates, dropout_of
from imgzoo_layers.exchange import Acts, Norms
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.init import init_linear_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.pool import GlobalPool
from imgzoo_layers.stage import Stage, shrinking
from imgzoo_layers.tables import Computed, Size
from imgzoo_layers.util import pair

from .levit import DistanceAttention
from .metaformer import Pooling

HEADS, KEY_DIM, VALUE_DIM = 8, 32, 128


class Attention(DistanceAttention):
    """Self-attention whose values are four times as wide as keys: (B, N, C) -> (B, N, C). Files hold its index."""

    tables = {
        **DistanceAttention.tables,
        "attention_bias_idxs": Computed(distance_index, "grid", "stride", stored=True),
    }

    def __init__(self, dim: int, grid: Size):
        super().__init__(HEADS, KEY_DIM, grid, conv=False)
        self.widths = [KEY_DIM, KEY_DIM, VALUE_DIM]
        self.qkv = nn.Linear(dim, HEADS * sum(self.widths))
        self.proj = nn.Linear(HEADS * VALUE_DIM, dim)
        self.init_non_persistent_buffers()

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = torch.split(self.heads_of(self.qkv(x)), self.widths, 3)
        return self.mix(q, k, v, self.grid)


class ConvMlp(nn.Sequential):
    """Two pointwise layers with norms: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, hidden: int, drop: float):
        super().__init__()
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.norm1 = nn.BatchNorm2d(hidden)
        self.act = nn.GELU()
        self.drop1 = dropout_of(drop)
        self.fc2 = nn.Conv2d(hidden, dim, 1)
        self.norm2 = nn.BatchNorm2d(dim)
        self.drop2 = dropout_of(drop)


class MetaBlock2d(nn.Module):
    """Pooling, then mlp, each on a residual: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, mlp_ratio: float, layer_scale: float, drop: float, drop_path: float):
        super().__init__()
        self.token_mixer = Pooling(dim)
        self.ls1 = LayerScale2d(dim, layer_scale)
        self.drop_path1 = drop_path_of(drop_path)
        self.mlp = ConvMlp(dim, int(dim * mlp_ratio), drop)
        self.ls2 = LayerScale2d(dim, layer_scale)
        self.drop_path2 = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.ls1(self.token_mixer(x)))
        return x + self.drop_path2(self.ls2(self.mlp(x)))


class MetaBlock1d(nn.Module):
    """Attention, then mlp, each on a residual: (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int, grid: Size, mlp_ratio: float, layer_scale: float, drop: float, drop_path: float):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.token_mixer = Attention(dim, grid)
        self.ls1 = LayerScale(dim, layer_scale)
        self.drop_path1 = drop_path_of(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=drop)
        self.ls2 = LayerScale(dim, layer_scale)
        self.drop_path2 = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.ls1(self.token_mixer(self.norm1(x))))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class Flat(nn.Module):
    """(B, C, H, W) -> (B, N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)


class EfficientFormer(Distilled, ImageModel):
    """The last `num_vit` blocks attend; two classifiers read one vector, averaged outside of distilled training.

    Args:
        downsamples: whether each stage begins with a downsampling, as those that widen do; none for all but the first
    """

    exchanged = (Acts("gelu"), Norms("batchnorm"), Norms("layernorm", options=("token_norm", "token_eps")))
    parts = Parts(norm=("norm",), pool="pool", head=("head", "head_dist"))
    layer_groups = {"stem": r"^stem", "blocks": [(r"^stages\.(\d+)", None), (r"^norm", (99999,))]}
    no_decay = ("*attention_biases",)

    def __init__(self, img_size: int | Size = 224, depths: Sequence[int] = (3, 2, 6, 4),
                 embed_dims: Sequence[int] = (48, 96, 224, 448), num_vit: int = 1,
                 downsamples: Sequence[bool] | None = None, mlp_ratio: float = 4.0,
                 layer_scale: float = 1e-5, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg",
                 drop_rate: float = 0.0, proj_drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.img_size, dim = pair(img_size), embed_dims[0]
        self.stem = nn.Sequential(OrderedDict(
            conv1=nn.Conv2d(in_chans, dim // 2, 3, 2, 1), norm1=nn.BatchNorm2d(dim // 2), act1=nn.ReLU(),
            conv2=nn.Conv2d(dim // 2, dim, 3, 2, 1), norm2=nn.BatchNorm2d(dim), act2=nn.ReLU(),
        ))  # fmt: skip
        stages, levels, common = [], [], (mlp_ratio, layer_scale, proj_drop_rate)
        shrinks, self.stride = shrinking(downsamples, embed_dims), 4
        for i, drops in enumerate(drop_path_rates(drop_path_rate, depths)):
            out, down = embed_dims[i], nn.Identity()
            if shrinks[i]:
                self.stride *= 2
                conv = nn.Conv2d(dim, out, 3, 2, 1)
                down = nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(out)))
            last = i == len(depths) - 1
            maps = max(len(drops) - num_vit, 0) if last else len(drops)
            blocks: list[nn.Module] = [MetaBlock2d(out, *common, drop) for drop in drops[:maps]]
            if last:
                blocks += [Flat(), *(MetaBlock1d(out, self.grid, *common, drop) for drop in drops[maps:])]
            stages.append(Stage(down, *blocks))
            levels.append(Feature(out, self.stride, f"stages.{i}"))
            dim = out
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim
        self.norm = nn.LayerNorm(dim)
        self.pool = GlobalPool(global_pool)
        self.pool.dims = (1,)
        self.head_hidden_size = dim * self.pool.width
        self.head_drop = nn.Dropout(drop_rate)
        self.head = linear_or_none(self.head_hidden_size, num_classes)
        self.head_dist = linear_or_none(self.head_hidden_size, num_classes)
        init_linear_(self)

    @property
    def grid(self) -> Size:
        """Height and width of the last stage's map."""
        return -(self.img_size[0] // -self.stride), -(self.img_size[1] // -self.stride)

    def sized(self):
        blocks: Any = self.stages[-1].blocks
        return [(block.token_mixer, self.grid) for block in blocks if isinstance(block, MetaBlock1d)]

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, N, C)
        return self.norm(self._through_stages(self.stem(self.sized_input(x))))

    def _advance(self, path: str, step: Any, x: Any) -> tuple[Any, dict[str, Any]]:
        x = step(x)
        return x, {path: (x, self.grid) if path == self.feature_info.levels[-1].module else x}

    def _cut(self, level: str, chosen: list[int]) -> None:
        if level != self.feature_info.levels[-1].module:  # what is left ends in a map
            self.pool.dims = (2, 3)

"""SwiftFormer: attention that adds one pooled query to every key, in each stage's last block (arXiv:2303.15446)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import Distilled, Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.channel_scale import ChannelScale2d
from imgzoo_layers.drop import drop_path_of, drop_path_rates, dropout_of
from imgzoo_layers.exchange import Acts
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.init import trunc_normal_
from imgzoo_layers.pool import GlobalPool
from imgzoo_layers.stage import Stage, shrinking


class ConvEncoder(nn.Module):
    """3x3 over each channel, then two pointwise layers of ratio `widen`, on a residual: (B, C, H, W) -> same."""

    def __init__(self, dim: int, widen: float, drop_path: float = 0.0):
        super().__init__()
        hidden = int(dim * widen)
        self.dwconv = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm = nn.BatchNorm2d(dim)
        self.pwconv1 = nn.Conv2d(dim, hidden, 1)
        self.act = nn.GELU()
        self.pwconv2 = nn.Conv2d(hidden, dim, 1)
        self.layer_scale = ChannelScale2d(dim, 1.0)
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.pwconv2(self.act(self.pwconv1(self.norm(self.dwconv(x)))))
        return x + self.drop_path(self.layer_scale(y))


class AdditiveAttention(nn.Module):
    """Queries weighted to one, which meets every key: linear in positions (section 3.2); (B, C, H, W) -> same."""

    def __init__(self, dim: int):
        super().__init__()
        self.scale = dim**-0.5
        self.w_g = nn.Parameter(torch.randn(dim, 1))
        self.to_query = nn.Linear(dim, dim)
        self.to_key = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.final = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        query, key = F.normalize(self.to_query(x), dim=-1), F.normalize(self.to_key(x), dim=-1)
        weight = F.normalize(query @ self.w_g * self.scale, dim=1)  # (B, N, 1)
        pooled = (weight * query).sum(1, keepdim=True)
        return self.final(self.proj(pooled * key) + query).transpose(1, 2).unflatten(2, (height, width))


class Mlp(nn.Module):
    """Norm and two pointwise layers: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, hidden: int, drop: float):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(dim)
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden, dim, 1)
        self.drop = dropout_of(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(self.norm1(x))))))


class Block(nn.Module):
    """Mix near positions, then all, then channels: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, mlp_ratio: float, layer_scale: float, drop: float, drop_path: float):
        super().__init__()
        self.local_representation = ConvEncoder(dim, 1)
        self.attn = AdditiveAttention(dim)
        self.linear = Mlp(dim, int(dim * mlp_ratio), drop)
        self.drop_path = drop_path_of(drop_path)
        self.layer_scale_1 = ChannelScale2d(dim, layer_scale)
        self.layer_scale_2 = ChannelScale2d(dim, layer_scale)

    def forward(self, x: Tensor) -> Tensor:
        x = self.local_representation(x)
        x = x + self.drop_path(self.layer_scale_1(self.attn(x)))
        return x + self.drop_path(self.layer_scale_2(self.linear(x)))


class Downsample(nn.Module):
    """(B, C, H, W) -> (B, dim_out, H/2, W/2), with another stride to another size."""

    def __init__(self, dim: int, dim_out: int, kernel: int, stride: int, padding: int):
        super().__init__()
        self.proj = nn.Conv2d(dim, dim_out, kernel, stride, padding)
        self.norm = nn.BatchNorm2d(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x))


class SwiftFormer(Distilled, ImageModel):
    """Two classifiers read one vector; outside of distilled training their logits are averaged.

    Args:
        downsamples: whether each stage begins with a downsampling, as those that widen do; none for all but the first
        down_kernel: side of the kernels of downsamplings
        down_stride: stride of downsamplings
        down_padding: pixels around the map before a downsampling
    """

    exchanged = (Acts("gelu"),)
    parts = Parts(norm=("norm",), pool="pool", head=("head", "head_dist"))
    layer_groups = {
        "stem": r"^stem",
        "blocks": [
            (r"^stages\.(\d+).downsample", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^norm", (99999,)),
        ],
        "coarse": r"^stages\.(\d+)",
    }

    def __init__(self, depths: Sequence[int] = (3, 3, 6, 4), embed_dims: Sequence[int] = (48, 56, 112, 220),
                 downsamples: Sequence[bool] | None = None, down_kernel: int = 3, down_stride: int = 2,
                 down_padding: int = 1, mlp_ratio: float = 4.0, layer_scale: float = 1e-5,
                 num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg",
                 drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        dim = embed_dims[0]
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, dim // 2, 3, 2, 1), nn.BatchNorm2d(dim // 2), nn.ReLU(),
            nn.Conv2d(dim // 2, dim, 3, 2, 1), nn.BatchNorm2d(dim), nn.ReLU(),
        )  # fmt: skip
        stages, levels, reached, shrinks = [], [], 4, shrinking(downsamples, embed_dims)
        for i, drops in enumerate(drop_path_rates(drop_path_rate, depths)):
            down: nn.Module = nn.Identity()
            if shrinks[i]:
                reached *= down_stride
                down = Downsample(dim, embed_dims[i], down_kernel, down_stride, down_padding)
            dim = embed_dims[i]
            blocks: list[nn.Module] = [ConvEncoder(dim, mlp_ratio, drop) for drop in drops[:-1]]
            stages.append(Stage(down, *blocks, Block(dim, mlp_ratio, layer_scale, proj_drop_rate, drops[-1])))
            levels.append(Feature(dim, reached, f"stages.{i}"))
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim
        self.norm = nn.BatchNorm2d(dim)
        self.pool = GlobalPool(global_pool)
        self.head_hidden_size = dim = dim * self.pool.width
        self.head_drop = nn.Dropout(drop_rate)
        self.head = linear_or_none(dim, num_classes)
        self.head_dist = linear_or_none(dim, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.norm(self._through_stages(self.stem(x)))

"""AcmeNet: a convolution along rows, one along columns, then a mix of channels."""

from collections.abc import Sequence

import torch.nn.functional as F
from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.pool import GlobalPool
from torch import Tensor, nn


class Block(nn.Module):
    """Mix along rows, columns and channels: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, kernel: int, drop_path: float):
        super().__init__()
        pad = kernel // 2
        self.rows = nn.Conv2d(dim, dim, (1, kernel), padding=(0, pad), groups=dim, bias=False)
        self.columns = nn.Conv2d(dim, dim, (kernel, 1), padding=(pad, 0), groups=dim, bias=False)
        self.norm = nn.BatchNorm2d(dim)
        self.expand = nn.Conv2d(dim, 2 * dim, 1)
        self.project = nn.Conv2d(2 * dim, dim, 1)
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        mixed = self.norm(self.columns(self.rows(x)))
        return x + self.drop_path(self.project(F.gelu(self.expand(mixed))))


class AcmeNet(ImageModel):
    parts = Parts(stem=("stem",), stages=("stages",), pool="pool", head="fc")
    layer_groups = {"stem": r"^stem", "blocks": r"^stages\.(\d+)"}

    def __init__(self, depths: list[int], dims: Sequence[int], kernel: int = 7, num_classes: int = 1000,
                 in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.stem = nn.Conv2d(in_chans, dims[0], 4, stride=4)
        self.stages = nn.Sequential()
        levels, dim_in = [], dims[0]
        for i, (dim, drops) in enumerate(zip(dims, drop_path_rates(drop_path_rate, depths))):
            down = nn.Conv2d(dim_in, dim, 2, stride=2) if i else nn.Identity()
            self.stages.append(nn.Sequential(down, *(Block(dim, kernel, drop) for drop in drops)))
            levels.append(Feature(dim, 4 * 2**i, f"stages.{i}"))
            dim_in = dim
        self.pool = GlobalPool(global_pool)
        self.drop = nn.Dropout(drop_rate)
        self.feature_info = FeatureInfo(levels)
        self.num_features, self.head_hidden_size = dim_in, dim_in * self.pool.width
        self.fc = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:
        return self.stages(self.stem(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(self.pool(x))
        return x if pre_logits else self.fc(x)

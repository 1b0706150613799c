"""What the Inception networks share: a unit of convolution, norm and ReLU, chains of it, and side-by-side branches."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import ImageModel
from imgzoo_layers.norm_act import BatchNormAct2d
from imgzoo_layers.pool import GlobalPool
from imgzoo_layers.util import pair

Kernel = int | tuple[int, int]


class ConvUnit(nn.Module):
    """Convolution, batch norm, ReLU. It keeps the size, unless it is strided or `valid`: then nothing is padded."""

    def __init__(self, dim: int, dim_out: int, kernel: Kernel, stride: int = 1, valid: bool = False):
        super().__init__()
        high, wide = pair(kernel)
        pad = (0, 0) if valid or stride > 1 else (high // 2, wide // 2)
        self.conv = nn.Conv2d(dim, dim_out, (high, wide), stride, pad, bias=False)
        self.bn = BatchNormAct2d(dim_out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class Branches(nn.ModuleDict):
    """Run every branch on the same map and put their channels side by side."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.values()], 1)


def branches(*parts: nn.Module) -> Branches:
    """Branches under the names `branch0`, `branch1`, ..."""
    return Branches({f"branch{i}": part for i, part in enumerate(parts)})


def chain(dim: int, *rows: tuple) -> nn.Module:
    """Units one after another from rows (dim_out, kernel, stride = 1, valid = False); a single one stands alone."""
    units = []
    for row in rows:
        units.append(ConvUnit(dim, *row))
        dim = row[0]
    return units[0] if len(units) == 1 else nn.Sequential(*units)


def pooled(dim: int, dim_out: int) -> nn.Sequential:
    """A 3x3 mean that leaves the border out, then a 1x1."""
    return nn.Sequential(nn.AvgPool2d(3, 1, 1, count_include_pad=False), ConvUnit(dim, dim_out, 1))


class InceptionModel(ImageModel):
    """A network whose classifier is a linear layer behind the pool, named by `parts.head`."""

    def _add_head(self, dim: int, num_classes: int, global_pool: str, drop_rate: float) -> None:
        self.drop_rate = drop_rate
        self.global_pool = GlobalPool(global_pool)
        self.num_features = dim
        self.head_hidden_size = dim * self.global_pool.width
        head = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()
        setattr(self, str(self.parts.head), head)

    def _pooled(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> the vector before the classifier."""
        return F.dropout(self.global_pool(x), self.drop_rate, self.training)

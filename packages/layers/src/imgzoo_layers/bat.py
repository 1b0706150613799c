"""Bilinear attention transform (Chi et al., CVPR 2020): rows and columns of a map mix by two small matrices."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .conv import ConvNormAct
from .util import make_divisible


class BilinearAttentionTransform(nn.Module):
    """Y = P X Q, each matrix (blocks x blocks) made from the map itself: (B, C, H, W) -> the same shape.

    The map is cut into blocks x blocks pieces (with zeros below and right where they do not fit) and every row and
    column of a piece is weighed alike; each group of channels has matrices of its own. Rows of P and columns of Q sum
    to one.
    """

    def __init__(self, dim: int, blocks: int = 8, groups: int = 2):
        super().__init__()
        self.blocks = blocks
        self.groups = groups
        self.conv1 = ConvNormAct(dim, groups)
        self.conv_p = nn.Conv2d(groups, blocks * blocks * groups, (blocks, 1))
        self.conv_q = nn.Conv2d(groups, blocks * blocks * groups, (1, blocks))
        self.conv2 = ConvNormAct(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        batch, dim, height, width = x.shape
        n, groups = self.blocks, self.groups
        y = self.conv1(x)
        p = self.conv_p(F.adaptive_max_pool2d(y, (n, 1))).view(batch, groups, n, n).sigmoid()
        q = self.conv_q(F.adaptive_max_pool2d(y, (1, n))).view(batch, groups, n, n).sigmoid()
        p = p / p.sum(dim=3, keepdim=True)
        q = q / q.sum(dim=2, keepdim=True)
        high, wide = -(height // -n), -(width // -n)
        x = F.pad(x, [0, wide * n - width, 0, high * n - height])
        x = x.reshape(batch, groups, dim // groups, n, high, n, wide)
        x = torch.einsum("bgij,bgcjhkw,bgkl->bgcihlw", p, x, q)
        return self.conv2(x.reshape(batch, dim, n * high, n * wide)[:, :, :height, :width])


class BatNonLocal(nn.Module):
    """The transform between two pointwise convolutions, on a residual: (B, C, H, W) -> the same shape."""

    def __init__(
        self, dim: int, rd_ratio: float = 0.25, rd_divisor: int = 8, blocks: int = 8, groups: int = 2, drop: float = 0.2
    ):
        super().__init__()
        hidden = make_divisible(dim * rd_ratio, rd_divisor)
        self.conv1 = ConvNormAct(dim, hidden)
        self.ba = BilinearAttentionTransform(hidden, blocks, groups)
        self.conv2 = ConvNormAct(hidden, dim)
        self.dropout = nn.Dropout2d(drop)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dropout(self.conv2(self.ba(self.conv1(x))))

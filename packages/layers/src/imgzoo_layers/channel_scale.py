"""Layer scale of maps whose published weights hold it as (C, 1, 1)."""

import torch
from torch import Tensor, nn


class ChannelScale2d(nn.Module):
    """Scale each channel of a residual branch (arXiv:2103.17239): (B, C, H, W) -> (B, C, H, W); `gamma` (C, 1, 1)."""

    def __init__(self, dim: int, init: float = 1e-5):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim, 1, 1), float(init)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma

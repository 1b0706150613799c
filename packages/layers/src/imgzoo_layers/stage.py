"""Blocks of one size behind a change of size, as pyramids stack them."""

from torch import Tensor, nn


class Stage(nn.Module):
    """A change of size, then blocks that keep it; keys `downsample` and `blocks`."""

    def __init__(self, downsample: nn.Module, *blocks: nn.Module):
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))

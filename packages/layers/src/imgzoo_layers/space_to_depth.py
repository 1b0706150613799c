"""Places to channels and back, without loss."""

import torch.fx
from torch import Tensor, nn


def divided(x: Tensor, side: int) -> Tensor:
    """The map as it is, after a check that its sides are multiples of `side`."""
    if x.shape[-2] % side != 0 or x.shape[-1] % side != 0:
        raise ValueError(f"the image does not divide into squares of {side}: resize it to multiples of that")
    return x


torch.fx.wrap("divided")


class SpaceToDepth(nn.Module):
    """The pixels of each square side by side, square position first: (B, C, sH, sW) -> (B, s*s*C, H, W)."""

    def __init__(self, side: int = 4):
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        batch, dim, height, width = divided(x, self.side).shape
        x = x.view(batch, dim, height // self.side, self.side, width // self.side, self.side)
        x = x.permute(0, 3, 5, 1, 2, 4)
        return x.reshape(batch, self.side * self.side * dim, height // self.side, width // self.side)


class DepthToSpace(nn.Module):
    """What `SpaceToDepth` put side by side, as squares again: (B, s*s*C, H, W) -> (B, C, sH, sW)."""

    def __init__(self, side: int = 4):
        super().__init__()
        self.side = side

    def forward(self, x: Tensor) -> Tensor:
        batch, dim, height, width = x.shape
        x = x.view(batch, self.side, self.side, dim // (self.side * self.side), height, width)
        return x.permute(0, 3, 4, 1, 5, 2).reshape(batch, -1, height * self.side, width * self.side)

"""EvoNorm that divides by statistics of the batch, kept for evaluation (arXiv:2004.02967, table 3)."""

import torch
from torch import Tensor, nn

from .act import Act
from .evo_norm import EvoNorm


class EvoNorm2dB0(EvoNorm):
    """x / max(batch std, v x + the sample's std), affine: (B, C, H, W) -> the same shape."""

    running_var: Tensor

    def __init__(self, dim: int, apply_act: bool = True, momentum: float = 0.1, eps: float = 1e-3, act: Act = None):
        super().__init__(dim, apply_act, eps)
        self.momentum = momentum
        self.v = self.slope(dim) if apply_act else None
        self.register_buffer("running_var", torch.ones(dim))

    def slope(self, dim: int) -> nn.Parameter | None:
        return nn.Parameter(torch.ones(dim))

    def batch_std(self, x: Tensor) -> Tensor:
        """(C, 1, 1) in float32: of this batch in training, which moves the average kept for evaluation."""
        var = self.running_var
        if self.training:
            var = x.float().var((0, 2, 3), unbiased=False)
            count = x.numel() / x.shape[1]
            kept = var.detach() * (count / (count - 1))
            self.running_var.copy_(torch.lerp(self.running_var, kept.to(self.running_var.dtype), self.momentum))
        return (var.float() + self.eps).sqrt()[:, None, None]

    def other(self, x: Tensor) -> Tensor:
        assert self.v is not None
        std = (x.float().var((2, 3), unbiased=False, keepdim=True) + self.eps).sqrt()
        return x * self.v[:, None, None] + std.to(x.dtype)

    def forward(self, x: Tensor) -> Tensor:
        if self.apply_act:
            x = x / torch.maximum(self.batch_std(x).to(x.dtype), self.other(x))
        return self.affine(x)


class EvoNorm2dB1(EvoNorm2dB0):
    """x / max(batch std, (x + 1) times the sample's rms), affine: (B, C, H, W) -> the same shape."""

    def __init__(self, dim: int, apply_act: bool = True, momentum: float = 0.1, eps: float = 1e-5, act: Act = None):
        super().__init__(dim, apply_act, momentum, eps)

    def slope(self, dim: int) -> None:
        return None

    def other(self, x: Tensor) -> Tensor:
        return (x + 1) * channel_rms(x, self.eps)


class EvoNorm2dB2(EvoNorm2dB1):
    """x / max(batch std, the sample's rms - x), affine: (B, C, H, W) -> the same shape."""

    def other(self, x: Tensor) -> Tensor:
        return channel_rms(x, self.eps) - x


def channel_rms(x: Tensor, eps: float) -> Tensor:
    """Root mean square over the places of each channel: (B, C, H, W) -> (B, C, 1, 1)."""
    return (x.float().square().mean((2, 3), keepdim=True) + eps).sqrt().to(x.dtype)

"""Dropping parts of a network while it trains: residual branches, spatial blocks, patches."""

from collections.abc import Sequence

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F


class DropPath(nn.Module):
    """Zero a residual branch for random samples and rescale the rest (stochastic depth, arXiv:1603.09382)."""

    def __init__(self, rate: float = 0.0, scale_by_keep: bool = True):
        super().__init__()
        if not 0 <= rate <= 1:
            raise ValueError(f"DropPath drops a branch with a probability of 0 to 1, not {rate}")
        self.rate = rate
        self.scale_by_keep = scale_by_keep

    def forward(self, x: Tensor) -> Tensor:
        return drop_path(x, self.rate, self.training, self.scale_by_keep)

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}"


def drop_path(x: Tensor, rate: float = 0.0, training: bool = False, scale_by_keep: bool = True) -> Tensor:
    """Zero whole samples of x (B, ...) with probability `rate` while training."""
    return branch_dropped(x, rate, scale_by_keep) if rate > 0.0 and training else x


def branch_dropped(x: Tensor, rate: float, scale_by_keep: bool) -> Tensor:
    keep = 1.0 - rate
    mask = torch.empty([x.shape[0]] + [1] * (x.ndim - 1), dtype=x.dtype, device=x.device).bernoulli_(keep)
    if keep > 0.0 and scale_by_keep:
        mask = mask / keep
    return x * mask


def drop_path_of(rate: float) -> nn.Module:
    """`DropPath`, or nothing where the rate is zero."""
    return DropPath(rate) if rate > 0 else nn.Identity()


def dropout_of(rate: float) -> nn.Module:
    """`torch.nn.Dropout`, or nothing where the rate is zero."""
    return nn.Dropout(rate) if rate else nn.Identity()


def drop_path_rates(rate: float, depths: int | Sequence[int]) -> list[list[float]]:
    """Rates growing linearly from 0 to `rate` over all blocks, one list a stage (an int is a single stage)."""
    stages = [depths] if isinstance(depths, int) else list(depths)
    total = sum(stages)
    flat = [rate * i / max(total - 1, 1) for i in range(total)]
    ends = [sum(stages[: i + 1]) for i in range(len(stages))]
    return [flat[end - depth : end] for end, depth in zip(ends, stages)]


class DropBlock2d(nn.Module):
    """Zero squares of a map (B, C, H, W) while training (arXiv:1810.12890), as `drop_block_2d` does."""

    def __init__(self, rate: float = 0.1, block: int = 7, gamma_scale: float = 1.0, couple_channels: bool = True,
                 scale_by_keep: bool = True, noise: bool = False):  # fmt: skip
        super().__init__()
        if not 0 <= rate <= 1 or block < 1:
            raise ValueError(f"DropBlock drops a rate of 0 to 1 in squares of at least a pixel, not {rate} and {block}")
        self.rate, self.block, self.gamma_scale = rate, block, gamma_scale
        self.couple_channels, self.scale_by_keep, self.noise = couple_channels, scale_by_keep, noise

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        return squares_dropped(x, self.rate, self.block, self.gamma_scale, self.couple_channels, self.scale_by_keep,
                               self.noise)  # fmt: skip

    def extra_repr(self) -> str:
        return f"rate={self.rate:.3f}, block={self.block}"


def drop_block_2d(
    x: Tensor, rate: float = 0.1, block: int = 7, gamma_scale: float = 1.0, couple_channels: bool = True,
    scale_by_keep: bool = True, noise: bool = False
) -> Tensor:  # fmt: skip
    """Zero squares of `block` pixels so that `rate` of x (B, C, H, W) is lost on average; the rest is rescaled.

    Squares are the same in all channels of an image unless `couple_channels` is False. With `noise` they are filled
    with normal values and nothing is rescaled.
    """
    return squares_dropped(x, rate, block, gamma_scale, couple_channels, scale_by_keep, noise)


def squares_dropped(
    x: Tensor, rate: float, block: int, gamma_scale: float, couple_channels: bool, scale_by_keep: bool, noise: bool
) -> Tensor:
    height, width = x.shape[-2:]
    block = min(block, height, width)
    seeds_area = (width - block + 1) * (height - block + 1)
    gamma = gamma_scale * rate * width * height / block**2 / seeds_area
    seeds = torch.empty_like(x[:, :1] if couple_channels else x).bernoulli_(min(gamma, 1.0))
    kept = 1 - F.max_pool2d(seeds, kernel_size=block, stride=1, padding=block // 2)
    if block % 2 == 0:
        kept = kept[:, :, :height, :width]
    if noise:
        return x * kept + torch.randn_like(x) * (1 - kept)
    x = x * kept
    return x * (kept.numel() / kept.float().sum().add(1e-7)).to(x.dtype) if scale_by_keep else x


class PatchDropout(nn.Module):
    """Keep a random part of the patch tokens while training (arXiv:2212.00794): (B, N, C) -> (B, n, C)."""

    def __init__(self, rate: float = 0.5, num_prefix_tokens: int = 1, ordered: bool = False):
        super().__init__()
        if not 0 <= rate < 1:
            raise ValueError(f"patch drop rate must be in [0, 1), got {rate}")
        self.rate = rate
        self.num_prefix_tokens = num_prefix_tokens
        self.ordered = ordered

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.rate == 0.0:
            return x
        return patches_dropped(x, self.rate, self.num_prefix_tokens, self.ordered)


def patches_dropped(x: Tensor, rate: float, prefix: int, ordered: bool) -> Tensor:
    patches = x[:, prefix:]
    count = patches.shape[1]
    keep = max(1, int(count * (1.0 - rate)))
    chosen = torch.rand(patches.shape[0], count, device=x.device).argsort(dim=1)[:, :keep]
    if ordered:
        chosen = chosen.sort(dim=1)[0]
    kept = patches.gather(1, chosen.unsqueeze(-1).expand(-1, -1, patches.shape[2]))
    return torch.cat([x[:, :prefix], kept], dim=1)


for leaf in ("branch_dropped", "squares_dropped", "patches_dropped"):
    torch.fx.wrap(leaf)  # tracers see one call: what is drawn follows the batch

"""Blocks of one size behind a change of size, as pyramids stack them."""

from collections.abc import Sequence

from torch import Tensor, nn


class Stage(nn.Module):
    """A change of size, then blocks that keep it; keys `downsample` and `blocks`."""

    def __init__(self, downsample: nn.Module, *blocks: nn.Module):
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


def shrinking(downsamples: Sequence[bool] | None, dims: Sequence[int]) -> list[bool]:
    """Whether each stage begins with a downsampling: as it is said, and where it widens; None for all but the first.

    Raises:
        ValueError: there is not an entry for each stage.
    """
    said = [i > 0 for i in range(len(dims))] if downsamples is None else downsamples
    if len(said) != len(dims):
        raise ValueError(f"downsamples has one entry for each of {len(dims)} stages, not {len(said)}")
    return [bool(each) or dim != dims[max(i - 1, 0)] for i, (each, dim) in enumerate(zip(said, dims))]

"""Random erasing of normalized batches, drawn for each sample from (seed, epoch, index) (1708.04896)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from numpy.random import Generator

from imgzoo.errors import UsageError

from .rng import Purpose, generator
from .transfer import sent


@dataclass(frozen=True)
class Erase:
    """What random erasing does on the device, after normalization ("Random Erasing Data Augmentation", 1708.04896).

    `mode` "const" is zero, "rand" one normal color a box, "pixel" normal noise; `area` and `aspect` are ranges of a
    box, `count` the range of boxes an image gets when, with probability `p`, it is erased.
    """

    p: float = 0.0
    mode: str = "const"
    count: tuple[int, int] = (1, 1)
    area: tuple[float, float] = (0.02, 1 / 3)
    aspect: tuple[float, float] = (0.3, 1 / 0.3)

    def __post_init__(self) -> None:
        if self.mode not in ("const", "rand", "pixel"):
            raise UsageError(f"erase mode '{self.mode}' is unknown; use const, rand or pixel")
        if not 1 <= self.count[0] <= self.count[1]:
            raise UsageError(f"erase_count is at least 1, not {self.count[0]}")


def erase_boxes(erase: Erase, rng: Generator, height: int, width: int) -> list[tuple[int, int, int, int]]:
    """(top, left, height, width) of the boxes that one image loses; none with probability 1 - p."""
    if rng.random() >= erase.p:
        return []
    count = int(rng.integers(erase.count[0], erase.count[1] + 1))
    low, high = math.log(erase.aspect[0]), math.log(erase.aspect[1])
    boxes = []
    for _ in range(count):
        for _ in range(10):
            area = rng.uniform(*erase.area) * height * width / count
            aspect = math.exp(rng.uniform(low, high))
            h, w = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < h < height and 0 < w < width:
                boxes.append((int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w))
                break
    return boxes


def erase_batch(
    images: torch.Tensor, erase: Erase, seed: int, epoch: int, indices: list[int], views: list[int], first: int = 0
) -> torch.Tensor:
    """Erase boxes of (B, C, H, W) float in place, from sample `first` on (the clean split is left whole)."""
    noise = torch.Generator(device="cpu")
    for row in range(first, len(images)):
        rng = generator(seed, epoch, indices[row], views[row], Purpose.ERASE)
        image = images[row]
        for top, left, height, width in erase_boxes(erase, rng, images.shape[2], images.shape[3]):
            region = image[:, top : top + height, left : left + width]
            if erase.mode == "const":
                region.zero_()
                continue
            noise.manual_seed(int(rng.integers(1 << 62)))
            shape = region.shape if erase.mode == "pixel" else (region.shape[0], 1, 1)
            region.copy_(sent(torch.randn(shape, generator=noise, device="cpu"), images.device))
    return images

"""Images as sequences of patches, each at its own aspect: NaFlex (SigLIP 2, 2502.14786), after NaViT (2307.06304)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.random import Generator

from imgzoo.errors import UsageError

from .crops import CropStep, RandomResizedCrop, _interpolation
from .resample import Crop


def fit_grid(height: float, width: float, patch: int, length: int) -> tuple[int, int]:
    """The (rows, columns) of patches, at most `length`, that keep the aspect of (height, width) best: the largest
    scale whose
    sides, rounded up to whole patches, fit."""

    def grid(scale: float) -> tuple[int, int]:
        return max(1, math.ceil(height * scale / patch - 1e-9)), max(1, math.ceil(width * scale / patch - 1e-9))

    low, high = 0.0, 1.0
    while math.prod(grid(high)) <= length:
        low, high = high, high * 2
    for _ in range(50):
        middle = (low + high) / 2
        if math.prod(grid(middle)) <= length:
            low = middle
        else:
            high = middle
    rows, columns = grid(low * (1 - 1e-8))  # where both sides grow at once, neither alone does
    return min(rows, length), min(columns, max(1, length // min(rows, length)))


@dataclass(frozen=True)
class SequenceCrop(CropStep):
    """Resize to the largest grid of whole patches within `length`; `random` takes a random-resized crop first.

    The loader's size, if any, is (patch, length) and goes before the step's own.
    """

    patch: int = 16
    length: int = 576
    random: bool = False
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str | None = None

    def __post_init__(self) -> None:
        if self.patch < 1 or self.length < 1:
            raise UsageError("patch and length of a sequence must be at least 1")

    def size(self, target: Any) -> tuple[int, int]:
        """(patch, length) in force."""
        return target if target is not None else (self.patch, self.length)

    def plan(self, height: int, width: int, target: Any, rng: Generator, config: Any) -> Crop:
        patch, length = self.size(target)
        box = (0, 0, height, width)
        if self.random:
            box = RandomResizedCrop(self.scale, self.ratio).box(height, width, rng)
        rows, columns = fit_grid(box[2], box[3], patch, length)
        interpolation = _interpolation(self.interpolation, config, rng)
        return Crop(box, (rows * patch, columns * patch), interpolation)


def patchify(image: torch.Tensor, patch: int) -> tuple[torch.Tensor, np.ndarray]:
    """(C, rows * P, columns * P) -> patches (N, P * P * C), channels last, and their (N, 2) places (row, column)."""
    channels, height, width = image.shape
    rows, columns = height // patch, width // patch
    cut = image.view(channels, rows, patch, columns, patch).permute(1, 3, 2, 4, 0)
    places = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), axis=-1)
    return cut.reshape(rows * columns, patch * patch * channels), places.reshape(-1, 2)


def unpatchify(patches: torch.Tensor, places: torch.Tensor, channels: int) -> torch.Tensor:
    """What `patchify` cut, put together again: (N, P * P * C) at (N, 2) -> (C, rows * P, columns * P)."""
    patch = math.isqrt(patches.shape[1] // channels)
    rows, columns = (places.amax(0) + 1).tolist()
    image = patches.new_zeros(rows, columns, patch, patch, channels)
    image[places[:, 0], places[:, 1]] = patches.view(-1, patch, patch, channels)
    return image.permute(4, 0, 2, 1, 3).reshape(channels, rows * patch, columns * patch)

"""Flips: steps that move pixels and change none."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from numpy.random import Generator

from .picture import Picture


@dataclass(frozen=True)
class HorizontalFlip:
    """Left-right flip with probability `p`."""

    p: float = 0.5
    primary = True

    def __call__(self, picture: Picture, rng: Generator, config: Any) -> Picture:
        return Picture(torch.flip(picture.tensor, (2,))) if rng.random() < self.p else picture


@dataclass(frozen=True)
class VerticalFlip:
    """Up-down flip with probability `p`."""

    p: float = 0.5
    primary = True

    def __call__(self, picture: Picture, rng: Generator, config: Any) -> Picture:
        return Picture(torch.flip(picture.tensor, (1,))) if rng.random() < self.p else picture

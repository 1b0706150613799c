"""The first step of every pipeline: which part of the source is seen, decided before it is decoded."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from numpy.random import Generator

from imgzoo.errors import UsageError

from .resample import Crop


@dataclass(frozen=True)
class CropStep:
    """Base of crop steps: `plan(height, width, target, rng, config) -> Crop` for a source of that size."""

    def plan(self, height: int, width: int, target: tuple[int, int], rng: Generator, config: Any) -> Crop:
        raise NotImplementedError


def _interpolation(own: str | None, config: Any, rng: Generator) -> str:
    name = own or config.interpolation
    return ("bilinear", "bicubic")[int(rng.integers(2))] if name == "random" else name


def _check_range(name: str, pair: Any) -> None:
    if len(pair) != 2 or not 0 < pair[0] <= pair[1]:
        raise UsageError(f"{name} is a range (low, high) of positive numbers, not {pair}")


@dataclass(frozen=True)
class RandomResizedCrop(CropStep):
    """A box of random area (share of the source) and aspect, resized to the target ("Going Deeper with Convolutions").

    Ten tries to find a box inside the source, then the largest centered one within the aspect range.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str | None = None

    def __post_init__(self) -> None:
        _check_range("scale", self.scale)
        _check_range("ratio", self.ratio)
        if self.scale[1] > 1:
            raise UsageError(f"scale is a range of shares of the area, at most 1, not {self.scale}")

    def plan(self, height: int, width: int, target: tuple[int, int], rng: Generator, config: Any) -> Crop:
        box = self.box(height, width, rng)
        return Crop(box, target, _interpolation(self.interpolation, config, rng))

    def box(self, height: int, width: int, rng: Generator) -> tuple[int, int, int, int]:
        """(top, left, height, width) of the crop."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            aspect = math.exp(rng.uniform(low, high))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < w <= width and 0 < h <= height:
                return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
        aspect = min(max(width / height, self.ratio[0]), self.ratio[1])
        w = max(1, min(width, round(height * aspect)))
        h = max(1, min(height, round(width / aspect)))
        return (height - h) // 2, (width - w) // 2, h, w


@dataclass(frozen=True)
class RandomKeepRatio(CropStep):
    """Resize so that the target is just covered, mildly rescaled and stretched at random, then crop (padding by
    reflection).

    `scale` is a range of area shares and `ratio` of aspects; each applies with its own probability. `random` chooses
    the place of the crop at random, otherwise it is centered.
    """

    scale: tuple[float, float] = (0.8, 1.0)
    ratio: tuple[float, float] = (0.9, 1 / 0.9)
    scale_prob: float = 0.5
    ratio_prob: float = 0.5
    random: bool = False
    interpolation: str | None = None

    def __post_init__(self) -> None:
        _check_range("scale", self.scale)
        _check_range("ratio", self.ratio)

    def plan(self, height: int, width: int, target: tuple[int, int], rng: Generator, config: Any) -> Crop:
        fit = min(height / target[0], width / target[1])
        down, across = fit, fit
        if self.scale_prob > 0 and rng.random() < self.scale_prob:
            factor = 1 / math.sqrt(rng.uniform(*self.scale))
            down, across = down / factor, across / factor
        if self.ratio_prob > 0 and rng.random() < self.ratio_prob:
            aspect = math.sqrt(math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1]))))
            down, across = down / aspect, across * aspect
        resize = (max(1, round(height / down)), max(1, round(width / across)))
        spare = (resize[0] - target[0], resize[1] - target[1])
        if self.random:
            offset = (_random_offset(spare[0], rng), _random_offset(spare[1], rng))
        else:
            offset = (spare[0] // 2, spare[1] // 2)
        interpolation = _interpolation(self.interpolation, config, rng)
        return Crop((0, 0, height, width), resize, interpolation, target, offset, None)


def _random_offset(spare: int, rng: Generator) -> int:
    return int(rng.integers(spare + 1)) if spare >= 0 else -int(rng.integers(-spare + 1))


@dataclass(frozen=True)
class EvalCrop(CropStep):
    """The evaluation crop: resize to target / crop_pct, then cut the center.

    `center` resizes the shorter side, `squash` both sides without keeping the ratio, `border` the longer side,
    padding with the mean color. `mode` and `pct` default to the config's; `trim` cuts a frame of that many pixels off
    the source first.
    """

    mode: str | None = None
    pct: float | None = None
    trim: int = 0
    interpolation: str | None = None

    def plan(self, height: int, width: int, target: tuple[int, int], rng: Generator, config: Any) -> Crop:
        trim = self.trim if min(height, width) > 2 * self.trim else 0
        box = (trim, trim, height - 2 * trim, width - 2 * trim)
        pct, mode = self.pct or config.crop_pct, self.mode or config.crop_mode
        sides = (math.floor(target[0] / pct), math.floor(target[1] / pct))
        resize = _RESIZE[mode](box[2], box[3], sides)
        offset = (_centered(resize[0], target[0]), _centered(resize[1], target[1]))
        fill = tuple(round(255 * m) for m in config.mean) if mode == "border" else (0,)
        interpolation = self.interpolation or config.interpolation
        interpolation = "bilinear" if interpolation == "random" else interpolation
        return Crop(box, resize, interpolation, target, offset, fill)


def _centered(have: int, want: int) -> int:
    return round((have - want) / 2) if have >= want else -((want - have) // 2)


def _cover(height: int, width: int, sides: tuple[int, int]) -> tuple[int, int]:
    if sides[0] == sides[1]:  # the shorter side exactly, the longer cut down to whole pixels
        short = sides[0]
        if height <= width:
            return short, int(short * width / height)
        return int(short * height / width), short
    fit = min(height / sides[0], width / sides[1])
    return max(1, round(height / fit)), max(1, round(width / fit))


def _inside(height: int, width: int, sides: tuple[int, int]) -> tuple[int, int]:
    fit = max(height / sides[0], width / sides[1])
    return max(1, round(height / fit)), max(1, round(width / fit))


def _squashed(height: int, width: int, sides: tuple[int, int]) -> tuple[int, int]:
    return sides


_RESIZE = {"center": _cover, "border": _inside, "squash": _squashed}

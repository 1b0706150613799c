"""Color steps: jitter, grayscale, blur."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageFilter

from imgzoo.errors import UsageError

from . import ops
from .picture import Picture

_PLACE = ops.Place((0,), Image.Resampling.NEAREST)


@dataclass(frozen=True)
class ColorJitter:
    """Brightness, contrast, saturation and hue in random order, each by a factor drawn around 1 (hue: around 0).

    A number x is the range [max(0, 1 - x), 1 + x], for hue [-x, x] with x at most 0.5; a pair is the range itself.
    With probability 1 - p nothing is done.
    """

    brightness: float | tuple[float, float] = 0.4
    contrast: float | tuple[float, float] = 0.4
    saturation: float | tuple[float, float] = 0.4
    hue: float | tuple[float, float] = 0.0
    p: float = 1.0

    def __post_init__(self) -> None:
        for name, (low, high) in self.ranges().items():
            if name != "hue" and not 0 <= low <= high < math.inf:
                raise UsageError(
                    f"{name} is a strength of at least 0, or a range (low, high), not {getattr(self, name)}"
                )
        low, high = self.ranges()["hue"]
        if not -0.5 <= low <= high <= 0.5:
            raise UsageError(f"hue must lie within -0.5..0.5, not {self.hue}")

    def ranges(self) -> dict[str, tuple[float, float]]:
        """The range of each factor."""
        found = {}
        for name in ("brightness", "contrast", "saturation", "hue"):
            value = getattr(self, name)
            middle = 0.0 if name == "hue" else 1.0
            if isinstance(value, int | float):
                least = -value if name == "hue" else max(0.0, 1.0 - value)
                value = (least, middle + value)
            found[name] = (float(value[0]), float(value[1]))
        return found

    def draw(self, rng: Generator) -> list[tuple[str, float]]:
        """The (adjustment, factor) pairs of one image, in the order they are applied."""
        ranges = list(self.ranges().items())
        return [(ranges[i][0], rng.uniform(*ranges[i][1])) for i in rng.permutation(4) if _changes(*ranges[i])]

    def __call__(self, picture: Picture, rng: Generator, config: Any) -> Picture:
        if self.p < 1 and rng.random() >= self.p:
            return picture
        image = picture.pil
        for name, factor in self.draw(rng):
            image = _ADJUST[name](image, factor, _PLACE)
        return Picture(pil=image)


def _changes(name: str, span: tuple[float, float]) -> bool:
    neutral = 0.0 if name == "hue" else 1.0
    return span != (neutral, neutral)


def shift_hue(image: Image.Image, value: float, place: ops.Place = _PLACE) -> Image.Image:
    """Turn the hue by a share of the circle."""
    if image.mode == "L":
        return image
    hue, saturation, brightness = image.convert("HSV").split()
    turned = hue.point(((np.arange(256) + int(value * 255)) % 256).tolist())
    return Image.merge("HSV", (turned, saturation, brightness)).convert("RGB")


_ADJUST = {"brightness": ops.brightness, "contrast": ops.contrast, "saturation": ops.color, "hue": shift_hue}


@dataclass(frozen=True)
class Grayscale:
    """Gray in all channels with probability `p`."""

    p: float = 0.1

    def __call__(self, picture: Picture, rng: Generator, config: Any) -> Picture:
        if rng.random() >= self.p:
            return picture
        return Picture(pil=ops.color(picture.pil, 0.0, _PLACE))


@dataclass(frozen=True)
class GaussianBlur:
    """Blur with probability `p`, its radius drawn from `sigma`."""

    p: float = 0.5
    sigma: tuple[float, float] = (0.1, 2.0)

    def __call__(self, picture: Picture, rng: Generator, config: Any) -> Picture:
        if rng.random() >= self.p:
            return picture
        return Picture(pil=picture.pil.filter(ImageFilter.GaussianBlur(rng.uniform(*self.sigma))))

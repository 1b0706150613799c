"""The pixel operations of augmentation policies, and what a magnitude 0..10 means for each.

An operation is a function `(image, value, place) -> image` on Pillow images of mode L or RGB, equal to Pillow's own
filters; `place` holds the fill color and the interpolation of geometric ones. A level function turns a magnitude into
the value.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageChops, ImageEnhance, ImageFilter, ImageOps

LEVELS = 10.0


class Place(NamedTuple):
    """How geometric operations fill and interpolate."""

    fill: tuple[int, ...]
    resample: Image.Resampling

    def color(self, image: Image.Image) -> int | tuple[int, ...]:
        return self.fill if image.mode == "RGB" else round(sum(self.fill) / len(self.fill))


def apply_lut(image: Image.Image, table: np.ndarray) -> Image.Image:
    """Map every channel through (256,) uint8."""
    return image.point(table.tolist() * len(image.getbands()))


_RAMP = np.arange(256)


@functools.cache
def _posterize_table(bits: int) -> np.ndarray:
    return _RAMP & ~(2 ** (8 - bits) - 1) & 255


def autocontrast(image: Image.Image, value: float, place: Place) -> Image.Image:
    """Stretch each channel to 0..255."""
    return ImageOps.autocontrast(image)


def equalize(image: Image.Image, value: float, place: Place) -> Image.Image:
    """Flatten each channel's histogram."""
    return ImageOps.equalize(image)


def invert(image: Image.Image, value: float, place: Place) -> Image.Image:
    """255 - v."""
    return ImageChops.invert(image)


def posterize(image: Image.Image, value: float, place: Place) -> Image.Image:
    """Keep the upper `value` bits, 0 to 8; none leaves black."""
    bits = int(value)
    return image if bits >= 8 else apply_lut(image, _posterize_table(max(0, bits)))


def solarize(image: Image.Image, value: float, place: Place) -> Image.Image:
    """Invert what is at least `value`."""
    return apply_lut(image, np.where(int(value) > _RAMP, _RAMP, 255 - _RAMP))


def solarize_add(image: Image.Image, value: float, place: Place) -> Image.Image:
    """Add `value` to what lies below 128."""
    return apply_lut(image, np.where(_RAMP < 128, np.minimum(255, _RAMP + int(value)), _RAMP))


def brightness(image: Image.Image, value: float, place: Place) -> Image.Image:
    """Blend with black: 0 is black, 1 unchanged."""
    return apply_lut(image, blend_table(0, value))


def contrast(image: Image.Image, value: float, place: Place) -> Image.Image:
    """Blend with the mean gray."""
    gray = image if image.mode == "L" else image.convert("L")
    counts = np.array(gray.histogram(), np.float64)
    mean = int((counts * _RAMP).sum() / counts.sum() + 0.5)
    return apply_lut(image, blend_table(mean, value))


def blend_table(degenerate: int, factor: float) -> np.ndarray:
    """(256,) result of Pillow's blend of a constant with each gray level, in its float32 arithmetic."""
    mixed = np.float32(degenerate) + np.float32(factor) * (_RAMP - degenerate).astype(np.float32)
    return np.clip(mixed, 0, 255).astype(np.uint8)


def color(image: Image.Image, value: float, place: Place) -> Image.Image:
    """Blend with the gray image: 0 is gray, 1 unchanged."""
    return image if image.mode == "L" else ImageEnhance.Color(image).enhance(value)


def sharpness(image: Image.Image, value: float, place: Place) -> Image.Image:
    """Blend with a smoothed image."""
    return ImageEnhance.Sharpness(image).enhance(value)


def desaturate(image: Image.Image, value: float, place: Place) -> Image.Image:
    """Take away this share of the color; 1 is gray."""
    return color(image, 1 - value, place)


def gaussian_blur(image: Image.Image, value: float, place: Place) -> Image.Image:
    """Blur of this radius."""
    return image.filter(ImageFilter.GaussianBlur(value))


def _affine(image: Image.Image, matrix: tuple[float, ...], place: Place) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, place.resample, fillcolor=place.color(image))


def rotate(image: Image.Image, value: float, place: Place) -> Image.Image:
    """Counterclockwise by degrees about the center."""
    return image.rotate(value, place.resample, fillcolor=place.color(image))


def shear_x(image: Image.Image, value: float, place: Place) -> Image.Image:
    return _affine(image, (1, value, 0, 0, 1, 0), place)


def shear_y(image: Image.Image, value: float, place: Place) -> Image.Image:
    return _affine(image, (1, 0, 0, value, 1, 0), place)


def translate_x(image: Image.Image, value: float, place: Place) -> Image.Image:
    """By pixels."""
    return _affine(image, (1, 0, value, 0, 1, 0), place)


def translate_y(image: Image.Image, value: float, place: Place) -> Image.Image:
    """By pixels."""
    return _affine(image, (1, 0, 0, 0, 1, value), place)


def translate_x_share(image: Image.Image, value: float, place: Place) -> Image.Image:
    """By a share of the width."""
    return translate_x(image, value * image.width, place)


def translate_y_share(image: Image.Image, value: float, place: Place) -> Image.Image:
    """By a share of the height."""
    return translate_y(image, value * image.height, place)


class Op(NamedTuple):
    """An operation and how a magnitude becomes its value: `low + share * span`, where `share` is the magnitude over
    ten.
    """

    function: Callable[[Image.Image, float, Place], Image.Image]
    low: float = 0.0
    span: float = 0.0
    whole: bool = False
    """The span is cut to a whole number before it is added."""
    signed: bool = False
    """The span is negated half of the time."""
    least: float = -np.inf
    most: float = np.inf
    random: bool = False
    """The value is drawn between `least` and what the magnitude gives."""

    def value(self, magnitude: float, rng: Generator) -> float:
        """The operation's argument."""
        part = magnitude / LEVELS * self.span
        if self.whole:
            part = int(abs(part)) * (1 if part >= 0 else -1)
        if self.signed and rng.random() < 0.5:
            part = -part
        value = min(max(self.low + part, self.least), self.most)
        return rng.uniform(self.least, max(self.least, value)) if self.random else value


def _blended(function: Callable[[Image.Image, float, Place], Image.Image]) -> Op:
    return Op(function, low=0.1, span=1.8)


def _blended_more(function: Callable[[Image.Image, float, Place], Image.Image]) -> Op:
    return Op(function, low=1.0, span=0.9, signed=True, least=0.1)


TRANSLATE_PIXELS, TRANSLATE_SHARE = 250.0, 0.45

OPS: dict[str, Op] = {
    "AutoContrast": Op(autocontrast),
    "Equalize": Op(equalize),
    "Invert": Op(invert),
    "Rotate": Op(rotate, span=30, signed=True),
    "Posterize": Op(posterize, span=4, whole=True),
    "PosterizeIncreasing": Op(posterize, low=4, span=-4, whole=True),
    "PosterizeOriginal": Op(posterize, low=4, span=4, whole=True),
    "Solarize": Op(solarize, span=256, whole=True, most=256),
    "SolarizeIncreasing": Op(solarize, low=256, span=-256, whole=True, most=256),
    "SolarizeAdd": Op(solarize_add, span=110, whole=True, most=128),
    "Color": _blended(color),
    "ColorIncreasing": _blended_more(color),
    "Contrast": _blended(contrast),
    "ContrastIncreasing": _blended_more(contrast),
    "Brightness": _blended(brightness),
    "BrightnessIncreasing": _blended_more(brightness),
    "Sharpness": _blended(sharpness),
    "SharpnessIncreasing": _blended_more(sharpness),
    "ShearX": Op(shear_x, span=0.3, signed=True),
    "ShearY": Op(shear_y, span=0.3, signed=True),
    "TranslateX": Op(translate_x, span=TRANSLATE_PIXELS, signed=True),
    "TranslateY": Op(translate_y, span=TRANSLATE_PIXELS, signed=True),
    "TranslateXRel": Op(translate_x_share, span=TRANSLATE_SHARE, signed=True),
    "TranslateYRel": Op(translate_y_share, span=TRANSLATE_SHARE, signed=True),
    "Desaturate": Op(desaturate, low=0.5, span=0.5),
    "GaussianBlur": Op(gaussian_blur, low=0.1, span=1.9),
    "GaussianBlurRand": Op(gaussian_blur, span=2.0, least=0.1, random=True),
}

"""AutoAugment (1805.09501), RandAugment (1909.13719), AugMix (1912.02781) and 3-augment (2204.07118), from the peer's
strings.

`rand-m9-n2-p0.5-mstd0.5-mmax10-inc1-tweights`, `original`, `v0`, `3a`, each with `-mstd`, and `augmix-m3-w3-d-1-a1-b0`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.random import Generator
from PIL import Image

from imgzoo.errors import UsageError

from .ops import OPS, Place
from .picture import Picture

_MIXED = ("AutoContrast", "Equalize", "Invert", "Rotate", "Posterize", "Solarize", "SolarizeAdd")
_ENHANCING = ("Color", "Contrast", "Brightness", "Sharpness")
_MOVING = ("ShearX", "ShearY", "TranslateXRel", "TranslateYRel")
RAND_OPS = (*_MIXED, *_ENHANCING, *_MOVING)
_INCREASING = ("Posterize", "Solarize", "Color", "Contrast", "Brightness", "Sharpness")


def increasing(names: tuple[str, ...]) -> tuple[str, ...]:
    """The variants whose strength grows with the magnitude, where there are any."""
    return tuple(name + "Increasing" if name in _INCREASING else name for name in names)


AUGMIX_OPS = (
    *increasing(("AutoContrast", *_ENHANCING, "Equalize", "Rotate", "Posterize", "Solarize")),
    *_MOVING,
)
_WEIGHTED = {
    "Rotate": 3.0,
    "ShearX": 2.0,
    "ShearY": 2.0,
    "TranslateXRel": 1.0,
    "TranslateYRel": 1.0,
    **dict.fromkeys(("ColorIncreasing", "SharpnessIncreasing", "AutoContrast"), 0.25),
    **dict.fromkeys(("SolarizeIncreasing", "SolarizeAdd", "ContrastIncreasing", "BrightnessIncreasing"), 0.05),
    **dict.fromkeys(("Equalize", "PosterizeIncreasing", "Invert"), 0.05),
}
_THREE = ("SolarizeIncreasing", "Desaturate", "GaussianBlur")
_THREE_WEIGHTED = {
    **dict.fromkeys(_THREE, 6.0),
    "Rotate": 3.0,
    "ShearX": 2.0,
    "ShearY": 2.0,
    **dict.fromkeys(("PosterizeIncreasing", "AutoContrast", *increasing(_ENHANCING), "Equalize", "Invert"), 1.0),
}
SETS: dict[str, dict[str, float]] = {
    "default": dict.fromkeys(RAND_OPS, 1.0),
    "increasing": dict.fromkeys(increasing(RAND_OPS), 1.0),
    "weights": _WEIGHTED,
    "3a": dict.fromkeys(_THREE, 1.0),
    "3aw": _THREE_WEIGHTED,
}

# sub-policies as written in the papers' tables: operation, probability, magnitude
_ORIGINAL = """PosterizeOriginal .4 8 Rotate .6 9; Solarize .6 5 AutoContrast .6 5; Equalize .8 8 Equalize .6 3;
PosterizeOriginal .6 7 PosterizeOriginal .6 6; Equalize .4 7 Solarize .2 4; Equalize .4 4 Rotate .8 8;
Solarize .6 3 Equalize .6 7; PosterizeOriginal .8 5 Equalize 1 2; Rotate .2 3 Solarize .6 8;
Equalize .6 8 PosterizeOriginal .4 6; Rotate .8 8 Color .4 0; Rotate .4 9 Equalize .6 2; Equalize 0 7 Equalize .8 8;
Invert .6 4 Equalize 1 8; Color .6 4 Contrast 1 8; Rotate .8 8 Color 1 2; Color .8 8 Solarize .8 7;
Sharpness .4 7 Invert .6 8; ShearX .6 5 Equalize 1 9; Color .4 0 Equalize .6 3; Equalize .4 7 Solarize .2 4;
Solarize .6 5 AutoContrast .6 5; Invert .6 4 Equalize 1 8; Color .6 4 Contrast 1 8; Equalize .8 8 Equalize .6 3"""
_V0 = """Equalize .8 1 ShearY .8 4; Color .4 9 Equalize .6 3; Color .4 1 Rotate .6 8; Solarize .8 3 Equalize .4 7;
Solarize .4 2 Solarize .6 2; Color .2 0 Equalize .8 8; Equalize .4 8 SolarizeAdd .8 3; ShearX .2 9 Rotate .6 8;
Color .6 1 Equalize 1 2; Invert .4 9 Rotate .6 0; Equalize 1 9 ShearY .6 3; Color .4 7 Equalize .6 0;
Posterize .4 6 AutoContrast .4 7; Solarize .6 8 Color .6 9; Solarize .2 4 Rotate .8 9; Rotate 1 7 TranslateYRel .8 9;
ShearX 0 0 Solarize .8 4; ShearY .8 0 Color .6 4; Color 1 0 Rotate .6 2; Equalize .8 4 Equalize 0 8;
Equalize 1 4 AutoContrast .6 2; ShearY .4 7 SolarizeAdd .6 7; Posterize .8 2 Solarize .6 10; Solarize .6 8 Equalize .6
1;
Color .8 6 Rotate .4 5"""
POLICIES = {
    "original": _ORIGINAL,
    "originalr": _ORIGINAL.replace("PosterizeOriginal", "PosterizeIncreasing"),
    "v0": _V0,
    "v0r": _V0.replace("Posterize", "PosterizeIncreasing"),
    "3a": "Solarize 1 5; Desaturate 1 10; GaussianBlurRand 1 10",
}


_MOST = 10.0


@dataclass(frozen=True)
class Strength:
    """Magnitude of the operations: its mean, Gaussian spread (infinite: uniform from 0), and upper limit."""

    magnitude: float = 10.0
    std: float = 0.0
    most: float = _MOST

    def draw(self, rng: Generator, mean: float | None = None) -> float:
        """A magnitude between 0 and the limit."""
        mean = self.magnitude if mean is None else mean
        if self.std == math.inf:
            mean = rng.uniform(0, mean)
        elif self.std > 0:
            mean = rng.normal(mean, self.std)
        return min(max(mean, 0.0), self.most)


_BOUNDS = {"m": (0, math.inf), "mstd": (0, math.inf), "mmax": (0, math.inf), "n": (1, 64), "p": (0, 1), "w": (1, 64),
           "d": (-1, 64), "a": (1e-3, math.inf)}  # fmt: skip
"""Section of a policy string -> the least and the greatest number it takes."""


def read_words(text: str, kind: str, keys: dict[str, type]) -> dict[str, Any]:
    """The sections of a policy string: `"rand-m9-mstd0.5"` -> {"m": 9.0, "mstd": 0.5}; unknown sections raise
    `UsageError`.
    """
    found: dict[str, Any] = {}
    rest = text[len(kind) :].lstrip("-")
    if kind == "augmix":
        rest = rest.replace("d-1", "d_1")
    for word in filter(None, rest.split("-")):
        key = next((k for k in sorted(keys, key=len, reverse=True) if word.startswith(k)), None)
        try:
            if key is None:
                raise ValueError
            found[key] = keys[key](word[len(key) :].replace("_", "-"))
        except ValueError as error:
            raise UsageError(
                f"'{text}': section '{word}' is unknown; {kind} takes {', '.join(keys)}, as in m9"
            ) from error
        low, high = _BOUNDS.get(key, (-math.inf, math.inf))
        if not isinstance(found[key], str) and not low <= found[key] <= high:
            raise UsageError(f"'{text}': {key} is a number from {low:g} to {high:g}, not '{word[len(key) :]}'")
    if found.get("m", 0) > found.get("mmax", _MOST):
        limit = found.get("mmax", _MOST)
        raise UsageError(f"'{text}': m{found['m']:g} is above the limit mmax{limit:g}; lower it, or raise mmax")
    return found


def _strength(words: dict[str, Any], magnitude: float, std: float) -> Strength:
    std = words.get("mstd", std)
    return Strength(words.get("m", magnitude), math.inf if std > 100 else std, words.get("mmax", _MOST))


def place_of(config: Any, rng: Generator) -> Place:
    """Fill with the mean color; interpolate as the config says, bilinear or bicubic in turn when it says random."""
    name = config.interpolation
    if name not in ("bilinear", "bicubic", "nearest"):
        name = ("bilinear", "bicubic")[int(rng.integers(2))] if name == "random" else "bicubic"
    return Place(tuple(min(255, round(255 * m)) for m in config.mean), Image.Resampling[name.upper()])


def _apply(image: Image.Image, name: str, magnitude: float, place: Place, rng: Generator) -> Image.Image:
    op = OPS[name]
    return op.function(image, op.value(magnitude, rng), place)


@dataclass(frozen=True)
class RandAugment:
    """`n` operations drawn with replacement (by weight: without), each applied with probability `p`.

    `spec` is the peer's string: m magnitude, n count, p probability, mstd spread, mmax limit, inc1 increasing
    variants, t a set of default, increasing, weights, 3a, 3aw.
    """

    spec: str = "rand-m9-mstd0.5"
    names: tuple[str, ...] = field(init=False, repr=False, default=())
    weights: tuple[float, ...] | None = field(init=False, repr=False, default=None)
    strength: Strength = field(init=False, repr=False, default=Strength())
    count: int = field(init=False, repr=False, default=2)
    prob: float = field(init=False, repr=False, default=0.5)

    def __post_init__(self) -> None:
        kinds = {"m": float, "n": int, "p": float, "mstd": float, "mmax": float, "inc": _switch, "t": str, "w": str}
        words = read_words(self.spec, "rand", kinds)
        chosen = words.get("t") or ("weights" if "w" in words else "increasing" if words.get("inc") else "default")
        if chosen not in SETS:
            raise UsageError(f"'{self.spec}': there is no set of operations '{chosen}'; use one of {', '.join(SETS)}")
        table, weighted = SETS[chosen], chosen in ("weights", "3aw")
        total = sum(table.values())
        weights = tuple(w / total for w in table.values()) if weighted else None
        if weighted and words.get("n", 2) > len(table):
            raise UsageError(f"'{self.spec}': n is at most {len(table)}, the operations of '{chosen}'")
        values = {
            "names": tuple(table),
            "weights": weights,
            "strength": _strength(words, 10.0, 0.0),
            "count": words.get("n", 2),
            "prob": words.get("p", 0.5),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def draw(self, rng: Generator) -> list[tuple[str, float]]:
        """The (operation, magnitude) pairs applied to one image."""
        if self.weights is None:
            picked = rng.integers(len(self.names), size=self.count)
        else:
            picked = rng.choice(len(self.names), self.count, replace=False, p=self.weights)
        return [(self.names[i], self.strength.draw(rng)) for i in picked if self.prob >= 1 or rng.random() < self.prob]

    def __call__(self, picture: Picture, rng: Generator, config: Any) -> Picture:
        drawn = self.draw(rng)
        if not drawn:
            return picture
        image = picture.pil
        for name, magnitude in drawn:
            image = _apply(image, name, magnitude, place_of(config, rng), rng)
        return Picture(pil=image)


def _switch(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(text)
    return text == "1"


@dataclass(frozen=True)
class AutoAugment:
    """One of a table of sub-policies, each of a few (operation, probability, magnitude): original, v0 (and with r),
    3a; mstd.
    """

    spec: str = "original"
    table: tuple[tuple[tuple[str, float, float], ...], ...] = field(init=False, repr=False, default=())
    strength: Strength = field(init=False, repr=False, default=Strength())

    def __post_init__(self) -> None:
        name = self.spec.partition("-")[0]
        if name not in POLICIES:
            raise UsageError(f"there is no policy '{name}'; use one of {', '.join(POLICIES)}")
        words = read_words(self.spec, name, {"mstd": float})
        rows = (row.split() for row in POLICIES[name].split(";"))
        table = tuple(tuple(zip(r[0::3], map(float, r[1::3]), map(float, r[2::3]))) for r in rows)
        object.__setattr__(self, "table", table)
        object.__setattr__(self, "strength", _strength(words, 10.0, 0.0))

    def draw(self, rng: Generator) -> list[tuple[str, float]]:
        """The (operation, magnitude) pairs applied to one image."""
        row = self.table[int(rng.integers(len(self.table)))]
        return [(name, self.strength.draw(rng, mean)) for name, prob, mean in row if prob >= 1 or rng.random() < prob]

    def __call__(self, picture: Picture, rng: Generator, config: Any) -> Picture:
        image = picture.pil
        for name, magnitude in self.draw(rng):
            image = _apply(image, name, magnitude, place_of(config, rng), rng)
        return Picture(pil=image)


@dataclass(frozen=True)
class AugMix:
    """A random blend of `width` chains of operations, blended with the image itself.

    `spec`: m magnitude, mstd (default: uniform up to m), w width, d depth (-1: one to three), a the Dirichlet and
    Beta parameter, b1 blends chain by chain instead of summing first.
    """

    spec: str = "augmix-m3"
    strength: Strength = field(init=False, repr=False, default=Strength())
    width: int = field(init=False, repr=False, default=3)
    depth: int = field(init=False, repr=False, default=-1)
    alpha: float = field(init=False, repr=False, default=1.0)
    blended: bool = field(init=False, repr=False, default=False)

    def __post_init__(self) -> None:
        kinds = {"m": float, "mstd": float, "mmax": float, "w": int, "d": int, "a": float, "b": _switch}
        words = read_words(self.spec, "augmix", kinds)
        values = {
            "strength": _strength(words, 3.0, math.inf),
            "width": words.get("w", 3),
            "depth": words.get("d", -1),
            "alpha": words.get("a", 1.0),
            "blended": words.get("b", False),
        }
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def __call__(self, picture: Picture, rng: Generator, config: Any) -> Picture:
        weights = rng.dirichlet([self.alpha] * self.width)
        share = float(rng.beta(self.alpha, self.alpha))
        mix = self._blend if self.blended else self._sum
        return Picture(pil=mix(picture.pil, weights, share, rng, config))

    def _chain(self, image: Image.Image, rng: Generator, config: Any) -> Image.Image:
        depth = self.depth if self.depth > 0 else int(rng.integers(1, 4))
        for choice in rng.integers(len(AUGMIX_OPS), size=depth):
            image = _apply(image, AUGMIX_OPS[choice], self.strength.draw(rng), place_of(config, rng), rng)
        return image

    def _sum(self, image: Image.Image, weights: np.ndarray, share: float, rng: Generator, config: Any) -> Image.Image:
        total = np.zeros(np.asarray(image).shape, np.float32)
        for weight in weights:
            total += np.float32(weight) * np.asarray(self._chain(image, rng, config), np.float32)
        return Image.blend(image, Image.fromarray(np.clip(total, 0, 255).astype(np.uint8)), share)

    def _blend(
        self, origin: Image.Image, weights: np.ndarray, share: float, rng: Generator, config: Any
    ) -> Image.Image:
        # blending with the last chain comes last, so its share is its weight; the others share what it leaves, and so
        # on
        parts, left = [], 1.0
        for weight in reversed(weights * share):
            parts.append(min(1.0, weight / left) if left > 0 else 0.0)
            left -= weight
        image = origin
        for part in reversed(parts):
            image = Image.blend(image, self._chain(origin, rng, config), part)
        return image


def create_policy(spec: str) -> RandAugment | AutoAugment | AugMix:
    """The policy that a string names by its first word."""
    if spec.startswith("rand"):
        return RandAugment(spec)
    return AugMix(spec) if spec.startswith("augmix") else AutoAugment(spec)

"""Policies of augmentation over imgzoo's operations: one operation, and random, tabled and mixed rows of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from imgzoo.errors import UnknownNameError
from imgzoo_data.transforms import policies
from imgzoo_data.transforms.ops import LEVELS, OPS, Place
from imgzoo_data.transforms.picture import Picture

from ._transforms import drawn

SPANS = {"TranslateX": "translate_const", "TranslateY": "translate_const", "TranslateXRel": "translate_pct",
         "TranslateYRel": "translate_pct"}  # fmt: skip
"""Operations whose full magnitude is a hyperparameter: pixels, or a share of the image."""


class AugmentOp:
    """An operation by its name, applied to a Pillow image with a probability, at a magnitude of 0 to 10.

    `hparams` are magnitude_std (infinite: uniform), magnitude_max, img_mean, interpolation, translate_const and
    translate_pct.
    """

    def __init__(self, name: str, prob: float = 0.5, magnitude: float = 10, hparams: Mapping[str, Any] | None = None):
        if name not in OPS:
            raise UnknownNameError(f"there is no operation {name}: those of imgzoo are {', '.join(OPS)}")
        self.name, self.prob, self.magnitude, self.hparams = name, prob, magnitude, dict(hparams or {})
        self.magnitude_std = self.hparams.get("magnitude_std", 0)
        self.magnitude_max = self.hparams.get("magnitude_max")
        self.op = OPS[name]._replace(span=self.hparams.get(SPANS.get(name, ""), OPS[name].span))

    def __call__(self, img: Any) -> Any:
        rng = drawn()
        if self.prob < 1.0 and rng.random() >= self.prob:
            return img
        most = LEVELS if self.magnitude_max is None else self.magnitude_max
        strength = policies.Strength(self.magnitude, self.magnitude_std, most)
        modes = self.hparams.get("interpolation", (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC))
        modes = modes if isinstance(modes, (tuple, list)) else (modes,)
        place = Place(tuple(self.hparams.get("img_mean", (128, 128, 128))), modes[rng.integers(len(modes))])
        return self.op.function(img, self.op.value(strength.draw(rng), rng), place)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(name={self.name}, p={self.prob}, m={self.magnitude}, mstd={self.magnitude_std})"


class RandAugment:
    """Some operations in a row, drawn with replacement; by weights without."""

    def __init__(self, ops: Sequence[AugmentOp], num_layers: int = 2, choice_weights: Any = None):
        self.ops, self.num_layers, self.choice_weights = ops, num_layers, choice_weights

    def __call__(self, img: Any) -> Any:
        picked = drawn().choice(len(self.ops), self.num_layers, self.choice_weights is None, self.choice_weights)
        for i in picked:
            img = self.ops[i](img)
        return img

    def __repr__(self) -> str:
        return f"{type(self).__name__}(n={self.num_layers}, ops={self.ops})"


class AutoAugment:
    """One row of a table of operations, drawn evenly."""

    def __init__(self, policy: Sequence[Sequence[AugmentOp]]):
        self.policy = policy

    def __call__(self, img: Any) -> Any:
        for op in self.policy[int(drawn().integers(len(self.policy)))]:
            img = op(img)
        return img

    def __repr__(self) -> str:
        return f"{type(self).__name__}(policy={self.policy})"


class Chains(policies.AugMix):
    """AugMix whose chains are of operations that the caller made, told as the config."""

    def _chain(self, image: Any, rng: np.random.Generator, config: Any) -> Any:
        for i in rng.integers(len(config), size=self.depth if self.depth > 0 else int(rng.integers(1, 4))):
            image = config[i](image)
        return image


class AugMixAugment:
    """A random blend of chains of operations with the image itself."""

    def __init__(self, ops: Sequence[AugmentOp], alpha: float = 1.0, width: int = 3, depth: int = -1,
                 blended: bool = False):  # fmt: skip
        self.ops, self.alpha, self.width, self.depth, self.blended = ops, alpha, width, depth, blended
        self.mix = Chains(f"augmix-w{width}-d{depth}-a{alpha}-b{int(blended)}")

    def __call__(self, img: Any) -> Any:
        return self.mix(Picture(pil=img), drawn(), self.ops).pil

    def __repr__(self) -> str:
        return f"{type(self).__name__}(alpha={self.alpha}, width={self.width}, depth={self.depth}, ops={self.ops})"


def rand_augment_ops(magnitude: float = 10, prob: float = 0.5, hparams: Mapping[str, Any] | None = None,
                     transforms: Any = None) -> list[AugmentOp]:  # fmt: skip
    """The named operations (a list, or a table of weights), or RandAugment's own."""
    return [AugmentOp(name, prob, magnitude, hparams) for name in transforms or policies.RAND_OPS]


def spread(strength: policies.Strength, hparams: Mapping[str, Any] | None) -> dict[str, Any]:
    """Hyperparameters with what a policy's string says of magnitudes."""
    return {**(hparams or {}), "magnitude_std": strength.std, "magnitude_max": strength.most}


def rand_augment_transform(
    config_str: str, hparams: dict[str, Any] | None = None, transforms: Any = None
) -> RandAugment:
    """RandAugment by its string (`rand-m9-mstd0.5-inc1`), over operations of its own or those of a list or table."""
    told = policies.RandAugment(config_str)
    weights = None if told.weights is None else np.array(told.weights)
    if transforms is not None:
        weights = np.array([*transforms.values()], float) if isinstance(transforms, Mapping) else None
    ops = rand_augment_ops(told.strength.magnitude, told.prob, spread(told.strength, hparams), transforms or told.names)
    return RandAugment(ops, told.count, None if weights is None else weights / weights.sum())


def auto_augment_policy(name: str = "v0", hparams: dict[str, Any] | None = None) -> list[list[AugmentOp]]:
    """The table of a policy: original, originalr, v0, v0r, 3a."""
    told = policies.AutoAugment(name)
    made = spread(told.strength, hparams)
    return [[AugmentOp(each, prob, magnitude, made) for each, prob, magnitude in row] for row in told.table]


def auto_augment_transform(config_str: str, hparams: dict[str, Any] | None = None) -> AutoAugment:
    """AutoAugment by its string (`original-mstd0.5`)."""
    return AutoAugment(auto_augment_policy(config_str, hparams))


def augment_and_mix_transform(config_str: str, hparams: dict[str, Any] | None = None) -> AugMixAugment:
    """AugMix by its string (`augmix-m5-w4-d2`)."""
    told = policies.AugMix(config_str)
    made = spread(told.strength, hparams)
    ops = rand_augment_ops(told.strength.magnitude, 1.0, made, policies.AUGMIX_OPS)
    return AugMixAugment(ops, told.alpha, told.width, told.depth, told.blended)

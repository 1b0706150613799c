"""`create_transform`: the pipeline that a data config and the usual augmentation options describe."""

from __future__ import annotations

from typing import Any

from imgzoo.errors import OptionError, UsageError
from imgzoo.options import plain_numbers
from imgzoo_data.augmentations import AUGMENTATIONS, PROBABILITIES
from imgzoo_data.config import resolve_data_config
from imgzoo_data.decode import BACKENDS, MAX_PIXELS
from imgzoo_data.erasing import Erase

from .color import ColorJitter, GaussianBlur, Grayscale
from .crops import CropStep, EvalCrop, RandomKeepRatio, RandomResizedCrop
from .flip import HorizontalFlip, VerticalFlip
from .pipeline import Transform, parse_row
from .policies import create_policy
from .sequences import SequenceCrop


def create_transform(
    config: Any = None,
    *,
    training: bool = False,
    row: str | None = None,
    augment: bool = True,
    crop_kind: str = "rrc",
    scale: tuple[float, float] | None = None,
    ratio: tuple[float, float] | None = None,
    hflip: float = 0.5,
    vflip: float = 0.0,
    auto_augment: str | None = None,
    color_jitter: float | tuple[float, ...] = 0.0,
    color_jitter_prob: float = 1.0,
    force_color_jitter: bool = False,
    grayscale_prob: float = 0.0,
    blur_prob: float = 0.0,
    crop_border: int = 0,
    sequence: tuple[int, int] | None = None,
    erase: float | Erase = 0.0,
    erase_mode: str = "const",
    erase_count: int | tuple[int, int] = 1,
    splits: int = 1,
    decode: str | None = None,
    max_pixels: int | None = None,
    orient: bool = True,
    **overrides: Any,
) -> Transform:
    """Build the transform of a model, a `pretrained_cfg` mapping, a `DataConfig`, or None for the usual 224 pixels.

    Args:
        row: the whole pipeline written down, `"rrc | hflip(p=0.5)"`; the options below are then not looked at.
        augment: False in training gives the evaluation crop without any augmentation.
        crop_kind: `rrc` (random-resized crop), `rkrc` (ratio kept, center crop) or `rkrr` (ratio kept, random crop).
        auto_augment: a policy string, `rand-m9-mstd0.5-inc1`, `original`, `v0`, `3a`, `augmix-m3`; color jitter is
            then left out, but with 3-augment or `force_color_jitter`.
        color_jitter: one strength for brightness, contrast and saturation, or a value (or range) each, hue fourth.
        crop_border: evaluation cuts a frame of that many pixels off first.
        sequence: (patch size, most patches): images of any size become patch sequences (NaFlex) instead of squares.
        erase: probability of random erasing, or an `Erase`; it happens on the device, after normalization.
        splits: versions of each image in a batch (AugMix); the first one is clean.
        decode: `exact`, `fast` or `reference`; training defaults to fast, evaluation to exact.
        overrides: fields of the data config: input_size, img_size, in_chans, mean, std, interpolation, crop_pct,
            crop_mode, range.
    """
    try:
        config = resolve_data_config(config, **overrides)
    except OptionError as error:
        raise OptionError(f"{error}, or an augmentation: {', '.join(AUGMENTATIONS)}") from error
    _check_shares(
        hflip, vflip, color_jitter_prob, grayscale_prob, blur_prob, erase.p if isinstance(erase, Erase) else erase
    )
    max_pixels = MAX_PIXELS if max_pixels is None else max_pixels
    for name, count in (("splits", splits), ("max_pixels", max_pixels)):
        if count < 1:
            raise UsageError(f"{name} must be at least 1, not {count}")
    decode = decode or ("fast" if training else "exact")
    if decode not in BACKENDS:
        raise UsageError(f"decode '{decode}' is unknown; use one of {', '.join(BACKENDS)}")
    if row is not None:
        crop, *steps = parse_row(row)
        if not isinstance(crop, CropStep):
            raise UsageError(f"transform row '{row}' must begin with a crop: rrc, rkr or eval")
    elif training and augment:
        crop = SequenceCrop(*sequence, random=True) if sequence else _training_crop(crop_kind, scale, ratio)
        jitters = auto_augment is None or force_color_jitter or "3a" in auto_augment
        steps = [
            HorizontalFlip(hflip) if hflip > 0 else None,
            VerticalFlip(vflip) if vflip > 0 else None,
            create_policy(auto_augment) if auto_augment else None,
            _jitter(color_jitter, color_jitter_prob) if jitters and color_jitter else None,
            Grayscale(grayscale_prob) if grayscale_prob > 0 else None,
            GaussianBlur(blur_prob) if blur_prob > 0 else None,
        ]
        steps = [step for step in steps if step is not None]
    else:
        crop, steps = SequenceCrop(*sequence) if sequence else EvalCrop(trim=crop_border), []
    if not isinstance(erase, Erase):
        count = plain_numbers(erase_count)
        count = (count, count) if isinstance(count, int) else count
        erase = Erase(erase if training and augment else 0.0, erase_mode, count)
    return Transform(config, crop, tuple(steps), training, decode, splits, erase, max_pixels, orient)


def _check_shares(*values: float) -> None:
    """Raise for a probability outside 0 to 1, named by its place."""
    for name, value in zip((*PROBABILITIES, "erase"), values):
        if not 0 <= value <= 1:
            raise UsageError(f"{name} is a probability from 0 to 1, not {value}")


def _training_crop(kind: str, scale: Any, ratio: Any) -> CropStep:
    ranges: dict[str, Any] = {
        name: tuple(pair) for name, pair in (("scale", scale), ("ratio", ratio)) if pair is not None
    }
    if kind == "rrc":
        return RandomResizedCrop(**ranges)
    if kind in ("rkrc", "rkrr"):
        return RandomKeepRatio(random=kind == "rkrr", **ranges)
    raise UsageError(f"crop_kind '{kind}' is unknown; use rrc, rkrc or rkrr")


def _jitter(strength: Any, prob: float) -> ColorJitter:
    values = (strength,) if isinstance(strength, int | float) else tuple(strength)
    values = values * 3 if len(values) == 1 else values
    if not 3 <= len(values) <= 4 or any(isinstance(value, str) for value in values):
        raise UsageError(f"color_jitter is one number, or three or four of them, not {strength}")
    return ColorJitter(*values, p=prob)

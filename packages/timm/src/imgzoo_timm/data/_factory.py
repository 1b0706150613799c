"""Pipelines of transforms: from a Pillow image to a tensor, or to patches, for training or evaluation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torchvision import transforms as tv

from imgzoo.errors import UsageError
from imgzoo_timm.layers._helpers import to_2tuple

from ._constants import DEFAULT_CROP_PCT, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from ._policies import augment_and_mix_transform, auto_augment_transform, rand_augment_transform
from ._sequence import Patchify, RandomResizedCropToSequence, ResizeToSequence
from ._transforms import (
    CenterCropOrPad,
    MaybePILToTensor,
    MaybeToTensor,
    RandomErasing,
    RandomResizedCropAndInterpolation,
    ResizeKeepRatio,
    TrimBorder,
    str_to_interp_mode,
    str_to_pil_interp,
)


def _ending(mean: Sequence[float], std: Sequence[float], use_prefetcher: bool, normalize: bool) -> list[Any]:
    """To a tensor: bytes for a prefetching loader, else normalized."""
    if use_prefetcher or not normalize:
        return [MaybePILToTensor()]
    return [MaybeToTensor(), tv.Normalize(mean=torch.tensor(mean), std=torch.tensor(std))]


def transforms_noaug_train(img_size: Any = 224, interpolation: str = "bilinear",
                           mean: Sequence[float] = IMAGENET_DEFAULT_MEAN, std: Sequence[float] = IMAGENET_DEFAULT_STD,
                           use_prefetcher: bool = False, normalize: bool = True) -> tv.Compose:  # fmt: skip
    mode = str_to_interp_mode("bilinear" if interpolation == "random" else interpolation)
    return tv.Compose([tv.Resize(img_size, mode), tv.CenterCrop(img_size),
                       *_ending(mean, std, use_prefetcher, normalize)])  # fmt: skip


def _crop(size: Any, kind: str, scale: Any, ratio: Any, interpolation: str) -> list[Any]:
    if kind == "rrc":
        scale, ratio = tuple(scale or (0.08, 1.0)), tuple(ratio or (3 / 4, 4 / 3))
        return [RandomResizedCropAndInterpolation(size, scale, ratio, interpolation)]
    if kind not in ("rkrc", "rkrr"):
        raise UsageError(f"train_crop_mode is rrc, rkrc or rkrr, not {kind!r}")
    resize = ResizeKeepRatio(size, interpolation=interpolation, random_scale_prob=0.5,
                             random_scale_range=tuple(scale or (0.8, 1.0)), random_scale_area=True,
                             random_aspect_prob=0.5, random_aspect_range=tuple(ratio or (0.9, 1 / 0.9)))  # fmt: skip
    return [resize, CenterCropOrPad(size) if kind == "rkrc" else tv.RandomCrop(size, pad_if_needed=True)]


def _policy(text: str) -> Any:
    """What makes the policy that a string names by its first word."""
    if text.startswith("rand"):
        return rand_augment_transform
    return augment_and_mix_transform if text.startswith("augmix") else auto_augment_transform


def _jitter(color_jitter: Any) -> tuple[float, ...]:
    if isinstance(color_jitter, (list, tuple)):
        if len(color_jitter) not in (3, 4):
            raise ValueError("color_jitter is a number, or three or four of them")
        return tuple(color_jitter)
    return (float(color_jitter),) * 3


def transforms_imagenet_train(
    img_size: Any = 224, scale: Any = None, ratio: Any = None, train_crop_mode: str | None = None, hflip: float = 0.5,
    vflip: float = 0.0, color_jitter: Any = 0.4, color_jitter_prob: float | None = None,
    force_color_jitter: bool = False, grayscale_prob: float = 0.0, gaussian_blur_prob: float = 0.0,
    auto_augment: str | None = None, interpolation: str = "random", mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    std: Sequence[float] = IMAGENET_DEFAULT_STD, re_prob: float = 0.0, re_mode: str = "const", re_count: int = 1,
    re_num_splits: int = 0, use_prefetcher: bool = False, normalize: bool = True, separate: bool = False,
    naflex: bool = False, patch_size: Any = 16, max_seq_len: int = 576, patchify: bool = False,
    patchify_channels_last: bool = True,
) -> Any:  # fmt: skip
    """Crop and flips; policy or color; tensor: one `Compose`, or with `separate` one for each of the three.

    With `naflex` the crop is as large as `max_seq_len` patches allow, in its own aspect; `patchify` ends with patches.
    """
    first = _crop(img_size, train_crop_mode or "rrc", scale, ratio, interpolation)
    if naflex:
        first = [RandomResizedCropToSequence(patch_size, max_seq_len, tuple(scale or (0.08, 1.0)),
                                             tuple(ratio or (3 / 4, 4 / 3)), interpolation)]  # fmt: skip
    first += [tv.RandomHorizontalFlip(p=hflip)] if hflip > 0 else []
    first += [tv.RandomVerticalFlip(p=vflip)] if vflip > 0 else []
    second: list[Any] = []
    jitters = color_jitter is not None and color_jitter != 0
    if auto_augment:
        jitters = jitters and (force_color_jitter or "3a" in auto_augment)
        hparams: dict[str, Any] = {"img_mean": tuple(min(255, round(255 * each)) for each in mean)}
        if interpolation != "random":
            hparams["interpolation"] = str_to_pil_interp(interpolation)
        second.append(_policy(auto_augment)(auto_augment, hparams))
    if jitters:
        jitter = tv.ColorJitter(*_jitter(color_jitter))
        second.append(jitter if color_jitter_prob is None else tv.RandomApply([jitter], p=color_jitter_prob))
    second += [tv.RandomGrayscale(p=grayscale_prob)] if grayscale_prob else []
    if gaussian_blur_prob:
        second.append(tv.RandomApply([tv.GaussianBlur(kernel_size=23)], p=gaussian_blur_prob))
    last = _ending(mean, std, use_prefetcher, normalize)
    if re_prob > 0 and not use_prefetcher and normalize:
        last.append(RandomErasing(re_prob, mode=re_mode, max_count=re_count, num_splits=re_num_splits, device="cpu"))
    last += [Patchify(patch_size, channels_last=patchify_channels_last)] if patchify else []
    if separate:
        return tv.Compose(first), tv.Compose(second), tv.Compose(last)
    return tv.Compose(first + second + last)


def transforms_imagenet_eval(
    img_size: Any = 224, crop_pct: float | None = None, crop_mode: str | None = None,
    crop_border_pixels: int | None = None, interpolation: str = "bilinear",
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN, std: Sequence[float] = IMAGENET_DEFAULT_STD,
    use_prefetcher: bool = False, normalize: bool = True, naflex: bool = False, patch_size: Any = 16,
    max_seq_len: int = 576, patchify: bool = False, patchify_channels_last: bool = True,
    patchify_flatten: bool = True,
) -> tv.Compose:  # fmt: skip
    """Resize by the share of the crop, then the crop; with `naflex` the whole image, as `max_seq_len` patches allow."""
    size, share = to_2tuple(img_size), crop_pct or DEFAULT_CROP_PCT
    scaled = [math.floor(side / share) for side in size]
    mode = str_to_interp_mode(interpolation)
    steps: list[Any] = [TrimBorder(crop_border_pixels)] if crop_border_pixels else []
    if naflex:
        steps.append(ResizeToSequence(patch_size, max_seq_len, interpolation=interpolation))
    elif crop_mode == "squash":
        steps += [tv.Resize(tuple(scaled), mode), tv.CenterCrop(size)]
    elif crop_mode == "border":
        fill = tuple(round(255 * each) for each in mean)
        steps += [ResizeKeepRatio(scaled, longest=1.0, interpolation=interpolation), CenterCropOrPad(size, fill)]
    else:
        square = scaled[0] == scaled[1]
        steps += [tv.Resize(scaled[0], mode) if square else ResizeKeepRatio(scaled, interpolation=interpolation),
                  tv.CenterCrop(size)]  # fmt: skip
    steps += _ending(mean, std, use_prefetcher, normalize)
    return tv.Compose([*steps, *([Patchify(patch_size, patchify_flatten, patchify_channels_last)] if patchify else [])])


def create_transform(
    input_size: Any = 224, is_training: bool = False, no_aug: bool = False, train_crop_mode: str | None = None,
    scale: Any = None, ratio: Any = None, hflip: float = 0.5, vflip: float = 0.0, color_jitter: Any = 0.4,
    color_jitter_prob: float | None = None, grayscale_prob: float = 0.0, gaussian_blur_prob: float = 0.0,
    auto_augment: str | None = None, interpolation: str = "bilinear", mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    std: Sequence[float] = IMAGENET_DEFAULT_STD, re_prob: float = 0.0, re_mode: str = "const", re_count: int = 1,
    re_num_splits: int = 0, crop_pct: float | None = None, crop_mode: str | None = None,
    crop_border_pixels: int | None = None, tf_preprocessing: bool = False, use_prefetcher: bool = False,
    normalize: bool = True, separate: bool = False, naflex: bool = False, patch_size: Any = 16,
    max_seq_len: int = 576, patchify: bool = False, patchify_channels_last: bool = True,
    patchify_flatten: bool = True,
) -> Any:  # fmt: skip
    """A torchvision pipeline from Pillow image to tensor, or to patches, for training or evaluation."""
    if tf_preprocessing:
        raise UsageError("transforms resample as Pillow does here, not as TensorFlow: leave tf_preprocessing out")
    size = tuple(input_size[-2:]) if isinstance(input_size, (tuple, list)) else input_size
    ending: dict[str, Any] = dict(interpolation=interpolation, mean=mean, std=std, use_prefetcher=use_prefetcher,
                                  normalize=normalize)  # fmt: skip
    shared = dict(ending, naflex=naflex, patch_size=patch_size, max_seq_len=max_seq_len, patchify=patchify,
                  patchify_channels_last=patchify_channels_last)  # fmt: skip
    if is_training and no_aug and not (naflex or patchify):
        if separate:
            raise ValueError("without augmentation there is nothing to separate")
        return transforms_noaug_train(size, **ending)
    if is_training and not no_aug:
        return transforms_imagenet_train(
            size, scale, ratio, train_crop_mode, hflip, vflip, color_jitter, color_jitter_prob,
            grayscale_prob=grayscale_prob, gaussian_blur_prob=gaussian_blur_prob, auto_augment=auto_augment,
            re_prob=re_prob, re_mode=re_mode, re_count=re_count, re_num_splits=re_num_splits, separate=separate,
            **shared)  # fmt: skip
    if separate:
        raise UsageError("the steps of an evaluation do not come separate")
    return transforms_imagenet_eval(size, crop_pct, crop_mode, crop_border_pixels, **shared,
                                    patchify_flatten=patchify_flatten)  # fmt: skip

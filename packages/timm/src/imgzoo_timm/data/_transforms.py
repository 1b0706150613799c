"""Transforms of Pillow images, and the pipelines they make."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import transforms as tv
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from imgzoo_data.erasing import Erase, erase_boxes
from imgzoo_data.transforms.picture import Picture
from imgzoo_data.transforms.policies import create_policy
from imgzoo_timm.layers._helpers import to_2tuple

from ._constants import DEFAULT_CROP_PCT, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

MODES = {"nearest": InterpolationMode.NEAREST, "bilinear": InterpolationMode.BILINEAR,
         "bicubic": InterpolationMode.BICUBIC, "box": InterpolationMode.BOX, "hamming": InterpolationMode.HAMMING,
         "lanczos": InterpolationMode.LANCZOS}  # fmt: skip
RANDOM = (InterpolationMode.BILINEAR, InterpolationMode.BICUBIC)


def str_to_interp_mode(mode_str: str) -> InterpolationMode:
    return MODES[mode_str]


def str_to_pil_interp(mode_str: str) -> Any:
    return Image.Resampling[mode_str.upper()]


_pil_interp = str_to_pil_interp


def interp_mode_to_str(mode: Any) -> str:
    return next((name for name, each in MODES.items() if each == mode), str(mode))


class ToNumpy:
    """A Pillow image as an array (C, H, W) of bytes."""

    def __call__(self, pil_img: Any) -> np.ndarray:
        array = np.array(pil_img, dtype=np.uint8)
        return np.moveaxis(array[:, :, None] if array.ndim < 3 else array, 2, 0)


class ToTensor:
    """A Pillow image as a tensor (C, H, W) of its values, not divided by 255."""

    def __init__(self, dtype: torch.dtype = torch.float32):
        self.dtype = dtype

    def __call__(self, pil_img: Any) -> torch.Tensor:
        return F.pil_to_tensor(pil_img).to(dtype=self.dtype)


class MaybeToTensor(tv.ToTensor):
    """Values from 0 to 1, unless it is a tensor already."""

    def __call__(self, pic: Any) -> torch.Tensor:
        return pic if isinstance(pic, torch.Tensor) else F.to_tensor(pic)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class MaybePILToTensor(tv.PILToTensor):
    """Bytes, unless it is a tensor already."""

    def __call__(self, pic: Any) -> torch.Tensor:
        return pic if isinstance(pic, torch.Tensor) else F.pil_to_tensor(pic)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class RandomResizedCropAndInterpolation:
    """A random area of a random aspect, resized to `size` by a method, or one of two drawn at random."""

    def __init__(self, size: Any, scale: Any = (0.08, 1.0), ratio: Any = (3.0 / 4.0, 4.0 / 3.0),
                 interpolation: str = "bilinear"):  # fmt: skip
        self.size, self.scale, self.ratio = to_2tuple(size), scale, ratio
        self.interpolation: Any = RANDOM if interpolation == "random" else str_to_interp_mode(interpolation)

    @staticmethod
    def get_params(img: Any, scale: Any, ratio: Any) -> tuple[int, int, int, int]:
        """Top, left, height and width of a crop."""
        width, height = F.get_image_size(img)
        for _ in range(10):
            area = random.uniform(*scale) * width * height
            aspect = math.exp(random.uniform(math.log(ratio[0]), math.log(ratio[1])))
            w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if w <= width and h <= height:
                return random.randint(0, height - h), random.randint(0, width - w), h, w
        w, h = width, height
        if width / height < min(ratio):
            h = round(w / min(ratio))
        elif width / height > max(ratio):
            w = round(h * max(ratio))
        return (height - h) // 2, (width - w) // 2, h, w

    def __call__(self, img: Any) -> Any:
        box = self.get_params(img, self.scale, self.ratio)
        mode = random.choice(self.interpolation) if isinstance(self.interpolation, tuple) else self.interpolation
        return F.resized_crop(img, *box, list(self.size), mode)

    def __repr__(self) -> str:
        modes = self.interpolation if isinstance(self.interpolation, tuple) else (self.interpolation,)
        scale, ratio = (tuple(round(each, 4) for each in pair) for pair in (self.scale, self.ratio))
        return (f"{type(self).__name__}(size={self.size}, scale={scale}, ratio={ratio}, "
                f"interpolation={' '.join(map(interp_mode_to_str, modes))})")  # fmt: skip


class ResizeKeepRatio:
    """Resize so that the sides cover `size` (`longest` 0) or fit in it (1), or something between."""

    def __init__(self, size: Any, longest: float = 0.0, interpolation: str = "bilinear",
                 random_scale_prob: float = 0.0, random_scale_range: Any = (0.85, 1.05),
                 random_scale_area: bool = False, random_aspect_prob: float = 0.0,
                 random_aspect_range: Any = (0.9, 1.11)):  # fmt: skip
        self.size, self.longest = to_2tuple(size), float(longest)
        self.interpolation: Any = RANDOM if interpolation == "random" else str_to_interp_mode(interpolation)
        self.scales = (random_scale_prob, random_scale_range, random_scale_area)
        self.aspects = (random_aspect_prob, random_aspect_range)

    def __call__(self, img: Any) -> Any:
        width, height = F.get_image_size(img)
        ratios = height / self.size[0], width / self.size[1]
        ratio = max(ratios) * self.longest + min(ratios) * (1.0 - self.longest)
        factors = [1.0, 1.0]
        prob, span, area = self.scales
        if prob > 0 and random.random() < prob:
            factor = random.uniform(*span)
            factors = [1.0 / math.sqrt(factor) if area else factor] * 2
        prob, span = self.aspects
        if prob > 0 and random.random() < prob:
            aspect = math.sqrt(math.exp(random.uniform(math.log(span[0]), math.log(span[1]))))
            factors = [factors[0] / aspect, factors[1] * aspect]
        size = [round(side * factor / ratio) for side, factor in zip((height, width), factors)]
        mode = random.choice(self.interpolation) if isinstance(self.interpolation, tuple) else self.interpolation
        return F.resize(img, size, mode)


class CenterCropOrPad:
    """The middle of an image, padded where it is smaller."""

    def __init__(self, size: Any, fill: Any = 0, padding_mode: str = "constant"):
        self.size, self.fill, self.padding_mode = to_2tuple(size), fill, padding_mode

    def __call__(self, img: Any) -> Any:
        width, height = F.get_image_size(img)
        down, right = max(self.size[0] - height, 0), max(self.size[1] - width, 0)
        if down or right:
            edges = [right // 2, down // 2, right - right // 2, down - down // 2]
            img = F.pad(img, edges, fill=self.fill, padding_mode=self.padding_mode)
        return F.center_crop(img, list(self.size))


class TrimBorder:
    def __init__(self, border_size: int):
        self.border_size = border_size

    def __call__(self, img: Any) -> Any:
        width, height = F.get_image_size(img)
        side = self.border_size
        return F.crop(img, side, side, max(height - 2 * side, 1), max(width - 2 * side, 1))


class RandomErasing:
    """Zero boxes of an image or a batch, or fill them with noise: `const`, `rand` (a color) or `pixel`."""

    def __init__(self, probability: float = 0.5, min_area: float = 0.02, max_area: float = 1 / 3,
                 min_aspect: float = 0.3, max_aspect: float | None = None, mode: str = "const", min_count: int = 1,
                 max_count: int | None = None, num_splits: int = 0, device: Any = "cuda"):  # fmt: skip
        self.probability, self.mode, self.num_splits, self.device = probability, mode or "const", num_splits, device
        self.erase = Erase(p=probability, mode="const", count=(min_count, max_count or min_count),
                           area=(min_area, max_area), aspect=(min_aspect, max_aspect or 1 / min_aspect))  # fmt: skip
        if self.mode not in ("const", "rand", "pixel"):
            raise ValueError(f"the mode is const, rand or pixel, not {mode!r}")

    def __call__(self, input: torch.Tensor) -> torch.Tensor:
        if input.ndim == 3:
            return self._erase(input)
        first = input.shape[0] // self.num_splits if self.num_splits > 1 else 0
        for image in input[first:]:
            self._erase(image)
        return input

    def _erase(self, image: torch.Tensor) -> torch.Tensor:
        for top, left, height, width in erase_boxes(self.erase, drawn(), image.shape[1], image.shape[2]):
            region = image[:, top : top + height, left : left + width]
            shape = region.shape if self.mode == "pixel" else (region.shape[0], 1, 1)
            region.copy_(torch.zeros((), device=image.device) if self.mode == "const" else
                         torch.randn(shape, device=image.device, dtype=image.dtype).expand_as(region))  # fmt: skip
        return image

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p={self.probability}, mode={self.mode}, count={self.erase.count})"


def drawn() -> np.random.Generator:
    """A generator seeded by Python's own, which workers seed apart."""
    return np.random.default_rng(random.getrandbits(63))


class Policy:
    """One of imgzoo's augmentation policies, from Pillow image to Pillow image."""

    def __init__(self, spec: str, hparams: dict[str, Any] | None = None):
        self.policy, given = create_policy(spec), hparams or {}
        mean = tuple(each / 255 for each in given.get("img_mean", (128, 128, 128)))
        mode = given.get("interpolation")
        name = mode.name.lower() if isinstance(mode, Image.Resampling) else "random"
        self.config = SimpleNamespace(mean=mean, interpolation=name)

    def __call__(self, img: Any) -> Any:
        return self.policy(Picture(pil=img), drawn(), self.config).pil

    def __repr__(self) -> str:
        return repr(self.policy)


def rand_augment_transform(config_str: str, hparams: dict[str, Any] | None = None, transforms: Any = None) -> Policy:
    """RandAugment by its string (`rand-m9-mstd0.5-inc1`)."""
    if transforms is not None:
        raise ValueError("name a set of operations in the string (-t increasing), not a list")
    return Policy(config_str, hparams)


def auto_augment_transform(config_str: str, hparams: dict[str, Any] | None = None) -> Policy:
    return Policy(config_str, hparams)


def augment_and_mix_transform(config_str: str, hparams: dict[str, Any] | None = None) -> Policy:
    return Policy(config_str, hparams)


Ending = tuple[Any, ...]


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


def no_patches(*asked: bool) -> None:
    if any(asked):
        raise ValueError("TensorFlow's preprocessing and patches of any shape: see imgzoo.create_transform(sequence=)")


def _crop(size: Any, kind: str, scale: Any, ratio: Any, interpolation: str) -> list[Any]:
    if kind == "rrc":
        scale, ratio = tuple(scale or (0.08, 1.0)), tuple(ratio or (3 / 4, 4 / 3))
        return [RandomResizedCropAndInterpolation(size, scale, ratio, interpolation)]
    if kind not in ("rkrc", "rkrr"):
        raise ValueError(f"train_crop_mode is rrc, rkrc or rkrr, not {kind!r}")
    resize = ResizeKeepRatio(size, interpolation=interpolation, random_scale_prob=0.5,
                             random_scale_range=tuple(scale or (0.8, 1.0)), random_scale_area=True,
                             random_aspect_prob=0.5, random_aspect_range=tuple(ratio or (0.9, 1 / 0.9)))  # fmt: skip
    return [resize, CenterCropOrPad(size) if kind == "rkrc" else tv.RandomCrop(size, pad_if_needed=True)]


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
    """Crop and flips; policy or color; tensor: one `Compose`, or with `separate` one for each of the three."""
    no_patches(naflex, patchify)
    first = _crop(img_size, train_crop_mode or "rrc", scale, ratio, interpolation)
    first += [tv.RandomHorizontalFlip(p=hflip)] if hflip > 0 else []
    first += [tv.RandomVerticalFlip(p=vflip)] if vflip > 0 else []
    second: list[Any] = []
    jitters = color_jitter is not None and color_jitter != 0
    if auto_augment:
        jitters = jitters and (force_color_jitter or "3a" in auto_augment)
        hparams: dict[str, Any] = {"img_mean": tuple(min(255, round(255 * each)) for each in mean)}
        if interpolation != "random":
            hparams["interpolation"] = str_to_pil_interp(interpolation)
        second.append(Policy(auto_augment, hparams))
    if jitters:
        jitter = tv.ColorJitter(*_jitter(color_jitter))
        second.append(jitter if color_jitter_prob is None else tv.RandomApply([jitter], p=color_jitter_prob))
    second += [tv.RandomGrayscale(p=grayscale_prob)] if grayscale_prob else []
    if gaussian_blur_prob:
        second.append(tv.RandomApply([tv.GaussianBlur(kernel_size=23)], p=gaussian_blur_prob))
    last = _ending(mean, std, use_prefetcher, normalize)
    if re_prob > 0 and not use_prefetcher and normalize:
        last.append(RandomErasing(re_prob, mode=re_mode, max_count=re_count, num_splits=re_num_splits, device="cpu"))
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
    """Resize by the share of the crop, then the crop."""
    no_patches(naflex, patchify)
    size, share = to_2tuple(img_size), crop_pct or DEFAULT_CROP_PCT
    scaled = [math.floor(side / share) for side in size]
    mode = str_to_interp_mode(interpolation)
    steps: list[Any] = [TrimBorder(crop_border_pixels)] if crop_border_pixels else []
    if crop_mode == "squash":
        steps += [tv.Resize(tuple(scaled), mode), tv.CenterCrop(size)]
    elif crop_mode == "border":
        fill = tuple(round(255 * each) for each in mean)
        steps += [ResizeKeepRatio(scaled, longest=1.0, interpolation=interpolation), CenterCropOrPad(size, fill)]
    else:
        square = scaled[0] == scaled[1]
        steps += [tv.Resize(scaled[0], mode) if square else ResizeKeepRatio(scaled, interpolation=interpolation),
                  tv.CenterCrop(size)]  # fmt: skip
    return tv.Compose([*steps, *_ending(mean, std, use_prefetcher, normalize)])


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
    """A torchvision pipeline from Pillow image to tensor, for training or evaluation."""
    no_patches(naflex, patchify, tf_preprocessing)
    size = tuple(input_size[-2:]) if isinstance(input_size, (tuple, list)) else input_size
    shared = dict(interpolation=interpolation, mean=mean, std=std, use_prefetcher=use_prefetcher, normalize=normalize)
    if is_training and no_aug:
        if separate:
            raise ValueError("without augmentation there is nothing to separate")
        return transforms_noaug_train(size, **shared)  # type: ignore[arg-type]
    if is_training:
        return transforms_imagenet_train(
            size, scale, ratio, train_crop_mode, hflip, vflip, color_jitter, color_jitter_prob,
            grayscale_prob=grayscale_prob, gaussian_blur_prob=gaussian_blur_prob, auto_augment=auto_augment,
            re_prob=re_prob, re_mode=re_mode, re_count=re_count, re_num_splits=re_num_splits, separate=separate,
            **shared)  # type: ignore[arg-type]  # fmt: skip
    if separate:
        raise ValueError("the steps of an evaluation do not come separate")
    return transforms_imagenet_eval(size, crop_pct, crop_mode, crop_border_pixels, **shared)  # type: ignore[arg-type]

"""Transforms of Pillow images."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import torch
from PIL import Image
from torchvision import transforms as tv
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from imgzoo_data.erasing import Erase, erase_boxes
from imgzoo_timm.layers._helpers import to_2tuple

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


def random_box(img: Any, scale: Any, ratio: Any, attempts: int = 10) -> tuple[int, int, int, int]:
    """Top, left, height and width of a part of a random share and aspect; the middle where none of them fits."""
    width, height = F.get_image_size(img)
    for _ in range(attempts):
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


class RandomResizedCropAndInterpolation:
    """A random area of a random aspect, resized to `size` by a method, or one of two drawn at random."""

    def __init__(self, size: Any, scale: Any = (0.08, 1.0), ratio: Any = (3.0 / 4.0, 4.0 / 3.0),
                 interpolation: str = "bilinear"):  # fmt: skip
        self.size, self.scale, self.ratio = to_2tuple(size), scale, ratio
        self.interpolation: Any = RANDOM if interpolation == "random" else str_to_interp_mode(interpolation)

    @staticmethod
    def get_params(img: Any, scale: Any, ratio: Any) -> tuple[int, int, int, int]:
        """Top, left, height and width of a crop."""
        return random_box(img, scale, ratio)

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

"""Crops that pad where an image is smaller, and targets of several labels."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.transforms import functional as F

from imgzoo_timm.layers._helpers import to_2tuple

from ._transforms import CenterCropOrPad


def crop_or_pad(img: Any, top: int, left: int, height: int, width: int, fill: Any = 0,
                padding_mode: str = "constant") -> Any:  # fmt: skip
    """A part of an image; what lies outside is filled."""
    wide, high = F.get_image_size(img)
    edges = [max(-left, 0), max(-top, 0), max(left + width - wide, 0), max(top + height - high, 0)]
    if any(edges):
        img = F.pad(img, edges, fill=fill, padding_mode=padding_mode)
    return F.crop(img, max(top, 0), max(left, 0), height, width)


def center_crop_or_pad(img: Any, output_size: Any, fill: Any = 0, padding_mode: str = "constant") -> Any:
    """The middle of an image."""
    return CenterCropOrPad(output_size, fill, padding_mode)(img)


class RandomCropOrPad(nn.Module):
    """Some part of an image; a smaller image is put somewhere."""

    def __init__(self, size: Any, fill: Any = 0, padding_mode: str = "constant"):
        super().__init__()
        self.size, self.fill, self.padding_mode = to_2tuple(size), fill, padding_mode

    @staticmethod
    def get_params(img: Any, size: Any) -> tuple[int, int]:
        """Top and left."""
        wide, high = F.get_image_size(img)
        room = (high - size[0], wide - size[1])
        return random.randint(min(room[0], 0), max(room[0], 0)), random.randint(min(room[1], 0), max(room[1], 0))

    def forward(self, img: Any) -> Any:
        top, left = self.get_params(img, self.size)
        return crop_or_pad(img, top, left, self.size[0], self.size[1], self.fill, self.padding_mode)


class RandomPad:
    """An image somewhere on a ground of `input_size` (height, width); a larger one is left as it is."""

    def __init__(self, input_size: Any, fill: Any = 0):
        self.input_size, self.fill = to_2tuple(input_size), fill

    @staticmethod
    def get_params(img: Any, input_size: Any) -> tuple[int, int, int, int]:
        """What is added to the left, above, to the right and below."""
        wide, high = F.get_image_size(img)
        down, right = max(input_size[0] - high, 0), max(input_size[1] - wide, 0)
        left, top = random.randint(0, right), random.randint(0, down)
        return left, top, right - left, down - top

    def __call__(self, img: Any) -> Any:
        return F.pad(img, list(self.get_params(img, self.input_size)), fill=self.fill)


class MultiLabelTarget:
    """Class numbers, or with `dense` a vector of all classes (0 to 1 each), as float (classes)."""

    def __init__(self, num_classes: int, dense: bool = False):
        if num_classes < 1:
            raise ValueError(f"num_classes is at least 1, not {num_classes}")
        self.num_classes, self.dense = num_classes, dense

    def __call__(self, target: Any) -> Tensor:
        found = torch.as_tensor(target)
        if found.ndim != 1:
            raise ValueError("a target of several labels is a row of class numbers, or a vector of all classes")
        if self.dense:
            return self._vector(found.float())
        if len(found) and (found.is_floating_point() or found.dtype == torch.bool):
            raise ValueError("class numbers are whole numbers: give dense=True for a vector of all classes")
        if len(found) and not 0 <= int(found.min()) <= int(found.max()) < self.num_classes:
            raise ValueError(f"class numbers lie in [0, {self.num_classes}), not {found.tolist()}")
        return torch.zeros(self.num_classes).index_fill_(0, found.long(), 1.0)

    def _vector(self, found: Tensor) -> Tensor:
        if len(found) != self.num_classes:
            raise ValueError(f"a vector of {self.num_classes} classes has not {len(found)} entries")
        if not ((found >= 0) & (found <= 1)).all():
            raise ValueError("entries of a vector of all classes lie in [0, 1]")
        return found

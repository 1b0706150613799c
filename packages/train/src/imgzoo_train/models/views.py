"""Several views of an image, whose answers are averaged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from imgzoo.errors import UsageError
from imgzoo_train.models.modes import evaluating
from imgzoo_train.models.parity import first_output

Images = torch.Tensor
PART = 7 / 8
"""Side of a crop among the five, as a share of the image's."""
ZOOMS = (1.0, 0.9, 0.8)


def _flip(images: Images) -> Iterator[Images]:
    yield images
    yield images.flip(-1)


def _five_crops(images: Images) -> Iterator[Images]:
    height, width = (round(side * PART) for side in images.shape[-2:])
    bottom, right = images.shape[-2] - height, images.shape[-1] - width
    for y, x in ((bottom // 2, right // 2), (0, 0), (0, right), (bottom, 0), (bottom, right)):
        yield _enlarged(images[..., y : y + height, x : x + width], images)


def _scales(images: Images) -> Iterator[Images]:
    for zoom in ZOOMS:
        height, width = (round(side * zoom) for side in images.shape[-2:])
        y, x = (images.shape[-2] - height) // 2, (images.shape[-1] - width) // 2
        yield _enlarged(images[..., y : y + height, x : x + width], images)


def _enlarged(part: Images, images: Images) -> Images:
    """A part at the size of the whole."""
    if part.shape == images.shape:
        return images
    return F.interpolate(part, images.shape[-2:], mode="bicubic", antialias=True)


VIEWS: dict[str, tuple[Callable[[Images], Iterator[Images]], str]] = {
    "flip": (_flip, "the image and its mirror image"),
    "five-crops": (_five_crops, "its center and corners, seven eighths of each side, enlarged"),
    "scales": (_scales, "the whole, and its middle 0.9 and 0.8 of each side, enlarged"),
}
"""Name -> views of images (B, C, H, W) at their own size, and what they are."""


def parse_views(text: str | None) -> tuple[str, ...]:
    """`flip,scales` as names of views. Raises `UsageError` for a name that is none of them."""
    names = tuple(dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip()))
    unknown = [name for name in names if name not in VIEWS]
    if unknown:
        known = "; ".join(f"{name}: {what}" for name, (_, what) in VIEWS.items())
        raise UsageError(f"--tta {unknown[0]} is unknown; use any of {known}")
    return names


def views_of(images: Images, names: Sequence[str]) -> Iterator[Images]:
    """Every view of every view: `("flip", "scales")` makes six."""
    if not names:
        yield images
        return
    first, *others = names
    for view in VIEWS[first][0](images):
        yield from views_of(view, others)


class Viewed(nn.Module):
    """The mean of a model's outputs over views of the images."""

    def __init__(self, model: Any, names: Sequence[str]) -> None:
        super().__init__()
        self.names, self.model = tuple(names), model
        self.num_classes, self.pretrained_cfg = model.num_classes, model.pretrained_cfg

    def forward(self, images: Images) -> torch.Tensor:
        """(B, C, H, W) -> (B, classes)."""
        return torch.stack([first_output(self.model(view)) for view in views_of(images, self.names)]).mean(0)


class TestPool(nn.Module):
    """Answers to every window of the trained size in the last map of a larger image, joined: half mean, half maximum.

    Raises `UsageError` for a network without such a map, and for one that takes images of a single size.
    """

    __test__ = False

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.num_classes, self.pretrained_cfg = model, model.num_classes, model.pretrained_cfg
        if hasattr(model, "img_size"):
            raise UsageError(f"--test-pool needs maps of any size, {model.name} is made for one: leave --test-pool out")
        weight = next(model.parameters())
        with evaluating(model), torch.inference_mode():
            trained = torch.zeros(1, *self.pretrained_cfg["input_size"], device=weight.device, dtype=weight.dtype)
            level = self.last_map(trained)
        self.window = tuple(level.shape[2:])

    def last_map(self, images: Images) -> torch.Tensor:
        """(B, C, H, W)."""
        level = self.model.forward_features(images)
        if not isinstance(level, torch.Tensor) or level.ndim != 4:
            raise UsageError(f"--test-pool needs a last map, {self.model.name} has none: leave --test-pool out")
        return level.permute(0, 3, 1, 2) if self.model.channels_last else level

    def forward(self, images: Images) -> torch.Tensor:
        """(B, C, H, W) -> (B, classes)."""
        windows = F.avg_pool2d(self.last_map(images), self.window, 1)
        single = windows.permute(0, 2, 3, 1).flatten(0, 2)[:, :, None, None]
        single = single.permute(0, 2, 3, 1) if self.model.channels_last else single
        answers = self.model.forward_head(single).unflatten(0, (len(images), -1))
        return 0.5 * (answers.mean(1) + answers.amax(1))

"""A contact sheet: what a network will see of a source, version by version."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from .rng import generator
from .sources.base import Source
from .transforms.pipeline import Transform

_GAP, _TEXT = 4, 14


def contact_sheet(
    source: Source, transform: Transform, count: int = 8, views: int = 6, seed: int = 0, epoch: int = 0
) -> Image.Image:
    """Rows of samples spread over the source; columns are augmentations in successive epochs (evaluation: one)."""
    views = views if transform.training else 1
    rows = []
    picked = np.linspace(0, len(source) - 1, min(count, len(source))).round().astype(int)
    for index in dict.fromkeys(picked.tolist()):
        sample = source[index]
        images = [transform.pixels(sample.data, generator(seed, epoch + view, index)) for view in range(views)]
        rows.append((f"{sample.key}  target {_short(sample.target)}", [as_picture(image.numpy()) for image in images]))
    width = max(sum(p.width + _GAP for p in pictures) for _, pictures in rows) + _GAP
    heights = [max(p.height for p in pictures) + _TEXT + _GAP for _, pictures in rows]
    sheet = Image.new("RGB", (max(width, 160), sum(heights) + _GAP), "white")
    draw, top = ImageDraw.Draw(sheet), _GAP
    for (caption, pictures), height in zip(rows, heights):
        draw.text((_GAP, top), caption.encode("ascii", "replace").decode()[: sheet.width // 6], "black")
        left = _GAP
        for picture in pictures:
            sheet.paste(picture, (left, top + _TEXT))
            left += picture.width + _GAP
        top += height
    return sheet


def as_picture(pixels: np.ndarray) -> Image.Image:
    """(C, H, W) uint8 as an image at least 64 pixels high; of other channel counts the first is shown."""
    array = pixels.transpose(1, 2, 0) if len(pixels) == 3 else np.repeat(pixels[0][:, :, None], 3, axis=2)
    image = Image.fromarray(np.ascontiguousarray(array))
    factor = -(-64 // image.height)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _short(target: object) -> str:
    return f"{np.flatnonzero(target).tolist()}" if isinstance(target, np.ndarray) else str(target)

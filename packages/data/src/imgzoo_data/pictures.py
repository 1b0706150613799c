"""Pictures for people: what a network will see of a source, what it was given, and thumbnails."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from imgzoo.errors import DataError

from .decode import decode_image, raw_pixels
from .depth import to_8_bits
from .loader import Loader
from .rng import generator
from .sources.base import Source, StreamSource
from .transforms.pipeline import Transform, as_array
from .transforms.sequences import unpatchify

_GAP, _TEXT = 4, 14


def contact_sheet(
    source: Source, transform: Transform, count: int = 8, views: int = 6, seed: int = 0, epoch: int = 0
) -> Image.Image:
    """Rows of samples spread over the source; columns are augmentations in successive epochs (evaluation: one)."""
    views, transform = views if transform.training else 1, transform.ranged(source.range)
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


def seen(loader: Loader, count: int = 8, epochs: int = 4) -> list[tuple[int, list[np.ndarray]]]:
    """What the network is given of the first `count` samples in so many epochs: (number, [(C, H, W) uint8]) of each.

    That is after everything, erasing and mixing too. The loader stays where it is; of a stream there is nothing.
    """
    if isinstance(loader.source, StreamSource):
        return []
    first, rows = loader.order.batch(0, 0), {}
    for epoch in range(epochs):
        key = first._replace(epoch=epoch, indices=first.indices[:count], views=first.views[:count])
        fetched = loader.fetcher.__getitems__(key)
        if len(fetched.indices):
            images, _, indices = loader.stage(fetched, 0)
            for index, image in zip(indices.tolist(), _shown(images, loader.transform)):
                rows.setdefault(index, []).append(image)
    return list(rows.items())


def _shown(images: Any, transform: Transform) -> list[np.ndarray]:
    """Normalized images (B, C, H, W), or `Patches`, as uint8."""
    mean, std = (
        torch.tensor(each, device="cpu")[:, None, None] for each in (transform.config.mean, transform.config.std)
    )
    if not isinstance(images, torch.Tensor):
        rows = zip(*(part.cpu() for part in images))
        whole = [unpatchify(patches[valid], places[valid], len(mean)) for patches, places, valid in rows]
    else:
        whole = list(images.float().cpu())
    return [((image * std + mean).clamp(0, 1) * 255).round().to(torch.uint8).numpy() for image in whole]


def thumbnail(source: Source, index: int, side: int = 112, channels: int = 3) -> Image.Image | None:
    """A sample as a picture that fits a square of `side` pixels; None where it cannot be read.

    Of an image with another number of channels than is asked for, the first is shown.
    """
    try:
        data = source[index].data
        array = _decoded(data, channels, source.range)
    except (DataError, OSError):
        return None
    array = array if array.shape[2] == 3 else np.repeat(array[:, :, :1], 3, axis=2)
    image = Image.fromarray(array.copy())
    image.thumbnail((side, side))
    return image


def _decoded(data: Any, channels: int, values: tuple[float, float] | None) -> np.ndarray:
    """(H, W, C) uint8 of a sample, in the channels that it has where they cannot be those asked for."""
    try:
        if isinstance(data, bytes | bytearray):
            return decode_image(data, channels, backend="fast", range=values)
        return as_array(data, channels, values=values)
    except DataError:
        stored = raw_pixels(data)
        if stored is None or stored.ndim not in (2, 3) or not stored.size:
            raise
        return to_8_bits(stored if stored.ndim == 3 else stored[:, :, None], values)


def data_uri(image: Image.Image, most: int = 24 * 1024) -> str:
    """An image as WebP for a page, of at most `most` bytes: of lower quality, then smaller, where it has to be."""
    while True:
        for quality in (80, 50, 20):
            file = io.BytesIO()
            image.save(file, "WEBP", quality=quality)
            if file.tell() <= most or max(image.size) < 32:
                return f"data:image/webp;base64,{base64.b64encode(file.getvalue()).decode()}"
        image = image.resize((max(1, image.width // 2), max(1, image.height // 2)))


def as_picture(pixels: np.ndarray) -> Image.Image:
    """(C, H, W) uint8 as an image at least 64 pixels high; of other channel counts the first is shown."""
    array = pixels.transpose(1, 2, 0) if len(pixels) == 3 else np.repeat(pixels[0][:, :, None], 3, axis=2)
    image = Image.fromarray(np.ascontiguousarray(array))
    factor = -(-64 // image.height)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def _short(target: object) -> str:
    return f"{np.flatnonzero(target).tolist()}" if isinstance(target, np.ndarray) else str(target)

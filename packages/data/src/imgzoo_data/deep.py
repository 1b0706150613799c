"""Colors of 16 bits, of which Pillow gives the upper bytes only."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
from PIL import Image

from imgzoo.errors import DataError

from .depth import TWELVE_BITS

COLORS = ("RGB", "RGBA", "LA", "CMYK")
_BITS, _PLANES, _SEPARATE = 258, 284, 2  # tags of a TIFF, and a value of the second
_NATIVE = "16L" if sys.byteorder == "little" else "16B"
_WHITE = 65535
_OTHER = {"16L": "16B", "16B": "16L"}


def deep_colors(image: Image.Image, data: Any) -> np.ndarray | None:
    """(H, W, C) uint16 of a PNG or TIFF of 16-bit colors, opened from `data` as `image`; None for any other image.

    JPEG 2000 is read by its upper bytes. Raises `DataError` where 16 bits are stored in a way that is not read.
    """
    if image.mode not in COLORS:
        return None
    if image.format == "PNG" and bytes(data[24:25]) == b"\x10":
        return _png(data)
    if image.format == "JPEG2000" and _jpeg2000_bits(data) == 16:
        found = 256 * int(np.asarray(image)[:, :, :3].max())
        if found <= TWELVE_BITS:
            raise DataError("16-bit colors of JPEG 2000 that use the lower bytes are not read; save the image as PNG")
    if image.format == "TIFF" and 16 in image.tag_v2.get(_BITS, ()):  # type: ignore[attr-defined]
        return _tiff(image, data)
    return None


def refuse_shallow(image: Image.Image) -> None:
    """Raise `DataError` for an opened image of 16-bit colors: loaded, it has their upper bytes only."""
    if image.mode in COLORS and any(";16" in str(tile.args) for tile in getattr(image, "tile", ())):
        raise DataError("Pillow keeps only the upper bytes of 16-bit colors; give the path or the bytes of the file")


def _jpeg2000_bits(data: Any) -> int:
    """Bits of the first channel, as the SIZ segment of the codestream says; 0 where there is none."""
    head = bytes(memoryview(data)[:4096])
    place = head.find(b"\xff\x4f\xff\x51")
    return (head[place + 42] & 0x7F) + 1 if 0 <= place < len(head) - 42 else 0


def _png(data: Any) -> np.ndarray:
    import torch
    from torchvision.io import ImageReadMode, decode_png

    pixels = decode_png(torch.frombuffer(bytearray(data), dtype=torch.uint8), ImageReadMode.UNCHANGED)
    array = pixels.permute(1, 2, 0).numpy()
    return array[:, :, :1] if array.shape[2] == 2 else array


def _tiff(image: Image.Image, data: Any) -> np.ndarray:
    """Read once as it is, for the upper bytes, and once in the other byte order, for the lower ones."""
    lower = Image.open(io.BytesIO(data), formats=["TIFF"])
    mode, _, order = str(lower.tile[0].args[0]).partition(";")  # type: ignore[index]
    order = _OTHER.get(_NATIVE if order == "16N" else order)
    if order is None or mode == "RGBa" or image.tag_v2.get(_PLANES) == _SEPARATE:  # type: ignore[attr-defined]
        what = "premultiplied alpha" if mode == "RGBa" else "separate planes"
        raise DataError(
            f"the file is a TIFF of 16-bit colors with {what}, which is not read; save it without, or as PNG"
        )
    lower.tile = [tile._replace(args=(f"{mode};{order}", *tile.args[1:])) for tile in lower.tile]  # type: ignore[misc]
    high, low = np.asarray(image).astype(np.uint16), np.asarray(lower)
    array = high << 8 | low
    return _from_inks(array) if image.mode == "CMYK" else array


def _from_inks(array: np.ndarray) -> np.ndarray:
    """(H, W, 4) cyan, magenta, yellow and black -> (H, W, 3) red, green and blue, as Pillow computes it."""
    if 0 < array.max() <= TWELVE_BITS:
        raise DataError(f"16-bit inks of 0 to {array.max()} would be nearly white; save the image as RGB")
    inks = _WHITE - array.astype(np.uint32)
    return (inks[:, :, :3] * inks[:, :, 3:] // _WHITE).astype(np.uint16)

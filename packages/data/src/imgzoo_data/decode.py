"""Encoded bytes to uint8 arrays (H, W, C). The size is read from the header and checked before anything is decoded.

`reference` is Pillow; `exact` gives the same pixels, through simplejpeg where that is bit-identical (a test holds
it); `fast` may also shrink a JPEG while decoding (DCT scaling) by the factor the caller allows.
"""

from __future__ import annotations

import functools
import io
import warnings
from typing import Any, NamedTuple

import numpy as np
import simplejpeg
from PIL import Image, UnidentifiedImageError

from imgzoo.errors import DataError, UsageError

from .deep import deep_colors, refuse_shallow
from .depth import EIGHT_BITS, Observed, observed, parse_range, to_8_bits
from .kinds import HEIC, what_it_is
from .scratch import Scratch

MAX_PIXELS = 64_000_000
MOST_SCANS, MOST_DRAWN = 64, 4_000_000_000
"""Scans of a JPEG above which all their pixels together are limited."""
BACKENDS = ("exact", "fast", "reference")
FORMATS = (
    "PNG", "WEBP", "BMP", "DIB", "GIF", "TIFF", "PPM", "JPEG", "MPO", "JPEG2000", "AVIF", "HEIF", "ICO", "PCX",
    "SGI", "QOI", "PSD", "DDS", "TGA",
)  # fmt: skip
"""Formats of Pillow that are opened: pictures of plain pixels, none that runs a program or only wraps another file."""
_NPY = b"\x93NUMPY"
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SOF_SIMPLE = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive: what libjpeg-turbo decodes at 8 bits
_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_BARE = frozenset((0x01, *range(0xD0, 0xD9)))
_ORIENTATION = 0x0112
_TIFF_BYTES = {1: 1, 3: 2, 4: 4}  # of a value of type BYTE, SHORT, LONG
_BACK = {6: 8, 8: 6}  # the orientation that undoes another; the rest undo themselves


class Header(NamedTuple):
    """What the first bytes of a file say, pixels unread."""

    format: str
    width: int
    height: int
    channels: int
    orientation: int = 1
    """EXIF orientation, 1 to 8."""
    simple: bool = False
    """A JPEG of 8 bits, gray or YCbCr, that simplejpeg decodes to Pillow's pixels."""
    opened: Any = None
    """The image as Pillow opened it, where Pillow read the header: it need not open and decode it twice."""
    turned: bool = False
    """Whether Pillow applies the orientation itself while decoding (TIFF)."""

    @property
    def upright(self) -> tuple[int, int]:
        """(height, width) after the orientation is applied."""
        return (self.width, self.height) if self.orientation >= 5 else (self.height, self.width)


def read_header(data: Any, max_pixels: int = MAX_PIXELS) -> Header:
    """The header of encoded bytes; raises `DataError` for what is no image, or has more than `max_pixels` pixels."""
    view = memoryview(data)
    if not len(view):
        raise DataError("the file is empty")
    if view[:3] == b"\xff\xd8\xff":
        header = _jpeg_header(bytes(data) if not isinstance(data, bytes) else data)
    elif view[:6] == _NPY:
        header = _npy_header(view)
    else:
        header = _pillow_header(data, max_pixels)
    check_size(header.width, header.height, max_pixels)
    return header


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Raise `DataError` for an empty image or one above the pixel limit."""
    if width < 1 or height < 1:
        raise DataError(f"the image is {width}x{height}: it has no pixels")
    if width * height > max_pixels:
        raise DataError(
            f"the image has {width}x{height} pixels, above the limit of {max_pixels}; raise max_pixels (--max-pixels)"
        )


def _jpeg_header(data: bytes) -> Header:
    place, orientation, end = 2, 1, len(data)
    while place + 4 <= end:
        if data[place] != 0xFF:
            place = data.find(b"\xff", place)
            if place < 0:
                break
            continue
        marker = data[place + 1]
        if marker == 0xFF or marker == 0x00:
            place += 1
            continue
        if marker in _BARE:
            place += 2
            continue
        length = int.from_bytes(data[place + 2 : place + 4], "big")
        if marker in _SOF:
            return _frame_header(data, place, marker, orientation)
        if marker == 0xDA or marker == 0xD9 or length < 2:
            break
        if marker == 0xE1 and data[place + 4 : place + 10] == b"Exif\0\0":
            orientation = _exif_orientation(data[place + 10 : place + 2 + length])
        place += 2 + length
    raise DataError("the JPEG ends before its size is told")


def _frame_header(data: bytes, place: int, marker: int, orientation: int) -> Header:
    frame = data[place + 4 : place + 10]
    if len(frame) < 6:
        raise DataError("the JPEG ends before its size is told")
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    scans = data.count(b"\xff\xda") if marker in _PROGRESSIVE else 1  # pixels never hold these two bytes
    if scans > MOST_SCANS and scans * width * height > MOST_DRAWN:
        raise DataError(f"the JPEG draws its {width}x{height} pixels {scans} times over, more than any program writes")
    simple = marker in _SOF_SIMPLE and frame[0] == 8 and frame[5] in (1, 3)
    return Header("JPEG", width, height, frame[5], orientation, simple)


def _exif_orientation(tiff: bytes) -> int:
    order = {b"II": "little", b"MM": "big"}.get(tiff[:2])
    if order is None or len(tiff) < 10:
        return 1
    start = int.from_bytes(tiff[4:8], order)  # type: ignore[arg-type]
    count = int.from_bytes(tiff[start : start + 2], order)  # type: ignore[arg-type]
    for entry in range(start + 2, min(start + 2 + 12 * count, len(tiff) - 11), 12):
        if int.from_bytes(tiff[entry : entry + 2], order) == _ORIENTATION:  # type: ignore[arg-type]
            kind = int.from_bytes(tiff[entry + 2 : entry + 4], order)  # type: ignore[arg-type]
            width = _TIFF_BYTES.get(kind, 2)
            value = int.from_bytes(tiff[entry + 8 : entry + 8 + width], order)  # type: ignore[arg-type]
            return value if 1 <= value <= 8 else 1
    return 1


def _npy_header(view: memoryview) -> Header:
    file = io.BytesIO(view[:4096])
    try:
        version = np.lib.format.read_magic(file)
        reader = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
        shape, _, dtype = reader(file)
    except (ValueError, KeyError, EOFError, SyntaxError) as error:
        raise DataError(f"the .npy header is damaged: {error}") from error
    if dtype.hasobject or dtype.kind not in "uif" or len(shape) not in (2, 3):
        raise DataError(f"the .npy holds {dtype} {shape}; an image is numbers of shape (H, W) or (H, W, C)")
    if file.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize > len(view):
        raise DataError("the .npy is shorter than its header says")
    return Header("NPY", int(shape[1]), int(shape[0]), int(shape[2]) if len(shape) == 3 else 1)


@functools.cache
def _formats() -> tuple[str, ...]:
    """The formats that this Pillow can open, of those taken here; HEIC where its library is installed."""
    Image.init()
    try:
        import pillow_heif  # pyright: ignore[reportMissingImports]

        pillow_heif.register_heif_opener()
    except ModuleNotFoundError:
        pass
    return tuple(name for name in FORMATS if name in Image.OPEN)


def open_pillow(data: Any) -> Image.Image:
    """Open encoded bytes with Pillow, its formats limited and its warnings and odd errors turned into `DataError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Image.open(io.BytesIO(data), formats=_formats())
    except Image.DecompressionBombError as error:
        raise DataError("the image has more pixels than Pillow opens, above the limit of any max_pixels") from error
    except UnidentifiedImageError as error:
        raise DataError(_unopened(bytes(memoryview(data)[:4096]))) from error
    except Exception as error:
        raise DataError(f"the image cannot be opened: {_say(error)}") from error


def _unopened(head: bytes) -> str:
    """Why bytes that no opener takes are no image here."""
    kind = what_it_is(head)
    if kind == HEIC and "HEIF" not in _formats():
        return "the file is HEIC, which needs a library: pip install 'imgzoo-data[heic]'"
    if kind.startswith("an image"):
        return f"the file is {kind}, which is not read; convert it"
    if kind in FORMATS or kind == HEIC:
        return f"the file begins as {kind} and is damaged, or this Pillow was built without {kind}"
    return f"the file is {kind}, not an image"


def _pillow_header(data: Any, max_pixels: int) -> Header:
    image = open_pillow(data)
    check_size(image.width, image.height, max_pixels)  # before the EXIF block, which a PNG may hold after its pixels
    try:
        orientation = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # a damaged EXIF block does not make the pixels unreadable
        orientation = 1
    orientation = orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1
    width, height, turned = image.width, image.height, image.format == "TIFF" and orientation > 1
    if turned and orientation >= 5:
        width, height = height, width
    channels = len(image.getbands())
    return Header(image.format or "", width, height, channels, orientation, opened=image, turned=turned)


def decode_image(
    data: Any,
    channels: int = 3,
    *,
    backend: str = "exact",
    header: Header | None = None,
    shrink: int = 1,
    orient: bool = True,
    max_pixels: int = MAX_PIXELS,
    range: Any = None,
    reuse: bool = False,
) -> np.ndarray:
    """Decode bytes to a uint8 array (H, W, channels), upright.

    Args:
        channels: 3 is RGB, 1 is gray; any other number is what the file itself must have (`.npy`, TIFF).
        shrink: 1, 2, 4 or 8, used by the `fast` backend on JPEG only: the array is that much smaller, rounded up.
        orient: apply the EXIF orientation.
        range: the values of black and white, `4095` or (0, 255), of images that use others than their type's.
        reuse: the array may lie in a buffer that the next call overwrites.

    Raises:
        DataError: not an image, damaged, above the pixel limit, of another number of channels, or of values that
            contradict the range.
    """
    if backend not in BACKENDS:
        raise UsageError(f"decoder '{backend}' is unknown; use one of {', '.join(BACKENDS)}")
    header = header or read_header(data, max_pixels)
    values = None if range is None else parse_range(range)
    if header.format == "NPY":
        array = to_uint8(_load_npy(data), channels, values)
    elif header.simple and backend != "reference" and channels in (1, 3):
        luma = channels == 1 and (backend == "fast" or header.channels == 1)  # else gray is computed, as Pillow does
        array = _decode_jpeg(data, header, 1 if luma else 3, shrink if backend == "fast" else 1, reuse)
        array = to_uint8(array, channels)
    else:
        image = header.opened or open_pillow(data)
        array = _decode_pillow(image, channels, values, data)
        if header.turned:
            return array if orient else turn_upright(array, _BACK.get(header.orientation, header.orientation))
    return turn_upright(array, header.orientation) if orient else array


_scratch = Scratch()


def _decode_jpeg(data: Any, header: Header, channels: int, shrink: int, reuse: bool) -> np.ndarray:
    height, width = (-(-header.height // shrink), -(-header.width // shrink)) if shrink > 1 else (0, 0)
    size = (height or header.height) * (width or header.width) * channels
    try:
        return simplejpeg.decode_jpeg(
            data,
            "RGB" if channels == 3 else "GRAY",
            fastdct=False,
            fastupsample=False,
            min_height=height,
            min_width=width,
            min_factor=shrink,
            buffer=_scratch.of(size) if reuse else None,
        )
    except (ValueError, OverflowError):  # what it finds damaged, Pillow judges: some of it is readable
        return _decode_pillow(open_pillow(data), channels)


def _decode_pillow(
    image: Image.Image, channels: int, values: tuple[float, float] | None = None, data: Any = None
) -> np.ndarray:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if channels not in (1, 3) and getattr(image, "n_frames", 1) > 1:
                return _stack_frames(image, channels, values)
            deep = None if data is None else deep_colors(image, data)
            return pillow_to_array(image, channels, values) if deep is None else to_uint8(deep, channels, values)
    except (DataError, UsageError):
        raise
    except Exception as error:
        raise DataError(f"the image is damaged: {_say(error)}") from error


def _stack_frames(image: Image.Image, channels: int, values: tuple[float, float] | None) -> np.ndarray:
    """A TIFF of one page a channel: (H, W, pages)."""
    if getattr(image, "n_frames", 1) != channels:
        raise DataError(f"the image has {getattr(image, 'n_frames', 1)} pages; the network takes {channels} channels")
    pages = []
    for page in range(channels):
        image.seek(page)
        check_size(image.width, image.height, MAX_PIXELS)
        pages.append(np.asarray(image))
    return to_uint8(np.stack(pages, axis=2), channels, values)


def pillow_to_array(image: Image.Image, channels: int, values: tuple[float, float] | None = None) -> np.ndarray:
    """A Pillow image of any mode as (H, W, channels) uint8; `values` are those of black and white."""
    refuse_shallow(image)
    if image.mode.startswith("I") or image.mode == "F":
        return to_uint8(_numbers(image), channels, values)
    if channels == 1 and image.mode != "L":
        image = image.convert("L")
    elif channels == 3 and image.mode != "RGB":
        image = image.convert("RGB")
    return to_uint8(np.asarray(image), channels, values)


def _numbers(image: Image.Image) -> np.ndarray:
    """The numbers of an image of mode I, I;16 or F; 16-bit files that Pillow widens are 16-bit again."""
    array = np.asarray(image)
    wide = image.format == "PNG" and array.dtype == np.int32
    return array.astype(np.uint16) if wide else array


def raw_pixels(data: Any, most: int = MAX_PIXELS) -> np.ndarray | None:
    """The values of an image as stored, encoded or not; None where it is sure to have 8 bits, or has above `most`
    pixels.
    """
    if isinstance(data, np.ndarray):
        return data
    if hasattr(data, "numpy"):
        return data.numpy()
    if isinstance(data, Image.Image):
        refuse_shallow(data)
        image = data
    else:
        header = read_header(data)
        if header.format == "JPEG" or header.width * header.height > most:
            return None
        if header.format == "NPY":
            return _load_npy(data)
        image = header.opened
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            deep = None if isinstance(data, Image.Image) else deep_colors(image, data)
            if deep is not None:
                return deep[:, :, :3]  # an alpha says nothing of the colors
            plain = image.mode in ("L", "RGB", "F") or image.mode.startswith("I")
            return _numbers(image) if plain else None
    except Exception as error:
        raise DataError(f"the image is damaged: {_say(error)}") from error


def _load_npy(data: Any) -> np.ndarray:
    try:
        return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise DataError(f"the .npy is damaged: {_say(error)}") from error


class ChannelError(DataError):
    """The image has other channels than the network takes."""

    def __init__(self, have: int, channels: int):
        super().__init__(f"the image has {have} channels; the network takes {channels}")
        self.have = have


def to_uint8(array: np.ndarray, channels: int, values: tuple[float, float] | None = None) -> np.ndarray:
    """(H, W) or (H, W, C) of any number type as (H, W, channels) uint8; `values` are those of black and white.

    See `depth` for the range taken otherwise. Gray becomes RGB by repetition, RGB(A) becomes gray by the ITU-R 601-2
    luma that Pillow uses.
    """
    if array.ndim == 2:
        array = array[:, :, None]
    have = array.shape[2]
    if channels == 3 and have == 4:
        array = array[:, :, :3]
        have = 3
    array = to_8_bits(array, values)
    if have == channels:
        return array
    if have == 1 and channels == 3:
        return np.repeat(array, 3, axis=2)
    if channels == 1 and have in (3, 4):
        return np.asarray(Image.fromarray(np.ascontiguousarray(array[:, :, :3])).convert("L"))[:, :, None]
    raise ChannelError(have, channels)


def turn_upright(array: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation (1 to 8) to (H, W, C); a view, not a copy."""
    if orientation >= 5:
        array = array.transpose(1, 0, 2)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def _say(error: BaseException) -> str:
    text = str(error).replace("\n", " ").strip()
    return text[:200] or type(error).__name__


def has_frames(data: Any) -> bool:
    """Whether encoded bytes hold more pictures than the one that is read: an animation, the pages of a TIFF."""
    if not isinstance(data, bytes | bytearray | memoryview):
        return False
    try:
        with Image.open(io.BytesIO(data), formats=("GIF", "PNG", "TIFF", "WEBP")) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # whatever a library finds in a file that is none of these, or is damaged
        return False


def observe(data: Any) -> Observed:
    """The values of an image as stored: encoded bytes, an array, a Pillow image or a tensor; `DataError` for a bad
    one.
    """
    array = raw_pixels(data, 4_000_000)
    if array is None or not array.size:
        return Observed(EIGHT_BITS, 0, 255)
    return observed(array)

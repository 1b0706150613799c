"""Small images, folders and tars made for tests."""

import io
import struct
import tarfile
import zlib
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data as photos

PHOTO_NAMES = ("astronaut", "chelsea", "coffee", "rocket", "cat", "retina")


def photo(number: int = 0, size: tuple[int, int] | None = None) -> Image.Image:
    """A real photograph, RGB, optionally resized to (width, height)."""
    image = Image.fromarray(getattr(photos, PHOTO_NAMES[number % len(PHOTO_NAMES)])()).convert("RGB")
    return image.resize(size, Image.Resampling.BICUBIC) if size else image


def encode(image: Image.Image, kind: str = "JPEG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **({"quality": 90} if kind == "JPEG" else {}), **options)
    return file.getvalue()


def noise(seed: int, size: tuple[int, int] = (40, 30), kind: str = "JPEG") -> bytes:
    """A small image of blocks, its encoding different for each seed."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (5, 5, 3), np.uint8)
    return encode(Image.fromarray(blocks).resize(size, Image.Resampling.BILINEAR), kind)


def write_folder(root: Path, classes: dict[str, int], kind: str = "JPEG") -> None:
    """`classes`: folder name -> number of images."""
    seed = 0
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            (root / name / f"{number}.{kind.lower().replace('jpeg', 'jpg')}").write_bytes(noise(seed, kind=kind))
            seed += 1


def tar_bytes(files: dict[str, bytes], kind: int = tarfile.PAX_FORMAT) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=kind) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.type = len(content), tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def deep_png(array: np.ndarray, kind: int = 2) -> bytes:
    """A PNG of 16-bit colors, which Pillow cannot write: (H, W, C) uint16; `kind` is the PNG's color type."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in array)
    head = struct.pack(">IIBBBBB", array.shape[1], array.shape[0], 16, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def deep_tiff(
    array: np.ndarray,
    order: str = "<",
    photometric: int = 2,
    *,
    planar: int = 1,
    packed: bool = False,
    extra: int | None = None,
) -> bytes:
    """A TIFF of 16-bit colors: (H, W, C) uint16, in the byte order `<` or `>`, in planes, deflated, with a channel of
    the kind `extra` after the colors.
    """
    height, width, channels = array.shape
    stored = array.astype(f"{order}u2")
    parts = [stored.tobytes()] if planar == 1 else [stored[:, :, place].tobytes() for place in range(channels)]
    parts = [zlib.compress(part) for part in parts] if packed else parts
    places = [8 + sum(len(part) for part in parts[:number]) for number in range(len(parts))]
    short, long, compression = "H", "I", 8 if packed else 1
    tags = {
        256: (long, [width]), 257: (long, [height]), 258: (short, [16] * channels), 259: (short, [compression]),
        262: (short, [photometric]), 273: (long, places), 277: (short, [channels]), 278: (long, [height]),
        279: (long, [len(part) for part in parts]), 284: (short, [planar]),
    }  # fmt: skip
    if extra is not None:
        tags[338] = (short, [extra])
    start = 8 + sum(map(len, parts))
    entries, tail, after = b"", b"", start + 2 + 12 * len(tags) + 4
    for tag, (kind, values) in tags.items():
        raw = struct.pack(f"{order}{len(values)}{kind}", *values)
        entries += struct.pack(f"{order}HHI", tag, 3 if kind == short else 4, len(values))
        entries += raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack(f"{order}I", after + len(tail))
        tail += raw if len(raw) > 4 else b""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", start)
    directory = struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)
    return head + b"".join(parts) + directory + tail

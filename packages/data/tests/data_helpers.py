"""Small images, folders and tars made for tests."""

import io
import tarfile
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
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()

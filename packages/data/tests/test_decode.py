"""Decoding: headers checked first, fast and exact equal, odd inputs and hostile ones."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from data_helpers import encode, noise, photo
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imgzoo.errors import DataError, UsageError
from imgzoo_data import create_transform, decode_image, read_header
from imgzoo_data.decode import to_uint8

RGB = photo(1, (333, 251))
JPEGS = {
    "baseline": {},
    "progressive": {"progressive": True},
    "optimized": {"optimize": True},
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "quality 30": {"quality": 30},
}


def save(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", **{"quality": 90, **options})
    return file.getvalue()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", JPEGS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_fast_and_exact_decode_to_pillows_pixels(name, mode, channels):
    if mode == "L" and name.startswith("4"):
        pytest.skip("gray has no chroma")
    data = save(RGB.convert(mode), **JPEGS[name])
    pillow = np.asarray(Image.open(io.BytesIO(data)).convert("RGB" if channels == 3 else "L"))
    reference = decode_image(data, channels, backend="reference")
    assert (reference.squeeze() == pillow).all()
    assert (decode_image(data, channels, backend="exact") == reference).all()
    fast = decode_image(data, channels, backend="fast")
    assert fast.shape == reference.shape
    if (mode, channels) == ("RGB", 1):  # the file's own luma, not that of its upsampled colors
        assert np.abs(fast.astype(int) - reference).mean() < 1
    else:
        assert (fast == reference).all()


def test_cmyk_is_within_one():
    data = save(RGB.convert("CMYK"))
    assert read_header(data).channels == 4
    a, b = (decode_image(data, 3, backend=k).astype(int) for k in ("fast", "reference"))
    assert np.abs(a - b).max() <= 1


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_shrinking_gives_the_rounded_up_size_and_nearly_the_picture(factor):
    data = save(RGB)
    small = decode_image(data, 3, backend="fast", shrink=factor)
    assert small.shape[:2] == (-(-251 // factor), -(-333 // factor))
    box = RGB.resize((small.shape[1], small.shape[0]), Image.Resampling.BOX)
    assert np.abs(small.astype(int) - np.asarray(box)).mean() < 6
    assert decode_image(data, 3, backend="exact", shrink=factor).shape[:2] == (251, 333)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_orientation(orientation, kind):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encode(photo(0, (64, 40)), kind, exif=exif)
    assert read_header(data).orientation == orientation
    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    assert (decode_image(data, 3) == wanted).all()
    assert read_header(data).upright == wanted.shape[:2]
    assert decode_image(data, 3, orient=False).shape == (40, 64, 3)


def test_the_crop_sees_the_upright_picture():
    exif = Image.Exif()
    exif[0x0112] = 6
    image = photo(2, (640, 480))
    data, plain = encode(image, "PNG", exif=exif), encode(image.transpose(Image.Transpose.ROTATE_270), "PNG")
    transform = create_transform(input_size=(3, 64, 64))
    assert (transform(data) == transform(plain)).all()


def png(width, height):
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


def lying_jpeg():
    data = bytearray(save(RGB))
    place = data.index(b"\xff\xc0")
    data[place + 5 : place + 9] = b"\xff\xdc\xff\xdc"
    return bytes(data)


@pytest.mark.parametrize("data", [png(13000, 13000), png(60000, 60000), lying_jpeg()], ids=["png", "huge png", "jpeg"])
@pytest.mark.parametrize("backend", ["exact", "fast", "reference"])
def test_bombs_are_refused_from_their_header(data, backend):
    with pytest.raises(DataError, match="above the limit"):
        decode_image(data, 3, backend=backend)


@pytest.mark.parametrize("backend", ["exact", "fast", "reference"])
def test_a_jpeg_that_draws_its_pixels_over_and_over_is_refused(backend):
    """A file of 140 KB would keep a decoder busy for minutes: each of its scans touches every pixel."""
    out = io.BytesIO()
    Image.new("RGB", (2000, 2000)).save(out, "JPEG", progressive=True, quality=5)
    data = out.getvalue()
    assert decode_image(data, backend=backend).shape == (2000, 2000, 3)
    last = data[data.rindex(b"\xff\xda") : -2]
    bomb = data[:-2] + last * 1000 + data[-2:]
    started = time.process_time()
    with pytest.raises(DataError, match="draws its 2000x2000 pixels"):
        decode_image(bomb, backend=backend)
    assert time.process_time() - started < 1


def test_the_limit_can_be_raised_and_lowered():
    data = save(RGB)
    with pytest.raises(DataError, match="above the limit of 1000"):
        create_transform(max_pixels=1000)(data)
    assert create_transform(max_pixels=333 * 251)(data).shape == (3, 224, 224)


@pytest.mark.parametrize(
    "data", [b"", b"\xff\xd8\xff", b"text", noise(0)[:200], encode(RGB, "PNG")[:5000], b"\x93NUMPY\x01\x00"]
)
def test_what_is_no_image_is_a_data_error(data):
    with pytest.raises(DataError):
        decode_image(data, 3)


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"]), st.data())
def test_damaged_files_give_an_image_or_a_data_error(kind, data):
    content = bytearray(noise(3, kind=kind))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    for backend in ("fast", "reference"):
        try:
            array = decode_image(content, 3, backend=backend, max_pixels=1_000_000)
        except DataError:
            continue
        assert array.ndim == 3 and array.shape[2] == 3 and array.dtype == np.uint8


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=300))
def test_any_bytes_give_an_image_or_a_data_error(content):
    for head in (b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"\x93NUMPY", b"II*\0"):
        try:
            decode_image(head + content, 3, max_pixels=1_000_000)
        except DataError:
            continue


def test_sixteen_bit_gray_keeps_its_upper_bits():
    deep = (np.arange(40 * 30, dtype=np.uint16) * 54).reshape(30, 40)
    for kind in ("PNG", "TIFF"):
        data = encode(Image.fromarray(deep), kind)
        assert (decode_image(data, 1)[:, :, 0] == deep >> 8).all()
        assert (decode_image(data, 3)[:, :, 2] == deep >> 8).all()


def npy(array):
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def test_many_channels_from_npy_and_from_tiff_pages():
    array = np.random.default_rng(0).integers(0, 256, (30, 40, 7), np.uint8)
    assert (decode_image(npy(array), 7) == array).all()
    assert create_transform(input_size=(7, 16, 16), mean=0.5, std=0.5)(npy(array)).shape == (7, 16, 16)
    pages = [Image.fromarray(np.ascontiguousarray(array[:, :, i])) for i in range(5)]
    data = encode(pages[0], "TIFF", save_all=True, append_images=pages[1:])
    assert (decode_image(data, 5) == array[:, :, :5]).all()
    with pytest.raises(DataError, match="7 channels; the network takes 3"):
        decode_image(npy(array), 3)


def test_npy_with_objects_is_never_unpickled():
    with pytest.raises(DataError, match="numbers of shape"):
        decode_image(npy(np.array([[print]], object)), 1)


def test_an_npy_that_promises_more_than_it_holds():
    data = npy(np.zeros((4, 4), np.uint8)).replace(b"(4, 4)", b"(4, 9)")
    with pytest.raises(DataError, match="shorter"):
        decode_image(data, 1)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "YCbCr", "I", "F"])
def test_every_pillow_mode_is_taken(mode):
    image = photo(4, (50, 40)).convert("L" if mode in "IF" else "RGB").convert(mode)
    if mode == "F":
        image = image.point(lambda v: v / 255)
    for channels in (1, 3):
        pixels = create_transform(input_size=(channels, 40, 40), crop_pct=1.0).pixels(image)
        assert pixels.shape == (channels, 40, 40) and pixels.max() > 128


def test_number_types():
    assert to_uint8(np.array([[0.0, 0.5, 1.0]]), 1).ravel().tolist() == [0, 128, 255]
    assert to_uint8(np.array([[True, False]]), 1).ravel().tolist() == [255, 0]
    assert to_uint8(np.array([[0, 255]], np.int64), 1).ravel().tolist() == [0, 255]
    with pytest.raises(DataError, match="not supported"):
        to_uint8(np.array([[1j]]), 1)


def test_an_unknown_backend():
    with pytest.raises(UsageError, match="reference"):
        decode_image(noise(0), 3, backend="cv2")

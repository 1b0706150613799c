"""Values of black and white, orientation, and what is no image: right pixels or one sentence."""

import io
import warnings

import numpy as np
import pytest
import torch
from data_helpers import deep_png, deep_tiff, encode, noise, photo, write_folder
from PIL import Image

from imgzoo.errors import DataError, OptionError
from imgzoo_data import create_dataset, create_loader, create_transform, decode_image, read_header, resolve_data_config
from imgzoo_data.decode import FORMATS, _formats, observe
from imgzoo_data.depth import Observed, contradiction, parse_range
from imgzoo_data.kinds import what_it_is
from imgzoo_data.sources.base import IMAGE_EXTENSIONS

GRAY = np.tile(np.linspace(0, 255, 30), (20, 1))


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


DEEP = {
    "12-bit PNG": (lambda: encode(Image.fromarray((GRAY * 16).astype("uint16")), "PNG"), "4095"),
    "12-bit TIFF": (lambda: encode(Image.fromarray((GRAY * 16).astype("uint16")), "TIFF"), "4095"),
    "12-bit color PNG": (lambda: deep_png(np.repeat((GRAY * 16).astype("uint16")[:, :, None], 3, 2)), "4095"),
    "12-bit color TIFF": (lambda: deep_tiff(np.repeat((GRAY * 16).astype("uint16")[:, :, None], 3, 2)), "4095"),
    "10-bit npy": (lambda: npy((GRAY * 4).astype("uint16")), "1023"),
    "float TIFF 0..255": (lambda: encode(Image.fromarray(GRAY.astype("float32")), "TIFF"), "255"),
    "float npy 0..255": (lambda: npy(GRAY.astype("float64")), "255"),
    "big-endian npy 0..255": (lambda: npy(GRAY.astype(">u2")), "255"),
    "uint16 npy 0..255": (lambda: npy(GRAY.astype("uint16")), "255"),
    "int32 npy 0..4080": (lambda: npy((GRAY * 16).astype("int32")), "4095"),
}


@pytest.mark.parametrize("name", DEEP)
def test_values_that_contradict_their_type_are_refused_and_read_by_their_range(name):
    make, white = DEEP[name]
    with pytest.raises(DataError, match=rf"pass range={white} \(--range {white}\)"):
        decode_image(make(), 3)
    pixels = decode_image(make(), 3, range=white)
    assert abs(pixels.mean() - 127) < 2 and len(np.unique(pixels)) == 30
    transform = create_transform(input_size=(3, 20, 20), crop_pct=1.0, range=white)
    assert abs(transform.pixels(make()).float().mean() - 127) < 3


def test_the_usual_values_need_no_range():
    for array in (GRAY.astype("uint8"), (GRAY * 257).astype("uint16"), GRAY / 255, GRAY.astype("int64")):
        assert abs(decode_image(npy(array), 1).mean() - 127) < 1
    color = np.repeat((GRAY * 257).astype("uint16")[:, :, None], 3, 2)
    assert (decode_image(deep_png(color), 3) == color >> 8).all()
    assert decode_image(npy(np.zeros((3, 3), np.uint16)), 1).max() == 0


PNG_COLORS = {"gray": (0, 1), "gray and alpha": (4, 2), "RGB": (2, 3), "RGBA": (6, 4)}
TIFF_COLORS = {"gray": (1, 1, None), "RGB": (2, 3, None), "RGBA": (2, 4, 2), "RGB and more": (2, 4, 0)}


def shades(channels, most=65536):
    return np.random.default_rng(channels).integers(0, most, (20, 30, channels)).astype(np.uint16)


def twelve_bits_are_seen(write, array):
    """12 bits in 16 are refused, or read by their range, and observed by `describe`."""
    with pytest.raises(DataError, match="range=4095"):
        decode_image(write(array), 3)
    wanted = (array[:, :, : 3 if array.shape[2] > 2 else 1].astype(float) * (255 / 4095) + 0.5).astype(np.uint8)
    assert (decode_image(write(array), 3, range=4095) == wanted).all()
    if array.shape[2] == 4:
        array[:, :, 3] = 65535
    assert observe(write(array)).kind == "16-bit" and 4000 < observe(write(array)).high <= 4095


@pytest.mark.parametrize("name", PNG_COLORS)
def test_every_16_bit_png_is_read_whole(name):
    kind, channels = PNG_COLORS[name]
    array = shades(channels)
    first = array[:, :, : 3 if channels > 2 else 1] >> 8
    assert (decode_image(deep_png(array, kind), 3) == first).all()
    twelve_bits_are_seen(lambda array: deep_png(array, kind), shades(channels, 4096))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", TIFF_COLORS)
def test_every_16_bit_tiff_is_read_whole(name, packed, order):
    photometric, channels, extra = TIFF_COLORS[name]

    def write(array):
        return deep_tiff(array, order, photometric, packed=packed, extra=extra)

    array = shades(channels)
    assert (decode_image(write(array), 3) == array[:, :, :3] >> 8).all()
    twelve_bits_are_seen(write, shades(channels, 4096))


@pytest.mark.parametrize("write", [deep_png, deep_tiff])
def test_an_opened_image_of_16_bit_colors_is_refused(write):
    transform = create_transform(input_size=(3, 20, 20))
    with pytest.raises(DataError, match="give the path or the bytes"):
        transform(Image.open(io.BytesIO(write(shades(3)))))
    gray = encode(Image.fromarray((GRAY * 16).astype("uint16")), "PNG")
    assert transform.pixels(Image.open(io.BytesIO(encode(photo(0), "PNG")))).shape == (3, 20, 20)
    with pytest.raises(DataError, match="range=4095"):
        transform(Image.open(io.BytesIO(gray)))


@pytest.mark.parametrize("packed", [False, True])
def test_a_16_bit_tiff_that_is_not_read_says_why(packed):
    for options, words in (({"planar": 2}, "separate planes"), ({"extra": 1}, "premultiplied alpha")):
        channels = 4 if "extra" in options else 3
        with pytest.raises(DataError, match=words):
            decode_image(deep_tiff(shades(channels), packed=packed, **options), 3)
    inks = shades(4)
    eight = Image.fromarray((inks >> 8).astype(np.uint8), "CMYK").convert("RGB")
    found = decode_image(deep_tiff(inks, photometric=5, packed=packed), 3)
    assert np.abs(found.astype(int) - np.asarray(eight)).max() <= 2
    with pytest.raises(DataError, match="nearly white; save the image as RGB"):
        decode_image(deep_tiff(shades(4, 4096), photometric=5, packed=packed), 3)


def test_colors_of_jpeg_2000_are_read_by_their_upper_bytes_or_refused():
    from imgzoo_data.deep import _jpeg2000_bits, deep_colors

    data = bytearray(encode(Image.fromarray(shades(3, 256).astype(np.uint8)), "JPEG2000"))
    assert _jpeg2000_bits(data) == 8 and deep_colors(Image.open(io.BytesIO(data)), data) is None
    start = data.index(b"\xff\x51") + 40
    data[start], data[start + 3], data[start + 6] = 15, 15, 15
    assert _jpeg2000_bits(data) == 16 and decode_image(bytes(data), 3).max() == 128  # 32768 and a bit
    dark = Image.new("RGB", (30, 20), (9, 15, 3))
    dark.format = "JPEG2000"
    with pytest.raises(DataError, match="JPEG 2000 that use the lower bytes"):
        deep_colors(dark, data)


def test_values_outside_the_declared_range_are_refused():
    with pytest.raises(DataError, match="outside the declared range 0 to 1023; pass range=4095"):
        decode_image(npy((GRAY * 16).astype("uint16")), 1, range=1023)
    with pytest.raises(DataError, match="range=-1,1"):
        decode_image(npy(GRAY / 127.5 - 1), 1)
    assert abs(decode_image(npy(GRAY / 127.5 - 1), 1, range="-1,1").mean() - 127) < 1
    assert decode_image(noise(0), 3, range=4095).max() > 100  # 8 bits are what they are


@pytest.mark.parametrize("value", ["", "a", "1,2,3", "5,5", "9,1", "inf", [1, 2, 3], None])
def test_ranges_that_are_none(value):
    with pytest.raises(OptionError, match="black and white"):
        parse_range(value)


def test_a_declared_range_goes_with_the_source_and_with_the_model(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.npy").write_bytes(npy((GRAY * 16).astype("uint16")))
    source = create_dataset(f"folder:{tmp_path}?range=4095")
    loader = create_loader(source, create_transform(input_size=(3, 16, 16), crop_pct=1.0), 2, normalize=False)
    assert abs(next(iter(loader)).images.float().mean() - 127) < 4
    config = resolve_data_config({"range": [0, 4095]})
    assert config.range == (0, 4095) and config.to_dict()["range"] == (0, 4095)
    assert "range" not in resolve_data_config(None).to_dict()


def test_a_dark_image_among_others_of_16_bits_is_no_riddle(tmp_path):
    from imgzoo_data import open_splits

    for split in ("train", "val"):
        for number, scale in enumerate((257, 10)):
            folder = tmp_path / split / "ab"[number]
            folder.mkdir(parents=True)
            (folder / "0.npy").write_bytes(npy((GRAY * scale + (split == "val")).astype("uint16")))
    splits = open_splits(f"folder:{tmp_path}")
    assert splits.train.range == (0, 65535)
    loader = create_loader(splits.train, create_transform(input_size=(1, 16, 16)), 2)
    assert len(next(iter(loader)).images) == 2


def test_values_of_14_bits_are_said_to_be_dark(tmp_path):
    def notes(most, **options):
        (tmp_path / "0.npy").write_bytes(npy((GRAY / GRAY.max() * most).astype("uint16")))
        return create_dataset(f"folder:{tmp_path}?labels=false", **options).describe().notes

    assert [note for note in notes(16383) if "--range 16383" in note]
    assert not [note for note in notes(16383, range="16383") + notes(30000) if "dark" in note]


def test_a_declared_range_is_not_said_of_images_that_have_8_bits(tmp_path):
    Image.fromarray(GRAY.astype("uint8")).save(tmp_path / "0.png")
    source = create_dataset(f"folder:{tmp_path}?labels=false&range=4095")
    assert "declared" not in source.describe().values
    assert decode_image(source[0].data, 1, range=source.range).max() == GRAY.max()
    (tmp_path / "1.npy").write_bytes(npy((GRAY * 16).astype("uint16")))
    assert "declared as 0 and 4095" in create_dataset(f"folder:{tmp_path}?labels=false&range=4095").describe().values


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["TIFF", "PNG", "JPEG", "AVIF"])
def test_every_orientation_is_applied_once(kind, orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[0x0112] = orientation
    image = photo(1, (60, 40))
    lossless = {"quality": 100, "subsampling": "4:4:4"} if kind == "AVIF" else {}
    data = encode(image, kind, exif=exif, **lossless)
    stored = np.asarray(image.convert("RGB"))
    plain = Image.fromarray(stored)
    plain.getexif()[0x0112] = orientation
    wanted = np.asarray(ImageOps.exif_transpose(plain))
    found = decode_image(data, 3)
    assert found.shape == wanted.shape == (*read_header(data).upright, 3)
    assert np.abs(found.astype(int) - wanted).mean() < 6
    assert np.abs(decode_image(data, 3, orient=False).astype(int) - stored).mean() < 6
    exact = create_transform(input_size=(3, *wanted.shape[:2]), crop_pct=1.0).pixels(data).permute(1, 2, 0)
    assert np.abs(exact.numpy().astype(int) - wanted).mean() < 6


@pytest.mark.parametrize("order", ["<", ">"])
def test_an_orientation_stored_as_a_long(order):
    import struct

    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    entry = struct.pack(order + "HHII", 0x0112, 4, 1, 6)
    block = b"Exif\0\0" + head + struct.pack(order + "H", 1) + entry + bytes(4)
    plain = encode(photo(0, (40, 20)))
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + plain[2:]
    assert read_header(data).orientation == 6 and decode_image(data, 3).shape == (40, 20, 3)


@pytest.mark.parametrize("kind", ["AVIF", "JPEG2000", "WEBP", "ICO", "PCX", "SGI", "QOI", "DDS", "TGA", "DIB", "PPM"])
def test_formats_that_pillow_opens_are_decoded(kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        data = encode(Image.new("RGB", (40, 32), (200, 20, 20)), kind)
    pixels = decode_image(data, 3)
    assert pixels.shape[2] == 3 and pixels[..., 0].mean() > 150 > 60 > pixels[..., 1].mean()


def test_every_ending_of_an_image_has_an_opener():
    known = Image.registered_extensions() | {".heic": "HEIF", ".heif": "HEIF", ".npy": "NPY"}
    own = {"MPO", "HEIF", "NPY"}  # an MPO is opened as JPEG
    assert {ending: known[ending] for ending in IMAGE_EXTENSIONS if known[ending] not in {*_formats(), *own}} == {}
    assert set(FORMATS) >= {"AVIF", "JPEG2000"} and not {"EPS", "PDF", "WMF"} & set(FORMATS)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"<html>404</html>", "HTML"),
        (b"<!DOCTYPE html><p>", "HTML"),
        (b'{"error": 1}', "JSON"),
        (b"hello there", "text"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "git lfs pull"),
        (b"PK\x03\x04" + bytes(40), "zip archive"),
        (b"\x1f\x8b" + bytes(40), "gzip"),
        (b"%PDF-1.7", "PDF"),
        (b"\0\0\0\x18ftypmp42" + bytes(40), "video"),
        (b"<svg xmlns='x'/>", "SVG, which is not read"),
        (b"\xff\x0a" + bytes(40), "JPEG XL, which is not read"),
        (bytes(128) + b"DICM" + bytes(40), "DICOM"),
        (bytes(500), "zeros"),
        (b"\0\0\0\x20ftypavif" + bytes(40), "begins as AVIF and is damaged"),
        (b"\x01\x02\x03\x88" * 9, "unknown kind"),
    ],
)
def test_what_is_no_image_says_what_it_is(data, words):
    with pytest.raises(DataError, match=words):
        decode_image(data, 3)


def test_heic_says_what_to_install(monkeypatch):
    import sys

    from imgzoo_data import decode

    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    decode._formats.cache_clear()
    for brand in (b"heic", b"mif1", b"hevc"):
        with pytest.raises(DataError, match=r"HEIC.*pip install 'imgzoo-data\[heic\]'"):
            decode_image(b"\0\0\0\x20ftyp" + brand + bytes(40), 3)
    decode._formats.cache_clear()
    assert what_it_is(b"\0\0\0\x20ftypheic") == "HEIC"


def test_a_transform_outside_the_loader_draws_from_torch_and_is_normalized():
    data = encode(photo(2, (90, 70)))
    for options in ({}, {"auto_augment": "rand-m9-mstd0.5"}, {"erase": 1.0, "erase_mode": "pixel"}):
        transform = create_transform(training=True, input_size=(3, 48, 48), **options)
        first, second = transform(data), transform(data)
        assert first.dtype == torch.float32 and not torch.equal(first, second)
        torch.manual_seed(3)
        third = transform(data)
        torch.manual_seed(3)
        assert torch.equal(third, transform(data))
    plain = create_transform(input_size=(3, 48, 48))
    before = torch.get_rng_state()
    pixels = plain.pixels(data).float() / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (plain.config.mean, plain.config.std))
    assert torch.allclose(plain(Image.open(io.BytesIO(data))), (pixels - mean) / std, atol=1e-6)
    assert torch.equal(before, torch.get_rng_state())  # nothing random, nothing drawn


def test_a_transform_serves_torch_data_sets_in_workers(tmp_path):
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder

    write_folder(tmp_path, {"a": 4, "b": 4})
    images = ImageFolder(str(tmp_path), transform=create_transform(training=True, input_size=(3, 16, 16)))
    batches = [next(iter(DataLoader(images, 8, num_workers=workers)))[0] for workers in (0, 1)]
    assert batches[0].dtype == torch.float32 and batches[0].min() < 0 and not torch.equal(*batches)


@pytest.mark.parametrize("high", [1234564, 2**30 + 1, 16777217])
@pytest.mark.parametrize("low", [0, -1.0000001])
def test_a_range_that_is_advised_holds_the_pixels(low, high):
    """Six digits of a greatest value may lie below it: the advice would be refused with itself."""
    seen = [Observed("integer", low, high)]
    advised = contradiction(seen, None).rpartition("--range ")[2].strip(")")
    assert contradiction(seen, parse_range(advised)) == ""


@pytest.mark.parametrize("ending", ["gif", "png", "tif", "webp"])
def test_frames_that_are_not_read_are_said(tmp_path, ending):
    write_folder(tmp_path, {"a": 1, "b": 1}, "PNG")
    assert not any("frames" in note for note in create_dataset(f"folder:{tmp_path}").describe().notes)
    frames = [photo(seed, (12, 10)) for seed in range(3)]
    frames[0].save(tmp_path / "a" / f"more.{ending}", save_all=True, append_images=frames[1:])
    notes = create_dataset(f"folder:{tmp_path}").describe().notes
    assert f"files with several frames or pages, as 'a/more.{ending}': the first is read" in notes

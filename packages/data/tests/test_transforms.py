"""Transforms: rows that can be written down, geometry, and exactness against Pillow."""

import itertools

import numpy as np
import pytest
import torch
from data_helpers import encode, noise, photo
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from imgzoo.errors import DataError, ImgzooError, OptionError, UnknownNameError, UsageError
from imgzoo_data import DataConfig, create_transform, resolve_data_config
from imgzoo_data.rng import generator
from imgzoo_data.transforms import compiled
from imgzoo_data.transforms.crops import RandomResizedCrop
from imgzoo_data.transforms.pipeline import parse_row
from imgzoo_data.transforms.resample import Crop, resample
from imgzoo_data.transforms.sequences import fit_grid, patchify

PHOTO = np.asarray(photo(2, (480, 360)))


def test_a_row_is_written_and_read_back():
    transform = create_transform(
        training=True,
        scale=(0.3, 1.0),
        vflip=0.2,
        auto_augment="rand-m7-n3-mstd0.5-inc1",
        force_color_jitter=True,
        color_jitter=(0.1, 0.2, 0.3, 0.05),
        grayscale_prob=0.1,
        blur_prob=0.2,
    )
    again = create_transform(training=True, row=str(transform))
    assert str(again) == str(transform) and again.steps == transform.steps and again.crop == transform.crop
    data = noise(0, (100, 80))
    assert torch.equal(transform(data, generator(1, 2, 3)), again(data, generator(1, 2, 3)))


def test_policies_stand_in_a_row_as_themselves():
    steps = parse_row("rrc | hflip(p=0.3) | rand-m9-mstd0.5-inc1 | 3a | augmix-m3")
    assert [type(s).__name__ for s in steps[1:]] == ["HorizontalFlip", "RandAugment", "AutoAugment", "AugMix"]


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        ("rrc | nothing", UnknownNameError, "nothing"),
        ("rrc(skale=1)", OptionError, "scale"),
        ("rrc(scale=open('x'))", UsageError, "plain values"),
        ("rrc | 1 + 1", UsageError, "not a name"),
        ("rrc(", UsageError, "cannot be read"),
        ("hflip | rrc", UsageError, "begin with a crop"),
        ("rrc | rand-q9", UsageError, "section 'q9'"),
        ("rrc | rand-m", UsageError, "section 'm'"),
        ("rrc(scale=(0, 1))", UsageError, "scale"),
    ],
)
def test_wrong_rows_say_what_is_wrong(row, error, message):
    with pytest.raises(error, match=message):
        create_transform(row=row, training=True)


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 4000), st.integers(1, 4000), st.integers(0, 1000))
def test_random_crops_lie_inside(height, width, index):
    top, left, h, w = RandomResizedCrop().box(height, width, generator(0, 0, index))
    assert 0 <= top <= top + h <= height and 0 <= left <= left + w <= width and h > 0 and w > 0


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 90),
    st.integers(1, 90),
    st.sampled_from(
        ["rrc", "rkr", "rkr(random=True)", "eval", "eval(mode='squash')", "eval(mode='border')", "eval(trim=3)"]
    ),
    st.sampled_from(["bilinear", "bicubic", "lanczos", "nearest", "random"]),
    st.sampled_from(["exact", "fast", "reference"]),
)
def test_every_crop_of_any_image_has_the_target_size(height, width, crop, interpolation, decode):
    transform = create_transform(
        row=crop, training=True, input_size=(3, 33, 20), interpolation=interpolation, decode=decode
    )
    array = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    assert transform(array, generator(0, 0, 7)).shape == (3, 33, 20)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(224, 224), (160, 200), (420, 420)])
def test_exact_is_pillow_throughout(mode, interpolation, size):
    data = encode(photo(1, (500, 375)))
    config = {"crop_mode": mode, "interpolation": interpolation, "input_size": (3, *size)}
    exact, reference = (create_transform(**config, decode=d)(data).int() for d in ("exact", "reference"))
    assert torch.equal(exact, reference)


@pytest.mark.skipif(compiled._compiled() is None, reason="needs a C compiler")
@settings(deadline=None, max_examples=300)
@given(
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.tuples(st.integers(1, 300), st.integers(1, 300)),
    st.tuples(*[st.floats(0, 1)] * 4),
    st.sampled_from(list(compiled.FILTERS)),
    st.integers(0, 2**32 - 1),
    st.booleans(),
)
def test_the_compiled_gives_pillows_pixels(source, size, part, interpolation, seed, saturated):
    array = np.random.default_rng(seed).integers(0, 256, (source[0] + 2, source[1] + 3, 3), np.uint8)
    array = (array // 128 * 255 if saturated else array)[1:-1, 1:-2]
    start = int(part[0] * (size[0] - 1)), int(part[1] * (size[1] - 1))
    stop = (
        start[0] + 1 + int(part[2] * (size[0] - start[0] - 1)),
        start[1] + 1 + int(part[3] * (size[1] - start[1] - 1)),
    )
    ours = compiled.resize(array, size, start, stop, interpolation)
    if ours is None:  # Pillow's turn
        assert source[1] not in compiled.WIDTHS or compiled.columns_first(source, size)
        return
    method = Image.Resampling[interpolation.upper()]
    whole = np.asarray(Image.fromarray(np.ascontiguousarray(array)).resize(size[::-1], method)).transpose(2, 0, 1)
    assert (ours.numpy() == whole[:, start[0] : stop[0], start[1] : stop[1]]).all()


@pytest.mark.parametrize("shape", [(8, 70_000, 3), (70_000, 8, 3), (1, 1, 3), (3, 40_000, 3), (6, 6, 3)])
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_images_of_any_shape_are_resized(shape, mode):
    smooth = np.sin(np.arange(shape[0])[:, None, None] / 9) + np.cos(np.arange(shape[1])[:, None] / 7) + np.arange(3)
    array = (50 + 30 * smooth).astype(np.uint8)
    config = {"crop_mode": mode, "input_size": (3, 48, 40)}
    exact, reference = (create_transform(**config, decode=d).pixels(array).int() for d in ("exact", "reference"))
    assert exact.shape == (3, 48, 40) and torch.equal(exact, reference)


@pytest.mark.parametrize("size", [(224, 224), (420, 420), (64, 96)])
def test_exact_needs_no_compiler(size, monkeypatch):
    data = encode(photo(3, (500, 375)))
    transform = create_transform(input_size=(3, *size), decode="exact")
    with_it = transform.pixels(data)
    monkeypatch.setattr(compiled, "_compiled", lambda: None)
    assert torch.equal(transform.pixels(data), with_it)


@settings(deadline=None, max_examples=200)
@given(
    st.tuples(st.integers(1, 60), st.integers(1, 60)), st.tuples(st.integers(1, 90), st.integers(1, 90)),
    st.tuples(st.integers(0, 89), st.integers(0, 89)), st.sampled_from(["nearest", *compiled.FILTERS]),
    st.sampled_from(["exact", "pillow"]), st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_a_window_is_a_full_resize_and_a_cut(source, size, offset, interpolation, engine, seed):
    """Whatever is seen of it, and in which order Pillow resizes: rounding must not depend on the window."""
    array = np.random.default_rng(seed).integers(0, 256, (*source, 3), np.uint8)
    offset = tuple(min(a, b - 1) for a, b in zip(offset, size))
    target = tuple(b - a for a, b in zip(offset, size))
    ours = resample(array, Crop((0, 0, *source), size, interpolation, target, offset), engine)
    method = Image.Resampling[interpolation.upper()]
    full = np.asarray(Image.fromarray(array).resize(size[::-1], method)).transpose(2, 0, 1)
    assert (ours.numpy() == full[:, offset[0] :, offset[1] :]).all()


def test_shrunk_decoding_happens_only_where_the_crop_is_twice_the_target():
    assert [Crop((0, 0, s, s), (100, 100), "bilinear").shrink() for s in (100, 199, 200, 399, 400, 800, 5000)] == [
        1, 1, 2, 2, 4, 8, 8,
    ]  # fmt: skip


@pytest.mark.parametrize("index", range(8))
def test_fast_and_exact_show_the_same_part_of_a_large_photo(index):
    data = encode(photo(index, (1600, 1200)))
    fast, exact = (
        create_transform(training=True, decode=d, hflip=0.0)(data, generator(3, 0, index)).float()
        for d in ("fast", "exact")
    )
    assert (fast - exact).abs().mean() < 4


def test_random_erasing_boxes_and_the_clean_split():
    from imgzoo_data.erasing import Erase, erase_batch, erase_boxes

    erase = Erase(1.0, "const", (2, 2))
    boxes = erase_boxes(erase, generator(0, 0), 100, 80)
    assert len(boxes) == 2
    assert all(t >= 0 and t + h <= 100 and left >= 0 and left + w <= 80 for t, left, h, w in boxes)
    images = torch.ones(4, 3, 50, 50)
    erase_batch(images, erase, 0, 0, [1, 2, 1, 2], [0, 0, 65536, 65536], first=2)
    assert images[:2].min() == 1 and images[2:].amin(dim=(1, 2, 3)).max() == 0
    for mode, distinct in (("rand", 2), ("pixel", 100)):
        images = torch.ones(1, 3, 50, 50)
        erase_batch(images, Erase(1.0, mode), 0, 0, [1], [0])
        assert len(images[0, 0].unique()) >= distinct


def test_splits_share_the_crop_and_differ_in_color():
    from imgzoo_data import create_dataset, create_loader

    transform = create_transform(
        row="rrc | hflip | jitter(0.9, 0.9, 0.9)", training=True, splits=3, input_size=(3, 16, 16)
    )
    batch = next(iter(create_loader(create_dataset("digits:"), transform, 8)))
    clean, first, second = batch.images.chunk(3)
    assert batch.indices.chunk(3)[0].tolist() == batch.indices.chunk(3)[2].tolist()
    assert batch.targets.chunk(3)[0].tolist() == batch.targets.chunk(3)[1].tolist()
    assert not torch.equal(first, second) and not torch.equal(clean, first)


def test_resolve_data_config():
    cfg = {
        "input_size": (3, 256, 256),
        "test_input_size": (3, 288, 288),
        "crop_pct": 0.9,
        "test_crop_pct": 1.0,
        "mean": (0.5,) * 3,
    }
    assert resolve_data_config(cfg).input_size == (3, 256, 256)
    assert resolve_data_config(cfg, use_test_size=True) == DataConfig((3, 288, 288), (0.5,) * 3, crop_pct=1.0)
    assert resolve_data_config(cfg, img_size=96, crop_pct=None).input_size == (3, 96, 96)
    gray = resolve_data_config(None, in_chans=1)
    assert gray.input_size == (1, 224, 224) and gray.mean == (pytest.approx(0.449, abs=1e-3),)
    assert resolve_data_config(gray) == gray
    with pytest.raises(OptionError, match="crop_pct"):
        resolve_data_config(cfg, croppct=1)
    for wrong in ({"interpolation": "cubic"}, {"crop_mode": "middle"}, {"crop_pct": 0}, {"mean": (1, 2)}):
        with pytest.raises(UsageError):
            resolve_data_config(cfg, **wrong)


def test_the_config_of_a_model():
    class Model:
        pretrained_cfg = {"input_size": (3, 64, 64), "std": (0.5, 0.5, 0.5), "architecture": "x"}

    assert resolve_data_config(Model()).std == (0.5, 0.5, 0.5)
    with pytest.raises(UsageError, match="pretrained_cfg"):
        resolve_data_config(object())


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 5000), st.integers(1, 5000), st.sampled_from([8, 14, 16, 32]), st.integers(1, 1200))
def test_grids_fit_and_nearly_fill_the_length(height, width, patch, length):
    rows, columns = fit_grid(height, width, patch, length)
    assert 1 <= rows * columns <= length
    if max(height, width) / min(height, width) < 4 and length >= 64:
        assert rows * columns >= 0.7 * length
        assert abs(np.log(rows / columns * width / height)) < 0.5


@pytest.mark.parametrize(("size", "length", "grid"), [((90, 120), 333, (15, 20)), ((5.625, 7.5), 333, (15, 20)),
                                                      ((48, 64), 13, (3, 4))])  # fmt: skip
def test_sides_that_grow_at_once_keep_the_aspect(size, length, grid):
    assert fit_grid(*size, 16 if size[0] > 6 else 1, length) == grid


def test_patches_are_the_image():
    image = torch.arange(3 * 8 * 12, dtype=torch.int16).view(3, 8, 12)
    patches, places = patchify(image, 4)
    assert patches.shape == (6, 48) and places.tolist() == list(map(list, itertools.product(range(2), range(3))))
    for patch, (row, column) in zip(patches, places):
        part = image[:, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
        assert torch.equal(patch.view(4, 4, 3), part.permute(1, 2, 0))


def test_what_is_not_an_image():
    for data in ("text", 3, np.zeros((2, 2, 2, 2), np.uint8)):
        with pytest.raises(DataError, match="not an image"):
            create_transform()(data)


def test_the_table_of_augmentations_is_that_of_create_transform():
    import inspect

    from imgzoo_data.augmentations import AUGMENTATIONS

    others = {"config", "training", "augment", "crop_border", "sequence", "max_pixels", "orient", "overrides"}
    assert set(AUGMENTATIONS) == set(inspect.signature(create_transform).parameters) - others
    samples = {str: "rrc | hflip", float: 0.5, int: 2, bool: True}
    for name, (kind, text) in AUGMENTATIONS.items():
        value = [0.5, 0.9] if kind == list[float] else kind[-1] if isinstance(kind, tuple) else samples[kind]
        value = {"auto_augment": "3a", "color_jitter": [0.4], "erase_mode": "rand"}.get(name, value)
        assert text and create_transform(training=True, **{name: value})


@pytest.mark.parametrize(
    "options",
    [{"hflip": 2}, {"vflip": -1}, {"erase": 1.5}, {"blur_prob": 7}, {"grayscale_prob": float("nan")}, {"splits": 0},
     {"max_pixels": 0}, {"color_jitter_prob": 2}, {"erase_count": 0}, {"color_jitter": "strong"},
     {"scale": (2.0, 3.0)}],
)  # fmt: skip
def test_senseless_augmentations_are_refused(options):
    with pytest.raises(UsageError, match=next(iter(options))):
        create_transform(training=True, **options)


SENSELESS = {
    float: [-1.0, 2.0, 50.0, float("nan")],
    list[float]: [[-0.5], [3.0, 1.0], [-1.0, 2.0], [float("nan")], [0.1] * 3, [0.1] * 5],
    int: [-1, 0, 50],
    str: ["nope"],
}


def test_any_value_of_an_augmentation_works_or_is_refused():
    from imgzoo_data.augmentations import AUGMENTATIONS

    image = np.zeros((20, 20, 3), np.uint8)
    for name, (kind, _) in AUGMENTATIONS.items():
        for value in () if kind is bool else SENSELESS.get(kind, ["nope"]):
            try:
                transform = create_transform({"input_size": (3, 16, 16)}, training=True, **{name: value})
            except ImgzooError:
                continue
            assert transform.pixels(image) is not None

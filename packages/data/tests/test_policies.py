"""Policies and pixel operations: equal to Pillow's at every magnitude, drawn as their strings say."""

import math
from collections import Counter

import numpy as np
import pytest
from data_helpers import photo
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from scipy import stats

from imgzoo.errors import UsageError
from imgzoo_data.config import DataConfig
from imgzoo_data.rng import generator
from imgzoo_data.transforms import ops
from imgzoo_data.transforms.color import ColorJitter, shift_hue
from imgzoo_data.transforms.picture import Picture
from imgzoo_data.transforms.policies import AUGMIX_OPS, POLICIES, SETS, AugMix, AutoAugment, RandAugment, create_policy

IMAGE = photo(1, (96, 80))
PLACE = ops.Place((124, 116, 104), Image.Resampling.BICUBIC)


def affine(matrix):
    return IMAGE.transform(IMAGE.size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC, fillcolor=PLACE.fill)


def masked(bits):
    return Image.fromarray(np.asarray(IMAGE) & np.uint8(255 << (8 - bits) & 255))


def added(value):
    pixels = np.asarray(IMAGE).astype(int)
    return Image.fromarray(np.where(pixels < 128, np.minimum(255, pixels + value), pixels).astype(np.uint8))


PILLOW = {
    ops.autocontrast: (lambda v: ImageOps.autocontrast(IMAGE), [0]),
    ops.equalize: (lambda v: ImageOps.equalize(IMAGE), [0]),
    ops.invert: (lambda v: ImageOps.invert(IMAGE), [0]),
    ops.posterize: (masked, range(9)),
    ops.solarize: (lambda v: ImageOps.solarize(IMAGE, v), [0, 1, 77, 128, 255, 256]),
    ops.solarize_add: (added, [0, 55, 110]),
    ops.color: (lambda v: ImageEnhance.Color(IMAGE).enhance(v), [0, 0.1, 0.9, 1, 1.9]),
    ops.contrast: (lambda v: ImageEnhance.Contrast(IMAGE).enhance(v), [0, 0.1, 0.9, 1, 1.3, 1.9]),
    ops.brightness: (lambda v: ImageEnhance.Brightness(IMAGE).enhance(v), [0, 0.1, 0.9, 1, 1.3, 1.9]),
    ops.sharpness: (lambda v: ImageEnhance.Sharpness(IMAGE).enhance(v), [0, 0.1, 0.9, 1, 1.9]),
    ops.desaturate: (lambda v: ImageEnhance.Color(IMAGE).enhance(1 - v), [0, 0.5, 1]),
    ops.gaussian_blur: (lambda v: IMAGE.filter(ImageFilter.GaussianBlur(v)), [0.1, 1.0, 2.0]),
    ops.rotate: (lambda v: IMAGE.rotate(v, Image.Resampling.BICUBIC, fillcolor=PLACE.fill), [-30, 0, 7, 30]),
    ops.shear_x: (lambda v: affine((1, v, 0, 0, 1, 0)), [-0.3, 0, 0.1, 0.3]),
    ops.shear_y: (lambda v: affine((1, 0, 0, v, 1, 0)), [-0.3, 0, 0.1, 0.3]),
    ops.translate_x: (lambda v: affine((1, 0, v, 0, 1, 0)), [-43.2, 0, 10, 250]),
    ops.translate_y: (lambda v: affine((1, 0, 0, 0, 1, v)), [-43.2, 0, 10, 250]),
    ops.translate_x_share: (lambda v: affine((1, 0, v * 96, 0, 1, 0)), [-0.45, 0.2]),
    ops.translate_y_share: (lambda v: affine((1, 0, 0, 0, 1, v * 80)), [-0.45, 0.2]),
}


@pytest.mark.parametrize("function", PILLOW, ids=lambda f: f.__name__)
def test_operations_equal_pillows_within_one(function):
    wanted, values = PILLOW[function]
    for value in values:
        ours = np.asarray(function(IMAGE, value, PLACE)).astype(int)
        assert np.abs(ours - np.asarray(wanted(value))).max() <= 1, value


@pytest.mark.parametrize("name", ops.OPS)
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_every_operation_works_at_both_ends_of_its_range(name, mode):
    op, image = ops.OPS[name], IMAGE.convert(mode)
    for magnitude in (0.0, 2.0, 5.0, 10.0):
        for index in range(2):
            result = op.function(image, op.value(magnitude, generator(0, 0, index)), PLACE)
            assert result.size == image.size and result.mode == mode


@pytest.mark.parametrize(
    ("name", "values"),
    {
        "Posterize": [0, 2, 4],
        "PosterizeIncreasing": [4, 2, 0],
        "PosterizeOriginal": [4, 6, 8],
        "Solarize": [0, 128, 256],
        "SolarizeIncreasing": [256, 128, 0],
        "SolarizeAdd": [0, 55, 110],
        "Color": [0.1, 1.0, 1.9],
        "Desaturate": [0.5, 0.75, 1.0],
        "GaussianBlur": [0.1, 1.05, 2.0],
    }.items(),
)
def test_what_a_magnitude_means(name, values):
    found = [ops.OPS[name].value(m, generator(0, 0)) for m in (0, 5, 10)]
    assert found == pytest.approx(values)


@pytest.mark.parametrize(
    ("name", "span"), {"Rotate": 30, "ShearX": 0.3, "TranslateXRel": 0.45, "ColorIncreasing": 0.9}.items()
)
def test_signed_operations_go_both_ways(name, span):
    middle = 1.0 if name.endswith("Increasing") else 0.0
    values = {ops.OPS[name].value(10, generator(0, 0, i)) for i in range(40)}
    assert sorted(values) == pytest.approx([middle - span, middle + span])


def test_the_string_of_randaugment():
    policy = RandAugment("rand-m5-n3-p0.2-mstd1-mmax6-inc1")
    assert (policy.count, policy.prob, policy.strength.magnitude, policy.strength.std, policy.strength.most) == (
        3,
        0.2,
        5,
        1,
        6,
    )
    assert "ColorIncreasing" in policy.names and "Color" not in policy.names
    assert RandAugment("rand-m5-mstd101").strength.std == math.inf
    assert RandAugment("rand-m5-t3a").names == ("SolarizeIncreasing", "Desaturate", "GaussianBlur")
    with pytest.raises(UsageError, match="no set of operations 'x'"):
        RandAugment("rand-m5-tx")


def drawn(policy, count=4000):
    return [pair for i in range(count) for pair in policy.draw(generator(0, 0, i))]


def test_randaugment_draws_operations_evenly_and_magnitudes_around_m():
    pairs = drawn(RandAugment("rand-m9-n2-mstd0.5"))
    counts = Counter(name for name, _ in pairs)
    assert set(counts) == set(SETS["default"])
    assert stats.chisquare(list(counts.values())).pvalue > 1e-4
    assert len(pairs) == pytest.approx(4000, abs=200)
    magnitudes = np.array([m for _, m in pairs])
    assert magnitudes.max() <= 10 and magnitudes.mean() == pytest.approx(9, abs=0.05)


def test_weighted_operations_follow_their_weights():
    policy = RandAugment("rand-m9-n1-p1-tweights")
    counts = Counter(name for name, _ in drawn(policy, 8000))
    expected = [8000 * w for w in policy.weights]
    assert stats.chisquare([counts[n] for n in policy.names], expected).pvalue > 1e-4


@pytest.mark.parametrize("name", POLICIES)
def test_autoaugment_tables(name):
    policy = AutoAugment(f"{name}-mstd0.5")
    assert len(policy.table) == (3 if name == "3a" else 25)
    assert all(op in ops.OPS and 0 <= p <= 1 and 0 <= m <= 10 for row in policy.table for op, p, m in row)
    assert policy.strength.std == 0.5


@pytest.mark.parametrize("spec", ["augmix-m3", "augmix-m5-w4-d2-a1-b1-mstd1", "augmix-m10-w2-d-1"])
def test_augmix_strings_and_results(spec):
    policy = create_policy(spec)
    assert isinstance(policy, AugMix) and policy.depth == (2 if "d2" in spec else -1)
    assert "Invert" not in AUGMIX_OPS
    results = [policy(Picture(pil=IMAGE), generator(0, 0, i), DataConfig()).pil for i in range(6)]
    assert all(r.size == IMAGE.size for r in results)
    assert len({r.tobytes() for r in results}) == 6


def test_augmix_blended_has_the_weights_of_the_sum(monkeypatch):
    flat = [Image.new("RGB", (4, 4), color) for color in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    weights, share, results = np.array([0.5, 0.3, 0.2]), 0.6, []
    for mix in (AugMix._sum, AugMix._blend):
        chains = iter(flat)
        monkeypatch.setattr(AugMix, "_chain", lambda self, image, rng, config, chains=chains: next(chains))
        mixed = mix(AugMix(), Image.new("RGB", (4, 4)), weights, share, generator(0, 0), DataConfig())
        results.append(np.asarray(mixed).astype(int))
    assert np.abs(results[0] - results[1]).max() <= 4
    assert np.abs(results[0][0, 0] - 200 * share * weights).max() <= 3


def test_jitter_factors_and_their_order():
    draws = [ColorJitter(0.4, 0.2, (0.5, 1.5), 0.1).draw(generator(0, 0, i)) for i in range(3000)]
    factors = {
        name: np.array([f for row in draws for n, f in row if n == name]) for name in ("brightness", "contrast", "hue")
    }
    assert stats.kstest(factors["brightness"], stats.uniform(0.6, 0.8).cdf).pvalue > 1e-4
    assert stats.kstest(factors["contrast"], stats.uniform(0.8, 0.4).cdf).pvalue > 1e-4
    assert stats.kstest(factors["hue"], stats.uniform(-0.1, 0.2).cdf).pvalue > 1e-4
    orders = Counter(tuple(n for n, _ in row) for row in draws)
    assert len(orders) == 24 and stats.chisquare(list(orders.values())).pvalue > 1e-4


def test_hue_equals_torchvision():
    from torchvision.transforms.functional import adjust_hue

    for value in (-0.5, -0.1, 0.0, 0.3, 0.5):
        ours, theirs = np.asarray(shift_hue(IMAGE, value)), np.asarray(adjust_hue(IMAGE, value))
        assert np.abs(ours.astype(int) - theirs).max() <= 1

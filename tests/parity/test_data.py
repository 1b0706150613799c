"""Data beside the peer: the same evaluation pixels, and the same laws of chance, the peer run as a black box."""

import io
import random
import warnings
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats

from imgzoo_data import Mixer, create_dataset, create_transform
from imgzoo_data.config import DataConfig
from imgzoo_data.erasing import Erase, erase_boxes
from imgzoo_data.rng import generator
from imgzoo_data.transforms.color import ColorJitter
from imgzoo_data.transforms.crops import RandomKeepRatio, RandomResizedCrop
from imgzoo_data.transforms.ops import OPS
from imgzoo_data.transforms.policies import AutoAugment, RandAugment
from imgzoo_data.transforms.sequences import fit_grid

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    timm_data = pytest.importorskip("timm.data")
    policies = pytest.importorskip("timm.data.auto_augment")
    transforms = pytest.importorskip("timm.data.transforms")

pytestmark = [pytest.mark.parity, pytest.mark.filterwarnings("ignore")]
DRAWS = 10_000
LEAST = 1e-3
"""p-value below which two samples are held to have different laws."""


@pytest.fixture(autouse=True)
def seeded():
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def same_law(ours, theirs):
    assert stats.ks_2samp(ours, theirs).pvalue > LEAST


def photographs():
    """Twenty photographs as files: color and gray, JPEG of all subsamplings and PNG, 384 to 1411 pixels."""
    from skimage import data
    from sklearn.datasets import load_sample_images

    names = [
        "astronaut",
        "chelsea",
        "coffee",
        "rocket",
        "retina",
        "hubble_deep_field",
        "immunohistochemistry",
        "camera",
        "coins",
        "moon",
    ]
    names += ["page", "text", "clock", "brick", "grass", "gravel", "cell"]
    arrays = [getattr(data, name)() for name in names] + load_sample_images().images
    arrays.append(data.stereo_motorcycle()[0])
    for number, array in enumerate(arrays):
        file = io.BytesIO()
        image = Image.fromarray(array)
        if number % 5 == 4:
            image.save(file, "PNG")
        else:
            gray = image.mode == "L"
            image.save(
                file, "JPEG", quality=92, progressive=number % 2 == 1, **({} if gray else {"subsampling": number % 3})
            )
        yield file.getvalue()


CONFIGS = [
    {"input_size": (3, 224, 224), "crop_pct": 0.875, "interpolation": "bicubic"},
    {"input_size": (3, 288, 288), "crop_pct": 1.0, "interpolation": "bilinear", "mean": (0.5,) * 3, "std": (0.5,) * 3},
    {"input_size": (3, 256, 192), "crop_pct": 0.9, "interpolation": "bicubic"},
    {"input_size": (3, 384, 384), "crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bicubic"},
    {"input_size": (3, 240, 240), "crop_pct": 0.95, "crop_mode": "border", "interpolation": "lanczos"},
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: f"{c['input_size'][1]}-{c.get('crop_mode', 'center')}")
def test_evaluation_tensors_are_equal(config):
    ours, theirs = create_transform(**config), timm_data.create_transform(**config)
    std = torch.tensor(ours.config.std)[:, None, None]
    count = 0
    for data in photographs():
        a = ours(data)
        b = theirs(Image.open(io.BytesIO(data)).convert("RGB"))
        assert a.shape == b.shape
        assert ((a - b) * std).abs().max() <= 1 / 255 + 1e-5
        count += 1
    assert count == 20


@pytest.mark.parametrize("size", [(500, 375), (64, 640)])
def test_random_crop_boxes(size):
    image, (width, height) = Image.new("RGB", size), size
    params = transforms.RandomResizedCropAndInterpolation.get_params
    theirs = np.array([params(image, (0.08, 1.0), (3 / 4, 4 / 3)) for _ in range(DRAWS)])
    ours = np.array([RandomResizedCrop().box(height, width, generator(0, 0, i)) for i in range(DRAWS)])
    for column in range(4):
        same_law(ours[:, column], theirs[:, column])
    same_law(ours[:, 2] * ours[:, 3], theirs[:, 2] * theirs[:, 3])
    same_law(ours[:, 2] / ours[:, 3], theirs[:, 2] / theirs[:, 3])


def test_ratio_keeping_resize():
    options = {"random_scale_prob": 0.5, "random_scale_range": (0.8, 1.0), "random_scale_area": True}
    options |= {"random_aspect_prob": 0.5, "random_aspect_range": (0.9, 1 / 0.9)}
    peer, image = transforms.ResizeKeepRatio((224, 224), **options), Image.new("L", (400, 300))
    theirs = np.array([peer(image).size[::-1] for _ in range(3000)])
    step, config = RandomKeepRatio(), DataConfig()
    ours = np.array([step.plan(300, 400, (224, 224), generator(0, 0, i), config).resize for i in range(3000)])
    for column in range(2):
        same_law(ours[:, column], theirs[:, column])


def test_color_jitter_factors():
    from torchvision.transforms import ColorJitter as Peer

    peer = Peer(0.4, 0.3, 0.2, 0.1)
    theirs = [Peer.get_params(peer.brightness, peer.contrast, peer.saturation, peer.hue) for _ in range(DRAWS)]
    ours = [dict(ColorJitter(0.4, 0.3, 0.2, 0.1).draw(generator(0, 0, i))) for i in range(DRAWS)]
    for place, name in enumerate(("brightness", "contrast", "saturation", "hue"), start=1):
        same_law([row[name] for row in ours], [row[place] for row in theirs])


@pytest.mark.parametrize("alphas", [(0.2, 0.0), (0.8, 0.0), (0.0, 1.0), (0.8, 1.0)], ids=str)
@pytest.mark.parametrize("prob", [1.0, 0.5])
def test_mixing_lambdas(alphas, prob):
    options = {"mixup_alpha": alphas[0], "cutmix_alpha": alphas[1], "prob": prob, "mode": "batch"}
    peer = timm_data.Mixup(**options, label_smoothing=0.0, num_classes=2)
    images, labels, draws = torch.zeros(2, 1, 64, 64), torch.tensor([0, 1]), 4000
    theirs = [peer(images.clone(), labels)[1][0, 0].item() for _ in range(draws)]
    ours = [Mixer(2, **options).draw(0, 0, i, 0, 2, (64, 64)).lam[0] for i in range(draws)]
    same_law(np.round(ours, 6), np.round(theirs, 6))


def test_cutmix_sides_from_a_range():
    peer = timm_data.Mixup(
        mixup_alpha=0.0, cutmix_alpha=1.0, cutmix_minmax=(0.2, 0.8), num_classes=2, label_smoothing=0.0
    )
    images, labels = torch.zeros(2, 1, 64, 64), torch.tensor([0, 1])
    theirs = [peer(images.clone(), labels)[1][0, 0].item() for _ in range(4000)]
    mixer = Mixer(2, cutmix_alpha=1.0, cutmix_minmax=(0.2, 0.8))
    ours = [mixer.draw(0, 0, i, 0, 2, (64, 64)).lam[0] for i in range(4000)]
    same_law(np.round(ours, 6), np.round(theirs, 6))


def record(ops):
    """Make the peer's operations note (name, argument) instead of changing the image."""
    seen = []

    def note(name):
        def run(image, *args, **options):
            seen.append((name, float(args[0]) if args else 0.0))
            return image

        return run

    for op in ops:
        op.aug_fn = note(op.name)
    return seen


def compare(ours, theirs):
    """Equal frequencies of operations (chi-square) and equal laws of their arguments (KS)."""
    a, b = Counter(name for name, _ in ours), Counter(name for name, _ in theirs)
    assert set(a) == set(b)
    table = [[counts[name] for name in sorted(a)] for counts in (a, b)]
    assert stats.chi2_contingency(table).pvalue > LEAST
    for name in a:
        x, y = ([round(v, 6) for n, v in side if n == name] for side in (ours, theirs))
        if min(len(x), len(y)) > 50 and name != "GaussianBlurRand":
            same_law(x, y)


def arguments(policy, draws):
    found = []
    for i in range(draws):
        rng = generator(1, 0, i)
        found += [(name, OPS[name].value(magnitude, rng)) for name, magnitude in policy.draw(rng)]
    return found


RAND = ["rand-m9-mstd0.5", "rand-m9-mstd0.5-inc1", "rand-m7-n3-p0.3-mstd1-mmax8", "rand-m6-mstd101-inc1"]


@pytest.mark.parametrize("spec", [*RAND, "rand-m5-n1-t3a", "rand-m9-n2-tweights-mstd0.5", "rand-m5-n3-t3aw"])
def test_randaugment_operations_and_arguments(spec):
    peer = policies.rand_augment_transform(spec, {"translate_const": 100, "img_mean": (124, 116, 104)})
    seen, image = record(peer.ops), Image.new("RGB", (8, 8))
    for _ in range(DRAWS):
        peer(image)
    ours = [(n, v if OPS[n].span else 0.0) for n, v in arguments(RandAugment(spec), DRAWS)]
    compare(ours, seen)


@pytest.mark.parametrize("spec", ["original", "originalr", "v0", "v0r-mstd0.5", "3a"])
def test_autoaugment_operations_and_arguments(spec):
    peer = policies.auto_augment_transform(spec, {"translate_const": 100, "img_mean": (124, 116, 104)})
    seen, image = record([op for row in peer.policy for op in row]), Image.new("RGB", (8, 8))
    for _ in range(DRAWS):
        peer(image)
    ours = [(n, v if OPS[n].span else 0.0) for n, v in arguments(AutoAugment(spec), DRAWS)]
    compare(ours, seen)


@pytest.mark.parametrize("count", [1, 3])
def test_erased_area(count):
    peer = timm_data.random_erasing.RandomErasing(
        probability=0.7, mode="const", min_count=count, max_count=count, device="cpu"
    )
    theirs = [(peer(torch.ones(1, 64, 48)) == 0).float().mean().item() for _ in range(4000)]
    ours = []
    for i in range(4000):
        image = np.ones((64, 48))
        for top, left, height, width in erase_boxes(Erase(0.7, "const", (count, count)), generator(0, 0, i), 64, 48):
            image[top : top + height, left : left + width] = 0
        ours.append(float((image == 0).mean()))
    same_law(np.round(ours, 5), np.round(theirs, 5))


def test_classes_of_a_folder(tmp_path):
    for name in ("n10", "n2", "N1", "a 3", "a 20", "Zebra", "apple", "x_1y2", "x_1y10"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "1.png")
    theirs = timm_data.create_dataset("", root=str(tmp_path), search_split=False)
    order = sorted(theirs.reader.class_to_idx, key=theirs.reader.class_to_idx.get)
    assert list(create_dataset(f"folder:{tmp_path}").class_names) == order


def test_sizes_of_patch_sequences():
    grids = []
    for width, height in ((500, 375), (375, 500), (1024, 200), (224, 224), (90, 1000), (640, 480), (33, 47)):
        for length in (64, 196, 576):
            peer = timm_data.naflex_transforms.ResizeToSequence(patch_size=16, max_seq_len=length)
            w, h = peer(Image.new("RGB", (width, height))).size
            grids.append((fit_grid(height, width, 16, length), (h / 16, w / 16)))
    # both fill the length; roundings differ by one patch at most
    assert all(abs(a[0] - b[0]) <= 1 and abs(a[1] - b[1]) <= 1 for a, b in grids), grids


def test_class_tables():
    from imgzoo_data.info import ImageNetInfo

    for subset in ("imagenet-1k", "imagenet-12k", "imagenet-21k-miil", "imagenet-22k"):
        theirs, ours = timm_data.ImageNetInfo(subset), ImageNetInfo(subset)
        assert theirs.label_names() == ours.label_names
        for index in range(0, ours.num_classes, 97):
            for detailed in (False, True):
                assert theirs.index_to_description(index, detailed) == ours.index_to_description(index, detailed)

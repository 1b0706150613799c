"""Training beside the peer: the same image folder, model, hyper-parameters and seeds; accuracy, speed, wall time.

    .nox/imgzoo/bin/python benchmarks/train.py [--seeds 3] [--accuracy-seeds 10] [--quick] [--json out.json] [MODEL ...]

The images are JPEG files of 500x375, the size of ImageNet's, cut from scikit-image's photographs of brick, grass and
gravel and trained on at 64x64; training and validation files come from different halves of a photograph. Ours is the
loop of `imgzoo train`, run folder and checkpoints included. The peer's training script is not in its wheel, so its
library (create_model, create_loader, create_optimizer_v2, create_scheduler_v2) is driven by the loop below. Each run is
a process of its own in the parity environment, which has both; contenders alternate.

Accuracy has a task of its own, small enough for many seeds: scikit-learn's handwritten digits at 32x32. A row is met
where training takes at least 1.1x the images a second, or 1.2x the wall time, start-up included, and the 95% interval
of the difference in top-1 (Student's t over the seeds) is narrower than 2 points to each side and not below zero.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from rows import PEER_PYTHON, Row, main, paired

MODELS = ("resnet18", "vit_tiny_patch16_224", "efficientnet_b0")
FILE, COUNT = (500, 375), {"train": 300, "validation": 100}
PHOTOGRAPHS, DIGITS = 64, 32
"""The sizes that each task trains at."""
CLASSES = ("brick", "grass", "gravel")
WIDEST = 2.0
RECIPE = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "batch": 64, "scale": (0.5, 1.0), "smoothing": 0.1}
CONTENDERS = ("ours", "peer")


def write_pieces(folder: Path) -> None:
    """Pieces of three textures as JPEG files, one folder a class; the halves of a photograph are never mixed."""
    import numpy as np
    from PIL import Image
    from skimage import data

    rng = np.random.default_rng(0)
    for name in CLASSES:
        photo = np.asarray(getattr(data, name)())
        half = photo.shape[1] // 2
        for split, count in COUNT.items():
            target = folder / split / name
            target.mkdir(parents=True)
            first = 0 if split == "train" else half
            for index in range(count):
                wide, high = FILE[0] // 2, FILE[1] // 2
                y, x = rng.integers(photo.shape[0] - high), first + rng.integers(half - wide)
                piece = Image.fromarray(photo[y : y + high, x : x + wide]).convert("RGB")
                piece.resize(FILE, Image.Resampling.BICUBIC).save(target / f"{index:04}.jpg", quality=90)


def write_digits(folder: Path) -> None:
    """scikit-learn's 1,797 digits of 8x8 as PNG files of 32x32; each fifth is for validation."""
    import numpy as np
    from PIL import Image
    from sklearn.datasets import load_digits

    found = load_digits()
    for index, (image, digit) in enumerate(zip(found.images, found.target)):
        target = folder / ("train" if index % 5 else "validation") / str(digit)
        target.mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray((image * 255 / 16).astype(np.uint8)).convert("RGB")
        picture.resize((DIGITS, DIGITS), Image.Resampling.BICUBIC).save(target / f"{index:04}.png")


def sized(model: str, size: int) -> tuple[dict[str, int], dict[str, int]]:
    """The image size, where a network is made for one, and patches that leave some of it."""
    if not model.startswith("vit"):
        return {}, {}
    return {"img_size": size}, {"patch_size": size // 4}


def ours(folder: Path, model: str, size: int, seed: int, epochs: int, workers: int) -> dict[str, float]:
    """One `imgzoo train` run."""
    from imgzoo_train import Config, train

    output = folder / f"run-{os.getpid()}"
    at_size, patches = sized(model, size)
    settings = {
        "model": {"name": model, **at_size, "options": patches},
        "data": {
            "source": f"folder:{folder}",
            "batch_size": RECIPE["batch"],
            "workers": workers,
            "input_size": size,
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "augment": {"scale": list(RECIPE["scale"])},
        },
        "optim": {
            "name": "sgd",
            "lr": RECIPE["lr"],
            "momentum": RECIPE["momentum"],
            "weight_decay": RECIPE["weight_decay"],
        },
        "loss": {"smoothing": RECIPE["smoothing"]},
        "run": {"epochs": epochs, "seed": seed, "output": str(output), "device": "cpu"},
    }
    summary = train(Config().merged(settings, "benchmark"), quiet=True)
    rows = [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]
    rows = [row for row in rows if row["kind"] == "train"][1:]  # the first row warms up
    images = sum(row["images"] for row in rows)
    return {
        "top1": summary["best"]["top1"],
        "images_per_second": images / sum(row["images"] / row["images_per_second"] for row in rows),
    }


def peer(folder: Path, model: str, size: int, seed: int, epochs: int, workers: int) -> dict[str, float]:
    """The same run on the peer's library."""
    import timm
    import timm.data
    import timm.optim
    import timm.scheduler
    import timm.utils
    import torch

    timm.utils.random_seed(seed)
    classes = len(list((folder / "train").iterdir()))
    at_size, patches = sized(model, size)
    net = timm.create_model(model, num_classes=classes, **at_size, **patches)
    common = {
        "input_size": (3, size, size),
        "batch_size": RECIPE["batch"],
        "interpolation": "bilinear",
        "num_workers": workers,
        "device": torch.device("cpu"),
    }
    train = timm.data.create_loader(
        timm.data.create_dataset("", root=str(folder / "train")),
        is_training=True,
        scale=RECIPE["scale"],
        color_jitter=0.0,
        **common,
    )
    validation = timm.data.create_loader(
        timm.data.create_dataset("", root=str(folder / "validation")), is_training=False, crop_pct=1.0, **common
    )
    optimizer = timm.optim.create_optimizer_v2(
        net, "sgd", lr=RECIPE["lr"], weight_decay=RECIPE["weight_decay"], momentum=RECIPE["momentum"]
    )
    schedule, _ = timm.scheduler.create_scheduler_v2(
        optimizer, "cosine", num_epochs=epochs, step_on_epochs=False, updates_per_epoch=len(train)
    )
    loss_fn = torch.nn.CrossEntropyLoss(label_smoothing=RECIPE["smoothing"])
    best, spent, images, updates = 0.0, 0.0, 0, 0
    for _ in range(epochs):
        net.train()
        start = time.perf_counter()
        for index, (image, target) in enumerate(train):
            if updates == 1:  # the first step warms up
                start, images = time.perf_counter(), 0
            optimizer.zero_grad()
            loss_fn(net(image), target).backward()
            optimizer.step()
            updates += 1
            images += len(target)
            schedule.step_update(updates)
            del index
        spent += time.perf_counter() - start
        net.eval()
        hits = total = 0
        with torch.inference_mode():
            for image, target in validation:
                hits += int((net(image).argmax(1) == target).sum())
                total += len(target)
        best = max(best, 100 * hits / total)
    return {"top1": best, "images_per_second": images / spent}


def run(contender: str, folder: Path, *arguments: object) -> dict[str, float]:
    """A contender in a process of its own; `seconds` is the wall time of the whole process."""
    work = json.dumps([contender, str(folder), *arguments])
    start = time.perf_counter()
    command = [str(PEER_PYTHON), __file__, "--contender", work]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr)
    return {**json.loads(done.stdout.splitlines()[-1]), "seconds": seconds}


def both(folder: Path, model: str, size: int, seeds: int, epochs: int, workers: int) -> list[dict[str, Any]]:
    """A run of each contender for each seed, in turns."""
    return [
        {who: run(who, folder, model, size, seed, epochs, workers) for who in CONTENDERS[:: 1 if seed % 2 else -1]}
        for seed in range(seeds)
    ]


def compared(found: list[dict[str, Any]]) -> tuple[str, bool]:
    """Top-1 of both with the 95% interval of the difference, and whether it is no worse within noise."""
    from scipy.stats import t

    means = [statistics.mean(row[who]["top1"] for row in found) for who in CONTENDERS]
    gaps = [row["ours"]["top1"] - row["peer"]["top1"] for row in found]
    if len(gaps) < 2:
        return f"{means[0]:.1f} against {means[1]:.1f}, one seed", False
    mean, half = statistics.mean(gaps), t.ppf(0.975, len(gaps) - 1) * statistics.stdev(gaps) / len(gaps) ** 0.5
    said = f"{means[0]:.1f} against {means[1]:.1f}; difference {mean - half:+.1f} to {mean + half:+.1f} (95%, "
    return f"{said}{len(gaps)} seeds)", half <= WIDEST and mean + half >= 0


def rows(args: argparse.Namespace) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as name:
        photographs, digits = Path(name) / "photographs", Path(name) / "digits"
        write_pieces(photographs)
        write_digits(digits)
        for model in args.models or MODELS[: 1 if args.quick else None]:
            accuracy, fair = compared(
                both(digits, model, DIGITS, 2 if args.quick else args.accuracy_seeds, args.epochs, args.workers)
            )
            found = both(photographs, model, PHOTOGRAPHS, 1 if args.quick else args.seeds, args.epochs, args.workers)
            speeds = [tuple(1 / row[who]["images_per_second"] for who in CONTENDERS) for row in found]
            walls = [tuple(row[who]["seconds"] for who in CONTENDERS) for row in found]
            label, said = f"training {model} on {3 * COUNT['train']} photographs", "convolutions and matrix products"
            speed = paired("train", f"{label}, an image", "ms", speeds, 1.1, said, 1e3)
            yield replace(speed, headline=True, accuracy=accuracy, met=speed.met and fair)
            wall = paired("train", f"{label}, whole process", "s", walls, 1.2, "the same, and importing torch")
            yield replace(wall, accuracy=accuracy, met=wall.met and fair)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--accuracy-seeds", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--workers", type=int, default=0)


if __name__ == "__main__":
    if "--contender" in sys.argv:
        contender, *arguments = json.loads(sys.argv[-1])
        arguments[0] = Path(arguments[0])
        print(json.dumps({"ours": ours, "peer": peer}[contender](*arguments)))
    else:
        main(__doc__, rows, options)

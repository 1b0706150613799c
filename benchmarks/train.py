"""Training beside the peer: the same image folder, model, hyper-parameters and seeds; accuracy, speed, wall time.

    .nox/imgzoo/bin/python benchmarks/train.py [--seeds 3] [--epochs 4] [--quick] [--json out.json] [MODEL ...]

The images are JPEG files of 500x375, the size of ImageNet's, cut from scikit-image's photographs of brick, grass and
gravel and trained on at 64x64; training and validation files come from different halves of a photograph. Ours is the
loop of `imgzoo train`, run folder and checkpoints included. The peer's training script is not in its wheel, so its
library (create_model, create_loader, create_optimizer_v2, create_scheduler_v2) is driven by the loop below. Each run is
a process of its own in the parity environment, which has both; contenders alternate.

Targets: equal accuracy within noise, at least 1.1x the images a second of training and 1.2x the wall time, start-up
included.
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

from rows import PEER_PYTHON, Row, main, paired

MODELS = ("resnet18", "vit_tiny_patch16_224", "efficientnet_b0")
SIZE, FILE, COUNT = 64, (500, 375), {"train": 300, "validation": 100}
CLASSES = ("brick", "grass", "gravel")
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


def sized(model: str) -> dict[str, int]:
    """The image size, where a network is made for one."""
    return {"img_size": SIZE} if model.startswith("vit") else {}


def ours(folder: Path, model: str, seed: int, epochs: int, workers: int) -> dict[str, float]:
    """One `imgzoo train` run."""
    from imgzoo_train import Config, train

    output = folder / f"run-{os.getpid()}"
    settings = {
        "model": {"name": model, **sized(model)},
        "data": {
            "source": f"folder:{folder}",
            "batch_size": RECIPE["batch"],
            "workers": workers,
            "input_size": SIZE,
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


def peer(folder: Path, model: str, seed: int, epochs: int, workers: int) -> dict[str, float]:
    """The same run on the peer's library."""
    import timm
    import timm.data
    import timm.optim
    import timm.scheduler
    import timm.utils
    import torch

    timm.utils.random_seed(seed)
    net = timm.create_model(model, num_classes=len(CLASSES), **sized(model))
    common = {
        "input_size": (3, SIZE, SIZE),
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


def run(contender: str, folder: Path, model: str, seed: int, epochs: int, workers: int) -> dict[str, float]:
    """A contender in a process of its own; `seconds` is the wall time of the whole process."""
    work = json.dumps([contender, str(folder), model, seed, epochs, workers])
    start = time.perf_counter()
    command = [str(PEER_PYTHON), __file__, "--contender", work]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr)
    return {**json.loads(done.stdout.splitlines()[-1]), "seconds": seconds}


def rows(args: argparse.Namespace) -> Iterator[Row]:
    seeds, epochs = (1, 2) if args.quick else (args.seeds, args.epochs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_pieces(folder)
        for model in args.models or MODELS[: 1 if args.quick else None]:
            found: list[dict[str, dict[str, float]]] = []
            for seed in range(seeds):
                order = CONTENDERS[:: 1 if seed % 2 else -1]
                found.append({who: run(who, folder, model, seed, epochs, args.workers) for who in order})
            top1 = {who: statistics.mean(row[who]["top1"] for row in found) for who in CONTENDERS}
            said = f"convolutions and matrix products; top-1 {top1['ours']:.1f} against {top1['peer']:.1f}"
            speeds = [tuple(1 / row[who]["images_per_second"] for who in CONTENDERS) for row in found]
            label = f"training {model} on {3 * COUNT['train']} photographs"
            yield replace(paired("train", f"{label}, an image", "ms", speeds, 1.1, said, 1e3), headline=True)
            walls = [tuple(row[who]["seconds"] for who in CONTENDERS) for row in found]
            yield paired("train", f"{label}, whole process", "s", walls, 1.2, "the same, and importing torch")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("models", nargs="*")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--workers", type=int, default=0)


if __name__ == "__main__":
    if "--contender" in sys.argv:
        contender, *arguments = json.loads(sys.argv[-1])
        arguments[0] = Path(arguments[0])
        print(json.dumps({"ours": ours, "peer": peer}[contender](*arguments)))
    else:
        main(__doc__, rows, options)

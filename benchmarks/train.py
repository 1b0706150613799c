"""Training beside the peer: the same image folder, model, hyper-parameters and seeds; accuracy, speed, wall time.

    .nox/imgzoo/bin/python benchmarks/train.py [--seeds 3] [--epochs 4] [--model resnet18] [--json out.json]

The images are 48x48 patches of scikit-image's brick, grass and gravel photographs; training and validation patches
come from different halves. Ours is the loop of `imgzoo train`, run folder and checkpoints included. The peer's training
script is not in its wheel, so its library (create_model, create_loader, create_optimizer_v2, create_scheduler_v2) is
driven by the loop below. Each run is a process of its own in the parity environment, which has both; contenders
alternate. Targets: equal accuracy within noise, at least 1.1x the images a second of training and 1.2x the wall time,
start-up included.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEER_PYTHON = ROOT / ".nox" / "parity" / "bin" / "python"
SIZE, COUNT = 48, {"train": 300, "validation": 100}
CLASSES = ("brick", "grass", "gravel")
RECIPE = {"lr": 0.05, "momentum": 0.9, "weight_decay": 5e-4, "batch": 64, "scale": (0.5, 1.0), "smoothing": 0.1}
CONTENDERS = ("ours", "peer")


def write_patches(folder: Path) -> None:
    """Patches of three textures as PNG files, one folder a class; the halves of a photograph are never mixed."""
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
                y, x = rng.integers(photo.shape[0] - SIZE), first + rng.integers(half - SIZE)
                Image.fromarray(photo[y : y + SIZE, x : x + SIZE]).convert("RGB").save(target / f"{index:04}.png")


def ours(folder: Path, model: str, seed: int, epochs: int, workers: int) -> dict[str, float]:
    """One `imgzoo train` run."""
    from imgzoo_train import Config, train

    output = folder / f"run-{os.getpid()}"
    settings = {
        "model": {"name": model},
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
    net = timm.create_model(model, num_classes=len(CLASSES))
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


def run(contender: str, folder: Path, arguments: argparse.Namespace, seed: int) -> dict[str, float]:
    """A contender in a process of its own; `seconds` is the wall time of the whole process."""
    command = [str(PEER_PYTHON), __file__, "--contender", contender, "--folder", str(folder), "--seeds", str(seed)]
    command += ["--epochs", str(arguments.epochs), "--model", arguments.model, "--workers", str(arguments.workers)]
    start = time.perf_counter()
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    seconds = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(done.stderr)
    return {**json.loads(done.stdout.splitlines()[-1]), "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--model", default="resnet18")
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.contender:
        function = {"ours": ours, "peer": peer}[arguments.contender]
        figures = function(arguments.folder, arguments.model, arguments.seeds, arguments.epochs, arguments.workers)
        print(json.dumps(figures))
        return

    rows: list[dict[str, float | str]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_patches(folder)
        for seed in range(arguments.seeds):
            for contender in CONTENDERS[:: 1 if seed % 2 else -1]:
                rows.append({"contender": contender, "seed": seed, **run(contender, folder, arguments, seed)})
                print(rows[-1], file=sys.stderr, flush=True)
    median = {
        contender: {
            key: statistics.median(float(row[key]) for row in rows if row["contender"] == contender)
            for key in ("top1", "images_per_second", "seconds")
        }
        for contender in CONTENDERS
    }
    result = {
        "rows": rows,
        "median": median,
        "speed": median["ours"]["images_per_second"] / median["peer"]["images_per_second"],
        "wall": median["peer"]["seconds"] / median["ours"]["seconds"],
        "top1_difference": median["ours"]["top1"] - median["peer"]["top1"],
    }
    print(json.dumps(result, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()

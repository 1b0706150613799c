"""Images per second of the loader beside the peer's: same files, same workers, alternating epochs, both warmed.

    .nox/imgzoo/bin/python benchmarks/loader.py [--workers 2] [--quick] [--json out.json] [CASE ...]

Each contender is a process of its own in the parity environment (which has both), told in turn to run an epoch. Wall
time is what a user waits; CPU time (main process and workers) is what is left when other programs disturb the machine.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rows import Contender, Row, main, paired

SMALL, LARGE = (500, 375), (2048, 1536)
TRAIN, EVAL, FAST = "train", "eval", "eval fast"
CASES = {  # name: (size of the files, how many, batch, kind, policy, target, what bounds it)
    "train 500x375": (SMALL, 384, 64, TRAIN, None, 2.0, "JPEG entropy decoding, then the resize (3 to 1)"),
    "train 2048x1536": (LARGE, 64, 16, TRAIN, None, 4.0, "entropy decoding of the whole file; the rest is shrunk away"),
    "train 500x375 RandAugment": (
        SMALL,
        384,
        64,
        TRAIN,
        "rand-m9-mstd0.5",
        1.5,
        "Pillow's affine transforms, as in the peer",
    ),
    "eval 500x375": (SMALL, 384, 64, EVAL, None, 2.0, "decoding (half), then Pillow's resize, compiled"),
    "eval 500x375 fast": (
        SMALL,
        384,
        64,
        FAST,
        None,
        2.0,
        "decoding, then torch's resize (a pixel in a million two levels off)",
    ),
    "eval 2048x1536": (LARGE, 64, 16, EVAL, None, 2.0, "decoding and resizing all pixels: evaluation does not shrink"),
}
HEADLINES = ("train 500x375", "train 2048x1536", "eval 500x375")
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "cat", "retina")


def write_photos(folder: Path, size: tuple[int, int], count: int) -> None:
    """Real photographs, cut and scaled to `size` and saved as JPEGs (quality 90, 4:2:0) in four classes."""
    import numpy as np
    from PIL import Image
    from skimage import data

    photos = [Image.fromarray(getattr(data, name)()).convert("RGB") for name in PHOTOS]
    rng = np.random.default_rng(0)
    for number in range(count):
        photo = photos[number % len(photos)]
        share = rng.uniform(0.6, 1.0)
        width, height = int(photo.width * share), int(photo.height * share)
        left, top = rng.integers(photo.width - width + 1), rng.integers(photo.height - height + 1)
        cut = photo.crop((left, top, left + width, top + height)).resize(size, Image.Resampling.BICUBIC)
        # sensor noise: without it an enlarged photo is smoother, and so cheaper to decode, than a camera's
        noisy = np.asarray(cut, np.float32) + rng.normal(0, 4, (size[1], size[0], 1))
        file = io.BytesIO()
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(file, "JPEG", quality=90, subsampling=2)
        place = folder / f"class{number % 4}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number:04}.jpg").write_bytes(file.getvalue())


def make_ours(folder: str, batch: int, kind: str, policy: str | None, workers: int):
    import imgzoo_data

    training = kind == TRAIN
    interpolation = "random" if training else "bicubic"
    transform = imgzoo_data.create_transform(
        training=training,
        auto_augment=policy,
        interpolation=interpolation,
        input_size=(3, 224, 224),
        decode="fast" if kind in (TRAIN, FAST) else "exact",
    )
    source = imgzoo_data.create_dataset(f"folder:{folder}")
    return imgzoo_data.create_loader(source, transform, batch, workers=workers)


def make_peer(folder: str, batch: int, kind: str, policy: str | None, workers: int):
    import torch
    from timm.data import create_dataset, create_loader

    training = kind == TRAIN
    dataset = create_dataset("", root=folder, is_training=training, split="train", search_split=False)
    return create_loader(
        dataset,
        input_size=(3, 224, 224),
        batch_size=batch,
        is_training=training,
        color_jitter=0.0,
        auto_augment=policy,
        interpolation="random" if training else "bicubic",
        num_workers=workers,
        device=torch.device("cpu"),
        pin_memory=False,
        persistent_workers=workers > 0,
    )


def cpu_seconds() -> float:
    """CPU time of this process and its living children."""
    total, tick = time.process_time(), os.sysconf("SC_CLK_TCK")
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            fields = (entry / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            total += (int(fields[11]) + int(fields[12])) / tick
    return total


def serve(who: str, folder: str, batch: int, kind: str, policy: str | None, workers: int) -> None:
    """Run an epoch for each line read; answer with images, wall and CPU seconds."""
    make = make_ours if who == "imgzoo" else make_peer
    loader = make(folder, batch, kind, policy, workers)
    for _ in sys.stdin:
        images, wall, cpu = 0, time.perf_counter(), cpu_seconds()
        for batch_ in loader:
            images += len(batch_[0])
        answer = {"images": images, "wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu}
        print(json.dumps(answer), flush=True)


def contender(who: str, folder: Path, case: tuple, workers: int) -> Contender:
    """A process that runs an epoch of one loader each time it is asked to."""
    return Contender(__file__, who, str(folder), case[2], case[3], case[4], workers)


def run_case(name: str, folder: Path, workers: int, rounds: int) -> tuple[Row, Row]:
    """Alternate epochs of both contenders: milliseconds an image that a user waits, and of CPU time."""
    case = CASES[name]
    contenders = {who: contender(who, folder, case, workers) for who in ("imgzoo", "peer")}
    for each in contenders.values():  # warm: files cached, workers up, memory touched
        each.ask("epoch")
    found = [{who: each.ask("epoch") for who, each in contenders.items()} for _ in range(rounds)]
    for each in contenders.values():
        each.close()

    def pairs(what: str) -> list[tuple[float, float]]:
        return [tuple(row[who][what] / row[who]["images"] for who in contenders) for row in found]  # type: ignore[misc]

    work = f"loader, {name}, {workers} workers, an image"
    return (paired("loader", work, "ms", pairs("wall"), case[5], case[6], 1e3),
            paired("loader", f"{work}, CPU time", "ms", pairs("cpu"), None, case[6], 1e3))  # fmt: skip


def rows(args: argparse.Namespace) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as temporary:
        for name in args.cases or (["train 500x375"] if args.quick else CASES):
            folder = Path(temporary) / "x".join(map(str, CASES[name][0]))
            if not folder.exists():
                write_photos(folder, CASES[name][0], CASES[name][1])
            wall, cpu = run_case(name, folder, args.workers, 2 if args.quick else 5)
            yield from (replace(wall, headline=name in HEADLINES), cpu)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cases", nargs="*", metavar="CASE", help="; ".join(CASES))
    parser.add_argument("--workers", type=int, default=2)


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve(*json.loads(sys.argv[-1]))
    else:
        main(__doc__, rows, options)

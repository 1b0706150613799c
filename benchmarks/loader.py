"""Images per second of the loader beside the peer's: same files, same workers, alternating epochs, both warmed.

    .nox/imgzoo/bin/python benchmarks/loader.py [--workers 2] [--quick] [--json out.json] [CASE ...]

Each contender is a process of its own in the parity environment (which has both), told in turn to run an epoch. Wall
time is what a user waits; CPU time (main process and workers) is what is left when other programs disturb the machine.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from rows import Contender, Row, main, paired

LARGE, MIDDLE, TINY = (2048, 1536), (500, 375), (128, 96)
TRAIN, EVAL, FAST = "train", "eval", "eval fast"


class Case(NamedTuple):
    """Files, and what is done to them."""

    size: tuple[int, int]
    count: int
    batch: int
    kind: str
    target: float | None
    bound: str
    policy: str | None = None
    splits: int = 0
    encoding: str = "JPEG"
    tar: bool = False
    cold: bool = False
    """The files leave the page cache before each epoch."""
    kernels: bool = True


SMALL = Case(TINY, 2048, 128, TRAIN, None, "opening files, decoding")
PHOTO = Case(MIDDLE, 384, 64, TRAIN, 2.0, "JPEG entropy decoding, then the resize (3 to 1)")
RESIZED = Case(MIDDLE, 384, 64, EVAL, 2.0, "decoding (half), then Pillow's resize, compiled")
CASES = {
    "train 500x375": PHOTO,
    "train 500x375 without compiled kernels": PHOTO._replace(target=None, bound="Pillow's resize", kernels=False),
    "train 2048x1536": Case(LARGE, 64, 16, TRAIN, 4.0, "entropy decoding of the whole file; the rest is shrunk away"),
    "train 500x375 RandAugment": PHOTO._replace(
        policy="rand-m9-mstd0.5", target=1.5, bound="Pillow's affine transforms, as in the peer"
    ),
    "train 500x375 AugMix, three views": PHOTO._replace(
        policy="augmix-m5-w4-d2", splits=3, batch=48, target=None, bound="Pillow's transforms, twelve an image"
    ),
    "train 500x375 PNG": PHOTO._replace(encoding="PNG", target=None, bound="zlib, the whole file"),
    "train 500x375 WebP": PHOTO._replace(encoding="WEBP", target=None, bound="libwebp, the whole file"),
    "train 128x96": SMALL,
    "train 128x96 in a tar": SMALL._replace(tar=True),
    "train 128x96, cold cache": SMALL._replace(cold=True, bound="reading from the disk"),
    "train 128x96 in a tar, cold cache": SMALL._replace(tar=True, cold=True, bound="reading from the disk"),
    "eval 500x375": RESIZED,
    "eval 500x375 without compiled kernels": RESIZED._replace(target=None, bound="Pillow's resize", kernels=False),
    "eval 500x375 fast": RESIZED._replace(
        kind=FAST, bound="decoding, then torch's resize (a pixel in a million two levels off)"
    ),
    "eval 2048x1536": Case(LARGE, 64, 16, EVAL, 2.0, "decoding and resizing all pixels: evaluation does not shrink"),
}
HEADLINES = ("train 500x375", "train 2048x1536", "eval 500x375")
PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "cat", "retina")


def write_photos(folder: Path, case: Case) -> None:
    """Real photographs, cut and scaled and saved in four classes; JPEG and WebP at quality 90, 4:2:0."""
    import numpy as np
    from PIL import Image
    from skimage import data

    size = case.size
    photos = [Image.fromarray(getattr(data, name)()).convert("RGB") for name in PHOTOS]
    rng = np.random.default_rng(0)
    given = {"quality": 90, "subsampling": 2} if case.encoding == "JPEG" else {"quality": 90}
    for number in range(case.count):
        photo = photos[number % len(photos)]
        share = rng.uniform(0.6, 1.0)
        width, height = int(photo.width * share), int(photo.height * share)
        left, top = rng.integers(photo.width - width + 1), rng.integers(photo.height - height + 1)
        cut = photo.crop((left, top, left + width, top + height)).resize(size, Image.Resampling.BICUBIC)
        # sensor noise: without it an enlarged photo is smoother, and so cheaper to decode, than a camera's
        noisy = np.asarray(cut, np.float32) + rng.normal(0, 4, (size[1], size[0], 1))
        place = folder / f"class{number % 4}"
        place.mkdir(parents=True, exist_ok=True)
        name = place / f"{number:04}.{case.encoding.lower()}"
        Image.fromarray(np.clip(noisy, 0, 255).astype(np.uint8)).save(name, case.encoding, **given)


def place_of(case: Case, top: Path) -> Path:
    """The folder of a case's files, or the tar of the same; made where it does not stand yet."""
    folder = top / f"{case.size[0]}x{case.size[1]}-{case.encoding}"
    if not folder.exists():
        write_photos(folder, case)
    if not case.tar:
        return folder
    archive = folder.with_suffix(".tar")
    if not archive.exists():
        with tarfile.open(archive, "w") as file:
            file.add(folder, arcname=".")
    return archive


def make_ours(place: str, case: Case, workers: int):
    import imgzoo_data

    training = case.kind == TRAIN
    transform = imgzoo_data.create_transform(
        training=training,
        auto_augment=case.policy,
        splits=case.splits or 1,
        interpolation="random" if training else "bicubic",
        input_size=(3, 224, 224),
        decode="exact" if case.kind == EVAL else "fast",
    )
    source = imgzoo_data.create_dataset(f"{'tar' if case.tar else 'folder'}:{place}")
    return imgzoo_data.create_loader(source, transform, case.batch, workers=workers)


def make_peer(place: str, case: Case, workers: int):
    import torch
    from timm.data import AugMixDataset, add_img_extensions, create_dataset, create_loader

    add_img_extensions(".webp")
    training = case.kind == TRAIN
    dataset = create_dataset("", root=place, is_training=training, split="train", search_split=False)
    if case.splits:
        dataset = AugMixDataset(dataset, num_splits=case.splits)
    return create_loader(
        dataset,
        input_size=(3, 224, 224),
        batch_size=case.batch,
        is_training=training,
        color_jitter=0.0,
        auto_augment=case.policy,
        num_aug_splits=case.splits,
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


def serve(who: str, place: str, case: list[Any], workers: int) -> None:
    """Run an epoch for each line read; answer with images, wall and CPU seconds."""
    make = make_ours if who == "imgzoo" else make_peer
    loader = make(place, Case(*case), workers)
    for _ in sys.stdin:
        images, wall, cpu = 0, time.perf_counter(), cpu_seconds()
        for batch_ in loader:
            images += len(batch_[0])
        answer = {"images": images, "wall": time.perf_counter() - wall, "cpu": cpu_seconds() - cpu}
        print(json.dumps(answer), flush=True)


def contender(who: str, place: Path, case: Case, workers: int) -> Contender:
    """A process that runs an epoch of one loader each time it is asked to."""
    environ = {} if case.kernels else {"IMGZOO_KERNELS": "0"}
    return Contender(__file__, who, str(place), case, workers, environ=environ)


def forget(place: Path) -> None:
    """Let the kernel drop the pages of files."""
    for path in [place] if place.is_file() else place.rglob("*.*"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def run_case(name: str, top: Path, workers: int, rounds: int) -> tuple[Row, Row]:
    """Alternate epochs of both contenders: milliseconds an image that a user waits, and of CPU time."""
    case = CASES[name]
    place = place_of(case, top)
    contenders = {who: contender(who, place, case, workers) for who in ("imgzoo", "peer")}

    def epoch(each: Contender) -> dict[str, float]:
        if case.cold:
            forget(place)
        return each.ask("epoch")

    for each in contenders.values():  # warm: files cached, workers up, memory touched
        each.ask("epoch")
    found = [{who: epoch(each) for who, each in contenders.items()} for _ in range(rounds)]
    for each in contenders.values():
        each.close()

    def pairs(what: str) -> list[tuple[float, float]]:
        return [tuple(row[who][what] / row[who]["images"] for who in contenders) for row in found]  # type: ignore[misc]

    work = f"loader, {name}, {workers} workers, an image"
    return (paired("loader", work, "ms", pairs("wall"), case.target, case.bound, 1e3),
            paired("loader", f"{work}, CPU time", "ms", pairs("cpu"), None, case.bound, 1e3))  # fmt: skip


def rows(args: argparse.Namespace) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as top:
        for name in args.cases or (["train 500x375"] if args.quick else CASES):
            wall, cpu = run_case(name, Path(top), args.workers, 2 if args.quick else 5)
            yield from (replace(wall, headline=name in HEADLINES), cpu)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("cases", nargs="*", metavar="CASE", help="; ".join(CASES))
    parser.add_argument("--workers", type=int, default=2)


if __name__ == "__main__":
    if "--serve" in sys.argv:
        serve(*json.loads(sys.argv[-1]))
    else:
        main(__doc__, rows, options)

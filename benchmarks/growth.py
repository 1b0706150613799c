"""How costs grow: the list with models, the index with files, the loader with workers, training with processes, a
checkpoint with size.

    .nox/imgzoo/bin/python benchmarks/growth.py [--quick] [--json out.json] [CURVE ...]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rows import OWN_PYTHON, Row, alone, main

PLUGINS, QUICK_PLUGINS = ((0, 0), (10, 100), (100, 100)), ((0, 0), (10, 100))  # (plugins, models of each)
FILES, QUICK_FILES = (10_000, 100_000, 1_000_000), (10_000,)
WORKERS = (0, 1, 2)
SIZES, QUICK_SIZES = (1_000_000, 10_000_000, 100_000_000), (1_000_000,)  # parameters
PLUGIN = """from imgzoo.plugin import *
from imgzoo.plugin import hookimpl
IMGZOO_API = (1, 0)

@hookimpl
def imgzoo_models():
    return [ModelSpec(f"net{{i}}_of_{number}", "package{number}:make") for i in range({models})]
"""
INDEX = """
import json, resource, sys, time
import imgzoo_data
start = time.process_time()
source = imgzoo_data.create_dataset("folder:" + sys.argv[1])
print(json.dumps([len(source), time.process_time() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024]))
"""
EPOCHS = """
import json, multiprocessing, re, sys
from pathlib import Path
import imgzoo_data

def own(pid):
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return sum(int(size) for size in re.findall(r"Private_\\w+: +(\\d+) kB", text)) / 1024

source = imgzoo_data.create_dataset("folder:" + sys.argv[1])
transform = imgzoo_data.create_transform(training=True, input_size=(3, 16, 16))
loader = imgzoo_data.create_loader(source, transform, 512, training=True, workers=2)
found = []
for epoch in range(3):
    images = sum(len(batch[0]) for batch in loader)
    found.append(sum(own(child.pid) for child in multiprocessing.active_children()))
print(json.dumps([len(source), images, found]))
"""
CHECKPOINT = """
import json, sys, tempfile, time
from pathlib import Path
import torch
from imgzoo_train import checkpoints
parts = {"model": {f"layer{i}.weight": torch.randn(int(sys.argv[1]) // 10) for i in range(10)}}
times = []
for i in range(3):
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        checkpoints.write(Path(folder) / "step", parts)
        times.append(time.perf_counter() - start)
print(min(times))
"""
REDUCE = """
import time
import torch, torch.distributed as dist
dist.init_process_group("gloo")
gradients, times = torch.zeros(11_181_642), []  # of resnet18 with ten classes
for i in range(6):
    start = time.perf_counter()
    dist.all_reduce(gradients)
    times.append(time.perf_counter() - start)
if dist.get_rank() == 0:
    print(min(times))
dist.destroy_process_group()
"""


def child(*arguments: str, **environ: str) -> str:
    env = {**os.environ, **environ}
    done = subprocess.run([str(OWN_PYTHON), *arguments], env=env, capture_output=True, text=True, check=True)
    return done.stdout


def listing(args: argparse.Namespace) -> Iterator[Row]:
    """CPU time of `imgzoo list` with more and more plugins beside the installed ones."""
    from start import LIST, cpu_seconds

    for plugins, models in QUICK_PLUGINS if args.quick else PLUGINS:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for number in range(plugins):
                info = folder / f"zoo{number}-1.0.dist-info"
                info.mkdir()
                (info / "entry_points.txt").write_text(f"[imgzoo.plugins]\nzoo{number} = package{number}._plugin\n")
                (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: zoo{number}\nVersion: 1.0\n")
                package = folder / f"package{number}"
                package.mkdir()
                (package / "__init__.py").write_text("")
                (package / "_plugin.py").write_text(PLUGIN.format(number=number, models=models))
            os.environ["PYTHONPATH"] = name
            seconds = min(cpu_seconds(*LIST) for _ in range(3 if args.quick else 7))
            del os.environ["PYTHONPATH"]
        work = f"imgzoo list, {plugins} more plugins, {plugins * models:,} more models, CPU time"
        yield alone("growth", work, "s", seconds, None if plugins else 0.2, "importing the plugins, printing")


def index(args: argparse.Namespace) -> Iterator[Row]:
    """CPU time and memory of indexing a folder of empty files."""
    base = indexed(1000)
    for count in QUICK_FILES if args.quick else FILES:
        found = indexed(count)
        yield alone("growth", f"indexing {count:,} files, CPU time", "s", found[1], None, "listing the folders")
        memory = max(found[2] - base[2], 0)
        yield alone("growth", f"indexing {count:,} files, memory", "MB", memory, None, "the names")


def indexed(count: int) -> list[float]:
    """Number, seconds and megabytes of a process that indexes a hundred classes of empty files, `count` in all."""
    with tempfile.TemporaryDirectory() as folder:
        for label in range(100):
            place = Path(folder) / f"class{label:03}"
            place.mkdir()
            for number in range(label, count, 100):
                os.close(os.open(place / f"{number:07}.jpg", os.O_CREAT | os.O_WRONLY))
        found = json.loads(child("-c", INDEX, folder))
    assert found[0] == count
    return found


def memory(args: argparse.Namespace) -> Iterator[Row]:
    """Memory of two loader workers' own after each of three epochs over many files, which link to a hundred images."""
    import numpy as np
    from PIL import Image

    count = QUICK_FILES[-1] if args.quick else FILES[-1]
    with tempfile.TemporaryDirectory() as folder:
        rng = np.random.default_rng(0)
        for label in range(100):
            place = Path(folder) / f"class{label:03}"
            place.mkdir()
            first = place / "0000000.png"
            Image.fromarray(rng.integers(0, 256, (16, 16, 3), np.uint8)).save(first)
            for number in range(1, count // 100):
                os.link(first, place / f"{number:07}.png")
        total, images, found = json.loads(child("-c", EPOCHS, folder))
    assert total == count and images > 0.9 * count
    for epoch, megabytes in enumerate(found, 1):
        work = f"memory of 2 loader workers, {count:,} files, epoch {epoch}"
        yield alone("growth", work, "MB", megabytes, None, "Python, torch and a batch; the names are shared")


def workers(args: argparse.Namespace) -> Iterator[Row]:
    """Images a second of the training loader by number of workers."""
    from loader import CASES, contender, place_of

    name = "train 500x375"
    case = CASES[name]._replace(**({"count": 128} if args.quick else {}))
    with tempfile.TemporaryDirectory() as top:
        folder = place_of(case, Path(top))
        for count in WORKERS:
            ours = contender("imgzoo", folder, case, count)
            ours.ask("epoch")
            found = [ours.ask("epoch") for _ in range(2 if args.quick else 3)]
            ours.close()
            speed = statistics.median(row["images"] / row["wall"] for row in found)
            yield alone("growth", f"loader, {name}, {count} workers", "images/s", speed, None,
                        f"{os.cpu_count()} cores, one of which feeds the batches")  # fmt: skip


def processes(args: argparse.Namespace) -> Iterator[Row]:
    """Images a second of DDP training on one and on two processes of one thread each, at the same batch a process.

    What two must do beside it is measured too: an all-reduce of as many gradients.
    """
    speeds = []
    for ranks in (1, 2):
        with tempfile.TemporaryDirectory() as folder:
            run = ["train", "resnet18", "--data", "digits:", "--epochs", "2", "--batch-size", "64", "--output", folder]
            run += ["--set", "data.input_size=32"]
            launch = ["launch", "-n", str(ranks)] if ranks > 1 else []
            child("-m", "imgzoo", *launch, *run, "--device", "cpu", OMP_NUM_THREADS="1")
            lines = next(Path(folder).rglob("metrics.jsonl")).read_text().splitlines()
        kept = [row for row in map(json.loads, lines) if row["kind"] == "train"][1:]
        speeds.append(statistics.median(row["images_per_second"] for row in kept))
        yield alone("growth", f"DDP training on {ranks} processes", "images/s", speeds[-1], None, "convolutions")
    share = speeds[1] / speeds[0] / 2
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "reduce.py"
        script.write_text(REDUCE)
        spent = float(child("-m", "torch.distributed.run", "--nproc-per-node", "2", str(script), OMP_NUM_THREADS="1"))
    bound = f"a step of {64e3 / speeds[0]:.0f} ms is followed by gradients of {spent * 1e3:.0f} ms; memory is shared"
    yield replace(alone("growth", "DDP efficiency from 1 to 2 processes", "", share, None, bound), headline=True)


def checkpoint(args: argparse.Namespace) -> Iterator[Row]:
    """Seconds until a checkpoint is safe on the disk, by number of parameters."""
    for count in QUICK_SIZES if args.quick else SIZES:
        seconds = float(child("-c", CHECKPOINT, str(count)))
        work = f"writing a checkpoint of {count:,} parameters"
        yield alone("growth", work, "s", seconds, None, "hashing and fsync; a thread beside training does it")


CURVES = {
    "list": listing,
    "index": index,
    "memory": memory,
    "workers": workers,
    "processes": processes,
    "checkpoint": checkpoint,
}


def rows(args: argparse.Namespace) -> Iterator[Row]:
    for name in args.curves or CURVES:
        yield from CURVES[name](args)


if __name__ == "__main__":
    main(__doc__, rows, lambda parser: parser.add_argument("curves", nargs="*", help=", ".join(CURVES)))

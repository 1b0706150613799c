"""What installing each distribution costs beyond its dependencies: bytes on disk and seconds of pip.

    .nox/imgzoo/bin/python benchmarks/install.py [--quick] [--json out.json]

The wheels of `dist/` (made by `python -m nox -s build`, built here when they are missing) are installed without their
dependencies into an empty folder; the peer's figures come from its wheel in the same way, when an index can be reached.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from rows import ROOT, Row, alone, main

PACKAGES = ("core", "layers", "archs-cnn", "archs-transformer", "archs-efficientnet", "optim", "data", "train")
PEER = "timm==1.0.31"
BOUND = "unpacking and compiling Python files"


def install(what: str) -> tuple[float, float]:
    """Seconds of pip, and megabytes of the folder it filled, compiled files included."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", folder, what]
        subprocess.run(command, check=True)
        seconds = time.perf_counter() - start
        size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
    return seconds, size / 1e6


def wheel(name: str, folder: Path) -> str:
    """The newest wheel of a package."""
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder)]
    subprocess.run([*command, str(ROOT / "packages" / name)], check=True, stdout=subprocess.DEVNULL)
    return str(next(folder.glob(f"imgzoo_{name.replace('-', '_')}-*.whl")))


def rows(args: argparse.Namespace) -> Iterator[Row]:
    total_seconds = total_size = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name in PACKAGES[: 2 if args.quick else None]:
            seconds, size = install(wheel(name, Path(folder)))
            total_seconds, total_size = total_seconds + seconds, total_size + size
            yield alone("install", f"installing imgzoo-{name}, size", "MB", size, None, "its Python files and catalogs")
            yield alone("install", f"installing imgzoo-{name}, time", "s", seconds, None, BOUND)
    try:
        peer_seconds, peer_size = install(PEER)
    except subprocess.CalledProcessError:
        print("the peer's wheel cannot be fetched here: its side of the sum stays empty")
        peer_seconds = peer_size = None
    size = alone("install", "installing all packages, size", "MB", total_size, None, "", True)
    seconds = alone("install", "installing all packages one by one, time", "s", total_seconds, None, BOUND)
    yield replace(size, peer=peer_size, ratio=peer_size and peer_size / total_size)
    yield replace(seconds, peer=peer_seconds, ratio=peer_seconds and peer_seconds / total_seconds)


if __name__ == "__main__":
    main(__doc__, rows)

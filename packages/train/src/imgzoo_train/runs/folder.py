"""The run folder: configuration, metrics, summary, environment, checkpoints, best weights, report."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import platform
import shutil
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from imgzoo.errors import UsageError
from imgzoo.text import json_text
from imgzoo_train.config.settings import Config
from imgzoo_train.files import storage

TIMES = ("seconds", "images_per_second", "data_wait", "eval_seconds")
"""Columns of a metrics row that no two runs share."""
MOST = float(10**300)
"""A number in a row of metrics beyond this is none of ours."""


class RunFolder:
    """Files of one run below `path`. `metrics.jsonl` is the record; the other tables are made from it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config_file = path / "config.toml"
        self.metrics_file = path / "metrics.jsonl"
        self.summary_file = path / "summary.csv"
        self.checkpoints = path / "checkpoints"
        self.best = path / "best"

    def create(self, config: Config) -> None:
        """Begin a run here; raises `UsageError` when there is one already, `StorageError` when it cannot be written."""
        storage.make_folder(self.path)
        self.refuse_existing()
        self.sweep()
        self.write_config(config)

    def sweep(self) -> None:
        """Remove what a process that was killed left half written or half removed; no other may be writing."""
        for part in self.path.rglob(".*.part"):
            part.unlink(missing_ok=True)
        for name in (".best-new", ".trash-*", "checkpoints/.partial-*", "checkpoints/.trash-*"):
            for folder in self.path.glob(name):
                shutil.rmtree(folder, ignore_errors=True)

    def refuse_existing(self) -> None:
        """Raise `UsageError` where there is a run already."""
        if self.metrics_file.exists() or self.checkpoints.exists():
            raise UsageError(f"{self.path} already holds a run; add --resume to go on, or choose another --output")

    def write_config(self, config: Config) -> None:
        """Write the settings that hold from now on."""
        storage.replace_text(self.config_file, config.dump())

    def describe(self, splits: Any, world: Any) -> None:
        """Write down what the run now runs on and its data, `environment.json`; held back images, `split.csv`."""
        told = {**environment(), "device": device_name(world.device), "ranks": world.size, "data": splits.to_dict()}
        storage.replace_text(self.path / "environment.json", json_text(told))
        if rows := splits.rows():
            storage.replace_text(self.path / "split.csv", rows)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row to `metrics.jsonl`."""
        storage.append_row(self.metrics_file, row)

    def rows(self) -> list[dict[str, Any]]:
        """All rows of `metrics.jsonl`, nan where the file has null; lines that are none are left out."""
        return self._read()[0]

    def _read(self) -> tuple[list[dict[str, Any]], int]:
        """The rows, and how many lines are damaged, not counting a last one that a crash cut short."""
        lines = self.metrics_file.read_bytes().split(b"\n") if self.metrics_file.is_file() else []
        read = [_row(line) for line in lines]
        damaged = sum(row is None and bool(line.strip()) for row, line in zip(read[:-1], lines))
        return [row for row in read if row is not None], damaged

    def rewind(self, step: int, kinds: Mapping[str, bool]) -> int:
        """Drop rows after `step`; those at `step` stay if `kinds` says that their kind was done.

        Returns the number of damaged lines; a file that has some is kept as `metrics.damaged.jsonl`.
        """
        rows, damaged = self._read()
        if damaged:
            self.metrics_file.replace(self.metrics_file.with_suffix(".damaged.jsonl"))
        kept = [row for row in rows if row["step"] < step or (row["step"] == step and kinds.get(row["kind"], False))]
        storage.replace_text(self.metrics_file, "".join(json_text(row, None) + "\n" for row in kept))
        return damaged

    def write_summary(self) -> None:
        """Write `summary.csv`, one line an evaluation, from the metrics."""
        rows = [row for row in self.rows() if row["kind"] == "eval"]
        names = list(dict.fromkeys(name for row in rows for name in row if name != "kind"))
        text = io.StringIO()
        writer = csv.DictWriter(text, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows({name: row.get(name) for name in names} for row in rows)
        storage.replace_text(self.summary_file, text.getvalue())

    def replace_best(self, write: Any) -> None:
        """Let `write(folder)` fill a new folder and put it in the place of `best/`."""
        new = self.path / ".best-new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        try:
            write(new)
        except Exception:
            shutil.rmtree(new, ignore_errors=True)
            raise
        if self.best.exists():
            storage.remove_folder(self.best)
        new.rename(self.best)
        storage.sync_folder(self.path)


def _row(line: bytes) -> dict[str, Any] | None:
    """A line of `metrics.jsonl`: a kind, a step and other numbers by name; None for what is no such row."""
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or not isinstance(row.get("kind"), str):
        return None
    row = {name: math.nan if value is None else value for name, value in row.items()}
    numbers = [value for name, value in row.items() if name != "kind"]
    if any(isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > MOST for value in numbers):
        return None
    places = row.get("step"), row.get("epoch", 0)
    return row if isinstance(places[0], int) and math.isfinite(places[1]) else None


def environment() -> dict[str, Any]:
    """What this run runs on."""
    import torch

    packages = {}
    for name in ("imgzoo-core", "imgzoo-layers", "imgzoo-optim", "imgzoo-data", "imgzoo-train", "numpy", "pillow"):
        try:
            packages[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "folder": os.path.abspath(os.curdir),
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "packages": packages,
    }


def device_name(device: Any) -> str:
    """A device as one buys it, where torch knows."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)

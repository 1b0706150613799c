"""A run folder as its report sees it: whatever is there, and in words what is not."""

from __future__ import annotations

import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from imgzoo.errors import UsageError
from imgzoo_train.files.storage import is_held
from imgzoo_train.runs.folder import RunFolder
from imgzoo_train.scores.metrics import METRICS, better, oriented

from .record import EVALUATION, FOLDER, SEEN

DAMAGED = (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError, ZeroDivisionError)
"""What reading raises where a file holds other values than a run writes."""
AVERAGE = re.compile(r"_(ema(-[\d.e-]+)?|swa)$")
"""The end of a score's name that says which average of the weights it is of."""
Row = Mapping[str, Any]


@dataclass
class RunFiles:
    """The files of a run folder, read; what is missing or damaged is empty, and `missing` says so by name."""

    path: Path
    settings: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    """The settings as written."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    evaluation: dict[str, Any] = field(default_factory=dict)
    seen: list[dict[str, Any]] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.path.absolute().name

    def setting(self, key: str, default: Any = None) -> Any:
        """A setting by its dotted name."""
        value: Any = self.settings
        for part in key.split("."):
            value = value.get(part) if isinstance(value, dict) else None
        return default if value is None else value

    @property
    def task(self) -> str:
        found = self.evaluation.get("task") or self.setting("loss.task", "classification")
        return found if found in METRICS else "classification"

    @property
    def model(self) -> str:
        return str(self.setting("model.name") or "a model")

    @property
    def source(self) -> str:
        return str(self.setting("data.source") or "unknown data").removesuffix(":")

    @property
    def metric(self) -> str:
        """What decides which weights are best."""
        return str(self.summary.get("metric") or self.setting("run.metric") or METRICS[self.task].score)

    @cached_property
    def training(self) -> list[Row]:
        return [row for row in self.rows if row.get("kind") == "train"]

    @cached_property
    def scored(self) -> list[Row]:
        return [row for row in self.rows if row.get("kind") == "eval"]

    @property
    def step(self) -> int:
        return max((row.get("step", 0) for row in self.rows), default=0)

    @property
    def epochs(self) -> float:
        """Epochs done."""
        return max((row.get("epoch", 0) for row in self.rows), default=0)

    @property
    def state(self) -> str:
        """`finished`, `running`, or `stopped` before its end."""
        if self.summary and self.summary.get("step", 0) >= self.step:
            return "finished"
        return "running" if is_held(self.path) else "stopped"

    @cached_property
    def best(self) -> tuple[dict[str, float], str, Any]:
        """Scores of the best weights, which weights these are, and their step."""
        if self.state == "finished":
            return self.summary.get("best") or {}, self.summary.get("best_weights", ""), self.summary.get("best_step")
        if self.evaluation.get("metrics"):
            told = self.evaluation
            return told["metrics"], told.get("weights", ""), told.get("step")
        found: tuple[dict[str, float], str, Any] = {}, "", None
        for row in self.scored:
            for ending in dict.fromkeys(("", *(m[0] for name in row if (m := AVERAGE.search(name))))):
                value, before = row.get(f"{self.metric}{ending}"), found[0].get(self.metric)
                least = None if before is None else oriented(self.metric, before)
                if isinstance(value, (int, float)) and better(oriented(self.metric, value), least):
                    own = {name.removesuffix(ending): row[name] for name in row if name.endswith(ending)}
                    found = own, ending.removeprefix("_") or "raw", row.get("step")
        return found

    def says(self, file: str, what: str) -> str:
        """The sentence for a section that lacks its file."""
        reason = self.missing.get(file, "holds none of it")
        return f"{what} cannot be shown: {file} {reason}."


def open_run(path: Path) -> RunFiles:
    """Read a run folder. Raises `UsageError` for what is none."""
    folder = RunFolder(path)
    if not folder.config_file.is_file() and not folder.metrics_file.is_file():
        raise UsageError(f"{path} is no run folder: it has neither config.toml nor metrics.jsonl")
    run = RunFiles(path)
    try:
        run.text = folder.config_file.read_text(encoding="utf-8")
        run.settings = tomllib.loads(run.text)
    except (OSError, ValueError, RecursionError) as error:
        run.missing["config.toml"] = reason_of(error)
    try:
        run.rows = folder.rows()
    except OSError as error:
        run.missing["metrics.jsonl"] = reason_of(error)
    if not folder.metrics_file.is_file():
        run.missing["metrics.jsonl"] = "is not there: the run had no log row yet"
    elif not run.rows and folder.metrics_file.stat().st_size:
        run.missing.setdefault("metrics.jsonl", "is damaged")
    run.summary = _read(run, "summary.json", dict)
    run.environment = _read(run, "environment.json", dict)
    run.evaluation = _read(run, f"{FOLDER}/{EVALUATION}", dict)
    run.seen = _read(run, f"{FOLDER}/{SEEN}", list)
    return run


def _read(run: RunFiles, name: str, kind: type) -> Any:
    """A JSON file of the run; empty, with the reason noted, where it is not there or damaged."""
    try:
        value = json.loads((run.path / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        run.missing[name] = reason_of(error)
        return kind()
    if isinstance(value, kind):
        return value
    run.missing[name] = "is damaged"
    return kind()


def reason_of(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "is not there: the run is older than this report, or has not come that far"
    return (
        f"cannot be read ({os.strerror(error.errno)})" if isinstance(error, OSError) and error.errno else "is damaged"
    )


@dataclass(frozen=True)
class Times:
    """Seconds of a run, and on what they went."""

    whole: float
    computing: float
    waiting: float
    evaluating: float
    images: float

    @property
    def rate(self) -> float:
        """Images a second while it trained."""
        return self.images / max(1e-9, self.computing + self.waiting)

    @property
    def bound(self) -> str:
        """What bounded the run: `data`, `evaluation`, `compute`, or nothing where nothing trained."""
        trained = self.computing + self.waiting
        if not trained:
            return ""
        if self.waiting > 0.3 * trained:
            return "data"
        return "evaluation" if self.evaluating > trained else "compute"


def times_of(rows: list[Any]) -> Times:
    """Where the time went; the clock of a row begins anew with each resume."""
    whole, last = 0.0, 0.0
    for row in rows:
        now = row.get("seconds", 0.0)
        whole += now - last if now >= last else now
        last = now
    training = [row for row in rows if row.get("kind") == "train" and row.get("images_per_second")]
    spent = [row["images"] / row["images_per_second"] for row in training]
    waiting = sum(row.get("data_wait", 0.0) * seconds for row, seconds in zip(training, spent))
    evaluating = sum(row.get("eval_seconds", 0.0) for row in rows)
    return Times(whole, sum(spent) - waiting, waiting, evaluating, sum(row["images"] for row in training))

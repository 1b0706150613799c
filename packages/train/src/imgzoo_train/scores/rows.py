"""A row for every image that was scored: its name, what is right, what the model says and how sure it is."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imgzoo.errors import MissingDependencyError, UsageError
from imgzoo_train.files.storage import safe_cell
from imgzoo_train.models.answers import Answer


class Samples:
    """Collects the outputs of an evaluation; `rows` has them as plain values."""

    def __init__(self, answer: Answer, labels: Sequence[str], key: Callable[[int], str]) -> None:
        self.answer, self.labels, self.key = answer, list(labels), key
        self.found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def __call__(self, output: torch.Tensor, targets: torch.Tensor, indices: Any) -> None:
        scores = self.answer.activate(output).cpu().numpy().astype(np.float32)
        self.found.append((np.asarray(indices), targets.cpu().numpy(), scores))

    def rows(self) -> list[dict[str, Any]]:
        """`{"key", "target", "answer", "scores"}`: names of classes (lists where several hold), or numbers."""
        found = []
        for indices, targets, scores in self.found:
            for index, target, score in zip(indices.tolist(), targets, scores):
                named = {"target": self._named(target, 0.5), "answer": self._named(score, 0.5)}
                if self.answer.task == "classification":
                    named = {"target": self.labels[int(target)], "answer": self.labels[int(score.argmax())]}
                found.append({"key": self.key(index), **named, "scores": score.tolist()})
        return found

    def _named(self, values: np.ndarray, above: float) -> Any:
        values = np.atleast_1d(values)
        if self.answer.task == "regression":
            return values.astype(float).tolist()
        return [label for label, value in zip(self.labels, values) if value > above]


def write_rows(rows: list[dict[str, Any]], path: Path) -> None:
    """Write rows as Parquet, JSON lines or CSV, by the name of the file."""
    WRITERS[path.suffix](rows, path)


def _parquet(rows: list[dict[str, Any]], path: Path) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("parquet needs pyarrow: pip install imgzoo-train[parquet]") from error
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def _jsonl(rows: list[dict[str, Any]], path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _csv(rows: list[dict[str, Any]], path: Path) -> None:
    """Nested cells become JSON text, so that a sheet has one column a field."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", encoding="utf-8", newline="", errors="backslashreplace") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for row in rows:
            cells = {
                key: value if isinstance(value, (str, int, float)) else json.dumps(value) for key, value in row.items()
            }
            writer.writerow({key: safe_cell(cell) if isinstance(cell, str) else cell for key, cell in cells.items()})


WRITERS = {".parquet": _parquet, ".jsonl": _jsonl, ".csv": _csv}


def check_name(path: Path | None, option: str) -> None:
    """Raise `UsageError` for a file of another kind."""
    if path is not None and path.suffix not in WRITERS:
        raise UsageError(f"{option} takes {', '.join(WRITERS)}, not '{path.suffix}'")

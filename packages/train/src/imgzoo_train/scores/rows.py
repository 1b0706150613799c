"""A row for every image that was scored: its name, what is right, what the model says and how sure it is."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imgzoo.errors import MissingDependencyError
from imgzoo.text import escaped, json_text
from imgzoo_train.files.storage import check_file, replace_file, safe_cell
from imgzoo_train.models.answers import Answer


class Samples:
    """Collects the outputs of an evaluation; `rows` has them as plain values."""

    def __init__(self, answer: Answer, labels: Sequence[str], key: Callable[[int], str],
                 threshold: float = 0.5) -> None:  # fmt: skip
        self.answer, self.labels, self.key, self.threshold = answer, list(labels), key, threshold
        self.found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def __call__(self, output: torch.Tensor, targets: torch.Tensor, indices: Any) -> None:
        scores = self.answer.activate(output).cpu().numpy().astype(np.float32)
        self.found.append((np.asarray(indices), targets.cpu().numpy(), scores))

    def rows(self) -> list[dict[str, Any]]:
        """`{"key", "target", "answer", "scores"}`: names of classes (lists where several hold), or numbers."""
        found = []
        for indices, targets, scores in self.found:
            for index, target, score in zip(indices.tolist(), targets, scores):
                named = {"target": self._named(target, 0.5), "answer": self._named(score, self.threshold)}
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
    """Write rows as Parquet, JSON, JSON lines or CSV, by the name of the file: as a whole or not at all.

    Raises `StorageError` where the file cannot be written.
    """
    replace_file(path, ENCODERS[path.suffix.lower()](rows))


def _parquet(rows: list[dict[str, Any]]) -> bytes:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("parquet needs pyarrow: pip install imgzoo-train[parquet]") from error
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(_unicode(rows)), out)
    return out.getvalue()


def _unicode(value: Any) -> Any:
    """The value with its texts escaped, since the name of a file may be what no table of Unicode can hold."""
    if isinstance(value, dict):
        return {key: _unicode(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_unicode(item) for item in value] if value and not isinstance(value[0], float) else value
    return escaped(value, "") if isinstance(value, str) else value


def _json(rows: list[dict[str, Any]]) -> bytes:
    return json_text(rows).encode()


def _jsonl(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json_text(row, None) + "\n" for row in rows).encode()


def _csv(rows: list[dict[str, Any]]) -> bytes:
    """Nested cells become JSON text, so that a sheet has one column a field; what is no finite number is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, list(dict.fromkeys(name for row in rows for name in row)))
    writer.writeheader()
    for row in rows:
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return out.getvalue().encode(errors="backslashreplace")


def _cell(value: Any) -> Any:
    if value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return safe_cell(value if isinstance(value, str) else json_text(value, None))


ENCODERS = {".parquet": _parquet, ".json": _json, ".jsonl": _jsonl, ".csv": _csv}


def check_name(path: Path | None) -> None:
    """Raise `UsageError` for a file of another kind, and for one that cannot be written; leaves nothing."""
    check_file(path, *ENCODERS)

"""Weights of classes: from their counts, or from a file."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from imgzoo.errors import UsageError

MODES = ("balanced", "effective", "positives")


def class_weights(
    counts: torch.Tensor,
    mode: str,
    beta: float = 0.999,
    *,
    total: int | None = None,
    power: float = 1.0,
    most: float | None = None,
) -> torch.Tensor:
    """Weights (C) of classes from their counts.

    Args:
        mode: `balanced` (1 / count) or `effective` (arXiv:1901.05555), both with mean 1 over samples; `positives`:
            how many samples lack the class over how many have it, which scales the positive side (`pos_weight`).
        beta: of `effective`.
        total: number of samples, which `positives` needs.
        power: exponent that tempers the weights: 0.5 takes their root.
        most: the largest weight.
    """
    if mode not in MODES:
        raise UsageError(f"class weights are {', '.join(MODES)}, not '{mode}'")
    counts = counts.double()
    some = counts.clamp(min=1)
    if mode == "positives":
        if total is None or bool((counts > total).any()):
            raise UsageError("weights of positives need `total`, the number of samples, at least the largest count")
        weight = (total - counts) / some
    elif mode == "effective":
        weight = (1 - beta) / (1 - torch.pow(torch.tensor(beta, dtype=torch.float64, device="cpu"), some))
    else:
        weight = 1.0 / some
    weight = torch.where(counts > 0, weight**power, torch.zeros_like(weight))
    if mode != "positives":
        weight = weight * counts.sum() / (weight * counts).sum().clamp(min=1e-12)
    return (weight if most is None else weight.clamp(max=most)).float()


def parse_weights(text: str) -> tuple[str, Path | None]:
    """`balanced`, `balanced:statistics.json` or `weights.txt` as (mode, file); no mode where the file holds weights.

    Raises `UsageError` for what is neither a mode nor a file.
    """
    mode, _, path = text.partition(":")
    if mode not in MODES or Path(text).is_file():
        mode, path = "", text
    if path and not Path(path).is_file():
        raise UsageError(
            f"--class-weights is {', '.join(MODES)}, one of them with a file of statistics ({MODES[0]}:FILE), or a "
            f"file of weights, not '{text}'"
        )
    return mode, Path(path) if path else None


def read_class_weights(path: str | Path, names: Sequence[str], key: str = "class_weight") -> torch.Tensor:
    """Weights (C) out of a file: numbers in the order of the classes, as text or JSON, or a JSON table by class name.

    A table may hold the numbers under `key`, as the field's files do. Raises `UsageError` naming what does not fit.
    """
    path = Path(path)
    try:
        text = path.read_text("utf-8")
        value: Any = json.loads(text) if path.suffix == ".json" else [float(x) for x in re.split(r"[\s,;]+", text) if x]
    except (OSError, UnicodeDecodeError, ValueError) as error:
        raise UsageError(f"{path} is no file of class weights ({error}): numbers, or JSON") from error
    if isinstance(value, Mapping):
        value = value[key] if key in value else _by_name(path, value, names)
    if not isinstance(value, list) or not all(isinstance(x, (int, float)) and 0 <= x < float("inf") for x in value):
        raise UsageError(f"{path} must hold a number of at least 0 for each class, or a table '{key}'")
    if len(value) != len(names):
        raise UsageError(f"{path} holds {len(value)} weights for {len(names)} classes")
    return torch.tensor(value, dtype=torch.float32, device="cpu")


def _by_name(path: Path, table: Mapping[str, Any], names: Sequence[str]) -> list[Any]:
    missing = [name for name in names if name not in table]
    unknown = [name for name in table if name not in set(names)]
    if missing or unknown:
        what = f"has no class '{missing[0]}'" if missing else f"names '{unknown[0]}', which the data lacks"
        raise UsageError(f"{path} {what}")
    return [table[name] for name in names]


def read_class_counts(path: str | Path, names: Sequence[str]) -> tuple[torch.Tensor, int]:
    """Positives of each class (C) and number of samples, out of a JSON file with `pos_counts` and `num_samples`.

    The counts stand in the order of the classes, or in a table by class name.
    """
    path = Path(path)
    try:
        table = json.loads(path.read_text("utf-8"))
        counts, total = table["pos_counts"], int(table["num_samples"])
        counts = _by_name(path, counts, names) if isinstance(counts, Mapping) else counts
        counts = torch.tensor(counts, dtype=torch.float64, device="cpu")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no file of class statistics: JSON with pos_counts and num_samples") from error
    if len(counts) != len(names):
        raise UsageError(f"{path} counts {len(counts)} classes, the data has {len(names)}")
    if counts.ndim != 1 or bool((counts < 0).any() | (counts > total).any()):
        raise UsageError(f"{path}: every count of a class lies between 0 and num_samples, {total}")
    return counts, total

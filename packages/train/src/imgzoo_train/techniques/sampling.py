"""Which samples of a source are trained on: folds of a cross-validation, and rare classes more often."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

from imgzoo.errors import UsageError
from imgzoo_data.sources.base import Sample, Source


class Picked(Source):
    """Some samples of a source, or some of them several times: sample i is `source[indices[i]]`."""

    def __init__(self, source: Any, indices: np.ndarray) -> None:
        self.source, self.indices = source, indices
        self.class_names, self.num_classes = source.class_names, source.num_classes
        self.multi_label, self.name = source.multi_label, source.name

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.source[int(self.indices[index])]

    def key(self, index: int) -> str:
        return self.source.key(int(self.indices[index]))

    def targets(self) -> np.ndarray:
        return np.asarray(self.source.targets())[self.indices]


def balanced(source: Any, mode: str) -> Picked:
    """An epoch in which rare classes come more often; nothing is left out, so it is longer.

    `balanced` repeats every class to the size of the largest, `sqrt` to the geometric mean of its own and the largest
    (arXiv:1805.00932). An image of several labels is repeated as its rarest one (arXiv:1908.03195).
    """
    targets = np.asarray(source.targets())
    if targets.dtype.kind == "f" and not source.multi_label:
        raise UsageError("--sampler balances classes; a regression has none")
    table = targets > 0.5 if targets.ndim > 1 else np.eye(source.num_classes, dtype=bool)[targets]
    counts = table.sum(0)
    factors = np.where(counts, counts.max() / np.maximum(counts, 1), 1.0)
    factors = np.sqrt(factors) if mode == "sqrt" else factors
    repeats = np.where(table, factors, 1.0).max(1)
    ends = np.floor(np.cumsum(repeats) + 1e-9).astype(np.int64)
    return Picked(source, np.repeat(np.arange(len(targets)), np.diff(ends, prepend=0)))


def fold_of(source: Any, folds: int) -> np.ndarray:
    """(N,) the fold of each sample: by the hash of its name within its class, so that a fold has a share of each."""
    targets = np.asarray(source.targets())
    keys = [hashlib.sha256(source.key(i).encode(errors="surrogatepass")).digest() for i in range(len(source))]
    groups: dict[bytes, list[int]] = {}
    for index in sorted(range(len(source)), key=keys.__getitem__):
        groups.setdefault(b"" if targets.dtype.kind == "f" else targets[index].tobytes(), []).append(index)
    found = np.zeros(len(source), np.int64)
    start = 0
    for group in groups.values():
        found[group] = (np.arange(len(group)) + start) % folds
        start += len(group)
    return found


def split_folds(source: Any, folds: int, fold: int) -> tuple[Picked, Picked]:
    """Training and validation part of a cross-validation; raises `UsageError` for a fold that there is not."""
    if not 0 <= fold < folds or folds > len(source) or folds < 2:
        raise UsageError(f"fold {fold} of {folds} of {len(source)} images: folds are at least 2, counted from 0")
    own = fold_of(source, folds) == fold
    return Picked(source, np.flatnonzero(~own)), Picked(source, np.flatnonzero(own))

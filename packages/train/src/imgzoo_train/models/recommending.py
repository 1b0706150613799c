"""Find the most accurate model within a latency, measured on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from imgzoo.errors import UsageError

from .speed import Row, Settings, benchmark

FIRST = 3


@dataclass
class Candidate:
    """A model with published weights: accuracy in percent, and cost at its size."""

    name: str
    top1: float
    gmacs: float
    macts: float
    params: float
    size: int
    license: str


def candidates(
    patterns: Sequence[str] = (), license: str = "", min_top1: float | None = None, max_params: float | None = None
) -> list[Candidate]:
    """Published weights whose accuracy and cost are known, no two of the same architecture and size.

    `max_params` is in millions.
    """
    from imgzoo.query import COLUMNS, Query, search

    columns = ("top1", "gmacs", "macts", "params", "size", "license", "classes")
    query = Query(
        patterns=tuple(patterns), license=license, min_top1=min_top1, pretrained=True,
        max_params=None if max_params is None else 1e6 * max_params,
        columns=columns, sort="-top1",
    )  # fmt: skip
    found: dict[tuple[str, int], Candidate] = {}
    for row in search(query):
        cells = {name: COLUMNS[name](row) for name in columns}
        if None in (cells["top1"], cells["gmacs"], cells["macts"], cells["size"]):
            continue
        key = (row.spec.name, cells["size"])
        cells.pop("classes")
        cells["license"] = cells["license"] or ""
        found.setdefault(key, Candidate(row.name, **cells))
    return list(found.values())


class CostModel:
    """Milliseconds from GMACs, activations and a constant, fitted to what was measured so far."""

    def __init__(self) -> None:
        self.rows: list[tuple[Candidate, float]] = []

    def add(self, candidate: Candidate, milliseconds: float) -> None:
        self.rows.append((candidate, milliseconds))

    def __call__(self, candidate: Candidate) -> float:
        """The predicted milliseconds; rates never become negative."""
        table = np.array([[row.gmacs, row.macts, 1.0] for row, _ in self.rows])
        times = np.array([time for _, time in self.rows])
        scale = 1.0 / np.maximum(times, 1e-9)
        rates = _nonnegative(table * scale[:, None], times * scale)
        return float(rates @ [candidate.gmacs, candidate.macts, 1.0])


def _nonnegative(table: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Least squares with coefficients of at least 0: columns that would be negative are left out one by one."""
    used = list(range(table.shape[1]))
    while used:
        found = np.linalg.lstsq(table[:, used], wanted, rcond=None)[0]
        if (found >= -1e-12).all():
            break
        used.pop(int(np.argmin(found)))
    result = np.zeros(table.shape[1])
    result[used] = np.maximum(found, 0) if used else 0
    return result


def recommend(
    max_ms: float,
    settings: Settings,
    rows: Sequence[Candidate],
    *,
    most: int = 12,
    seconds: float = 120.0,
    watch: Callable[[str], None] = print,
) -> tuple[Row | None, list[Row]]:
    """The best measured model within `max_ms` (its slower runs included), and all that was measured.

    At most `most` models are measured in about `seconds`: a few cheap ones to fit the cost model, then the most
    accurate ones predicted to fit. Raises `UsageError` when nothing is known to choose from.
    """
    if not rows:
        raise UsageError("no model with known accuracy and cost fits; loosen the conditions")
    deadline, model = time.monotonic() + seconds, CostModel()
    measured: dict[str, Row] = {}

    def look(candidate: Candidate) -> Row:
        row = benchmark(candidate.name.partition(".")[0], replace(settings, img_size=candidate.size), ["inference"])
        row |= {"model": candidate.name, "top1": candidate.top1, "gmacs": candidate.gmacs, "license": candidate.license}
        row["fits"] = row["ms_p90"] <= max_ms
        model.add(candidate, row["ms_p50"])
        measured[candidate.name] = row
        watch(f"{candidate.name}: {row['ms_p50']:.1f} ms, top-1 {candidate.top1:.1f}")
        return row

    by_cost = sorted(rows, key=lambda row: row.gmacs)
    for index in sorted({0, len(by_cost) // 20, len(by_cost) // 8})[:FIRST]:
        look(by_cost[index])
    while len(measured) < most and time.monotonic() < deadline:
        best = max((row["top1"] for row in measured.values() if row["fits"]), default=-1.0)
        left = [row for row in rows if row.name not in measured and row.top1 > best and model(row) <= 1.15 * max_ms]
        if not left:
            break
        look(max(left, key=lambda row: row.top1))
    table = sorted(measured.values(), key=lambda row: (-row["fits"], -row["top1"]))
    return (table[0] if table[0]["fits"] else None), table

"""Figures of a report as data: the page draws them with the chart library, `drawing` as plain SVG where it has none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .reading import AVERAGE, RunFiles

POINTS = 1000
"""Most points of a line; more are averaged."""


@dataclass(frozen=True)
class Line:
    """A line, the bars or the points of a figure; `color` is one of the six of the stylesheet."""

    name: str
    x: list[float]
    y: list[float]
    color: int = 0
    dashed: bool = False
    kind: str = "line"
    """`line`, `bar` or `point`."""


@dataclass(frozen=True)
class Figure:
    """Lines in one frame with named axes."""

    title: str
    across: str
    up: str
    lines: list[Line] = field(default_factory=list)
    smooth: bool = False
    """Whether the reader's smoothing changes it."""
    range: tuple[float, float] | None = None
    """Of both axes; else what the lines need."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def line(name: str, rows: Iterable[Any], key: str, color: int, *, dashed: bool = False) -> list[Line]:
    """The values of a column over the epochs, at most so many points; nothing where there is none."""
    points = [
        (row["epoch"], row[key]) for row in rows
        if all(isinstance(row.get(each), (int, float)) and math.isfinite(row[each]) for each in ("epoch", key))
    ]  # fmt: skip
    step = -(-len(points) // POINTS)
    groups = [points[at : at + step] for at in range(0, len(points), step or 1)]
    x, y = ([float(f"{sum(p[axis] for p in group) / len(group):.6g}") for group in groups] for axis in (0, 1))
    return [Line(name, x, y, color, dashed)] if points else []


def averages(rows: Iterable[Any]) -> list[str]:
    """The endings of scores of averaged weights, `_ema` and the like."""
    return list(dict.fromkeys(found[0] for row in rows for name in row if (found := AVERAGE.search(name))))


def curves(run: RunFiles) -> list[Figure]:
    """Loss and score of both splits and of averaged weights, learning rate, gradient and speed over the epochs."""
    endings = averages(run.scored)
    losses = line("training", run.training, "loss", 0) + line("validation", run.scored, "loss", 1)
    scores = line("validation", run.scored, run.metric, 1)
    for place, ending in enumerate(endings):
        name = f"validation, {ending[1:]}"
        losses += line(name, run.scored, f"loss{ending}", 2 + place % 4, dashed=True)
        scores += line(name, run.scored, f"{run.metric}{ending}", 2 + place % 4, dashed=True)
    found = [
        Figure("Loss", "epoch", "loss", losses, smooth=True),
        Figure(f"Score: {title(run.metric)}", "epoch", unit(run.metric), scores, smooth=True),
        Figure("Learning rate", "epoch", "largest of all groups", line("learning rate", run.training, "lr", 0)),
        Figure("Gradient", "epoch", "2-norm before clipping", line("gradient", run.training, "grad_norm", 0), True),
        Figure("Speed", "epoch", "images a second", line("training", run.training, "images_per_second", 0), True),
        Figure("Waiting for data", "epoch", "share of the time", line("waiting", run.training, "data_wait", 1)),
    ]  # fmt: skip
    return [each for each in found if each.lines]


TITLES = {
    "top1": "top-1 accuracy", "top5": "top-5 accuracy", "balanced_accuracy": "balanced accuracy",
    "f1": "F1, mean of classes", "calibration_error": "calibration error", "map": "mean average precision",
    "f1_micro": "F1 over all answers", "f1_macro": "F1, mean of classes", "f1_samples": "F1, mean of images",
    "exact": "exact matches", "mae": "mean absolute error", "r2": "R²", "loss": "loss", "n": "images",
    "left_out": "images left out", "nonfinite": "images without a finite answer",
}  # fmt: skip
PLAIN = ("loss", "mae", "calibration_error", "n", "left_out", "nonfinite")
"""Scores that are no percentages."""


def title(metric: str) -> str:
    """A score in words, whatever weights it is of."""
    ending = AVERAGE.search(metric)
    base = metric[: ending.start()] if ending else metric
    return TITLES.get(base, base) + (f" ({ending[0][1:]})" if ending else "")


def unit(metric: str) -> str:
    return title(metric) + ("" if AVERAGE.sub("", metric) in PLAIN else ", %")


def reliability(bins: Sequence[Sequence[float]]) -> list[Figure]:
    """How often answers are right, by how sure they were, and how many were how sure; (3, bins) sums."""
    counts, _, hits = bins
    size, total = len(counts), max(1.0, sum(counts))
    places = [place for place in range(size) if counts[place]]
    middle = [(place + 0.5) / size for place in range(size)]
    right = Line("right", [middle[at] for at in places], [hits[at] / counts[at] for at in places], 0, kind="bar")
    ideal = Line("as sure as right", [0, 1], [0, 1], 1, dashed=True)
    images = Line("images", middle, [count / total for count in counts], 2, kind="bar")
    across = "how sure the model was"
    return [
        Figure("Reliability", across, "share that was right", [right, ideal], range=(0.0, 1.0)),
        Figure("How sure it was", across, "share of the images", [images]),
    ]


def scatter(points: Sequence[Any]) -> list[Figure]:
    """Predicted against true values, a figure an output."""
    found = []
    for each in points:
        pairs = [(x, y) for x, y in zip(each["true"], each["answer"]) if x is not None and y is not None]
        if not pairs:
            continue
        low, high = min(map(min, pairs)), max(map(max, pairs))
        drawn = Line("images", [x for x, _ in pairs], [y for _, y in pairs], 0, kind="point")
        ideal = Line("predicted as true", [low, high], [low, high], 1, dashed=True)
        found.append(Figure(f"Output {each['name']}", "true", "predicted", [drawn, ideal]))
    return found

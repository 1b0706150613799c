"""Scores as sums: each batch adds to them, ranks add theirs up once, and the result is read off at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F

from imgzoo.errors import UsageError
from imgzoo_train.config.settings import Config
from imgzoo_train.ranks.world import World

BINS = 15


class Classification:
    """Top-1, top-5, loss, confusion, balanced accuracy, F1 and calibration of (B, C) logits against class numbers.

    Accuracies are percentages. `score` names what decides about the best model, `names` all that is measured.
    """

    score = "top1"
    names = ("n", "loss", "top1", "top5", "balanced_accuracy", "f1", "calibration_error")

    def __init__(self, classes: int, device: torch.device | None = None) -> None:
        self.classes = classes
        self.totals = torch.zeros(4, dtype=torch.float64, device=device)  # samples, loss, top-1, top-5
        self.confusion = torch.zeros(classes, classes, dtype=torch.float64, device=device)
        self.bins = torch.zeros(3, BINS, dtype=torch.float64, device=device)  # samples, confidence, hits

    def update(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Add a batch; returns the loss of each sample. An output with a NaN is never right."""
        output = output.float()
        losses = F.cross_entropy(output, target, reduction="none")
        ranked = output.topk(min(5, output.shape[1]), 1).indices
        known = ~output.isnan().any(1)
        hits = (ranked == target[:, None]) & known[:, None]
        first = hits[:, 0].double()
        self.totals += torch.stack(
            [first.new_tensor(len(target)), losses.double().sum(), first.sum(), hits.any(1).double().sum()]
        )
        cells = target * self.classes + torch.where(known, ranked[:, 0], (target + 1) % self.classes)
        self.confusion.view(-1).index_add_(0, cells, torch.ones_like(cells, dtype=torch.float64))
        confidence = output.softmax(1).amax(1).nan_to_num().double()
        slot = (confidence * BINS).long().clamp(max=BINS - 1)
        for row, value in enumerate((torch.ones_like(confidence), confidence, first)):
            self.bins[row].index_add_(0, slot, value)
        return losses

    def reduce(self, world: World) -> None:
        """Add up the sums of all ranks."""
        flat = torch.cat([self.totals, self.confusion.flatten(), self.bins.flatten()])
        world.reduce(flat)
        count = self.confusion.numel()
        self.totals, self.confusion = flat[:4], flat[4 : 4 + count].view_as(self.confusion)
        self.bins = flat[4 + count :].view_as(self.bins)

    def result(self) -> dict[str, float]:
        count, loss, top1, top5 = self.totals.tolist()
        total = max(1.0, count)
        seen = self.confusion.sum(1)
        hits = self.confusion.diagonal()
        present = seen > 0
        recall = hits / seen.clamp(min=1)
        f1 = 2 * hits / (seen + self.confusion.sum(0)).clamp(min=1)
        gap = (self.bins[1] - self.bins[2]).abs().sum()
        return {
            "n": int(count),
            "loss": loss / total,
            "top1": 100 * top1 / total,
            "top5": 100 * top5 / total,
            "balanced_accuracy": 100 * _mean(recall[present]),
            "f1": 100 * _mean(f1[present]),
            "calibration_error": float(gap) / total,
        }

    def per_class(self) -> list[dict[str, float]]:
        """Samples, recall and precision of each class, in percent; NaN where there is none."""
        seen, predicted, hits = self.confusion.sum(1), self.confusion.sum(0), self.confusion.diagonal()
        return _rates(seen, predicted, hits)

    @property
    def absent(self) -> int:
        """Classes without an image, which means over classes leave out."""
        return int((self.confusion.sum(1) == 0).sum())


class MultiLabel:
    """Mean average precision, F1 and exact matches of (B, C) logits against (B, C) zeros and ones.

    A label is said to hold where its probability is above `threshold`. F1 is over all answers (`micro`), the mean over
    classes that occur (`macro`) and the mean over images (`samples`); without a label said or true it is 0.
    """

    score = "map"
    names = ("n", "loss", "map", "f1_micro", "f1_macro", "f1_samples", "exact")

    def __init__(self, classes: int, device: torch.device | None = None, threshold: float = 0.5) -> None:
        if not 0 < threshold < 1:
            raise UsageError(f"the threshold of a label is a probability above 0 and below 1, not {threshold}")
        self.classes = classes
        self.cut = math.log(threshold / (1 - threshold))
        self.scores = [torch.zeros(0, classes, device=device)]
        self.truths = [torch.zeros(0, classes, device=device)]

    def update(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Add a batch; returns the loss of each sample."""
        self.scores.append(output.float())
        self.truths.append(target.float())
        return F.binary_cross_entropy_with_logits(output.float(), target.float(), reduction="none").mean(1)

    def reduce(self, world: World) -> None:
        """Gather the scores of all ranks: average precision needs their order."""
        self.scores = [world.gather(torch.cat(self.scores))]
        self.truths = [world.gather(torch.cat(self.truths))]

    def result(self) -> dict[str, float]:
        scores, truths = torch.cat(self.scores).double(), torch.cat(self.truths).double()
        guess = (scores > self.cut).double()
        both, either = guess * truths, guess + truths
        f1, f1_samples = (2 * both.sum(axis) / either.sum(axis).clamp(min=1) for axis in (0, 1))
        precisions = [average_precision(scores[:, c], truths[:, c]) for c in range(self.classes)]
        known = torch.tensor([value for value in precisions if value == value], dtype=torch.float64)
        count = max(1, len(scores))
        losses = F.binary_cross_entropy_with_logits(scores, truths, reduction="none").mean(1)
        return {
            "n": len(scores),
            "loss": float(losses.sum()) / count,
            "map": 100 * _mean(known),
            "f1_micro": 100 * float(2 * both.sum() / either.sum().clamp(min=1)),
            "f1_macro": 100 * _mean(f1[truths.sum(0) > 0]),
            "f1_samples": 100 * _mean(f1_samples),
            "exact": 100 * float((guess == truths).all(1).double().sum()) / count,
        }

    def per_class(self) -> list[dict[str, float]]:
        """Positives, recall, precision and average precision of each class, in percent."""
        scores, truths = torch.cat(self.scores).double(), torch.cat(self.truths).double()
        guess = (scores > self.cut).double()
        rates = _rates(truths.sum(0), guess.sum(0), (guess * truths).sum(0))
        return [{**rate, "ap": 100 * average_precision(scores[:, c], truths[:, c])} for c, rate in enumerate(rates)]

    @property
    def absent(self) -> int:
        """Classes that no image has, which means over classes leave out."""
        return int((torch.cat(self.truths).sum(0) == 0).sum())


def _rates(yes: torch.Tensor, said: torch.Tensor, hits: torch.Tensor) -> list[dict[str, float]]:
    """Of each class; a class without an image has no recall, one that is never said no precision: NaN."""
    return [
        {"n": int(n), "recall": 100 * h / n if n else math.nan, "precision": 100 * h / p if p else math.nan}
        for n, p, h in zip(yes.tolist(), said.tolist(), hits.tolist())
    ]


def average_precision(scores: torch.Tensor, truth: torch.Tensor) -> float:
    """Area under precision against recall of one class; equal scores count together; NaN without a positive."""
    positives = float(truth.sum())
    if not positives:
        return float("nan")
    order = scores.argsort(descending=True, stable=True)
    ranked, hits = scores[order], truth[order].cumsum(0)
    last = torch.ones_like(ranked, dtype=torch.bool)
    last[:-1] = ranked[:-1] != ranked[1:]
    precision = hits[last] / torch.arange(1, len(ranked) + 1, device=scores.device)[last]
    gained = torch.diff(hits[last], prepend=hits.new_zeros(1))
    return float((precision * gained).sum()) / positives


class Regression:
    """Mean squared and absolute error and R2 of (B, D) outputs against (B, D) values."""

    score = "r2"
    names = ("n", "loss", "mae", "r2")
    absent = 0

    def __init__(self, classes: int, device: torch.device | None = None) -> None:
        self.totals = torch.zeros(
            5, dtype=torch.float64, device=device
        )  # values, squares, absolutes, sum, sum of squares
        self.samples = torch.zeros((), dtype=torch.float64, device=device)

    def update(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Add a batch; returns the loss of each sample."""
        truth = target.double().reshape(len(target), -1)
        gap = output.double().reshape(truth.shape) - truth
        self.totals += torch.stack(
            [
                truth.new_tensor(truth.numel()),
                gap.square().sum(),
                gap.abs().sum(),
                truth.sum(),
                truth.square().sum(),
            ]
        )
        self.samples += len(target)
        return gap.square().mean(1)

    def reduce(self, world: World) -> None:
        """Add up the sums of all ranks."""
        flat = world.reduce(torch.cat([self.totals, self.samples[None]]))
        self.totals, self.samples = flat[:5], flat[5]

    def result(self) -> dict[str, float]:
        count, square, absolute, total, squares = self.totals.tolist()
        count = max(1.0, count)
        spread = squares - total * total / count
        r2 = 100 * (1 - square / spread) if spread > 0 else float("nan")
        return {"n": int(self.samples), "loss": square / count, "mae": absolute / count, "r2": r2}


def _mean(values: torch.Tensor) -> float:
    return float(values.mean()) if len(values) else 0.0


METRICS: dict[str, type[Any]] = {
    "classification": Classification,
    "multilabel": MultiLabel,
    "regression": Regression,
}
"""Task -> its scores."""


def better(score: float, than: float | None) -> bool:
    """Whether `score` beats `than`; a score that is not a number never does."""
    if score != score or abs(score) == float("inf"):
        return False
    return than is None or score > than


def lower_is_better(name: str) -> bool:
    """Whether a smaller value of the metric is the better one."""
    return name.removesuffix("_ema") in ("loss", "mae", "calibration_error")


def oriented(name: str, value: float) -> float:
    """`value` so that larger is better."""
    return -value if lower_is_better(name) else value


def names_of(results: Sequence[dict[str, float]]) -> list[str]:
    """Metric names in order of first appearance."""
    return list(dict.fromkeys(name for row in results for name in row))


def score_name(config: Config) -> str:
    """The metric that decides what is best."""
    return config.run.metric or METRICS[config.loss.task].score

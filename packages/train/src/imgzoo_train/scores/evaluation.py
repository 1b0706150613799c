"""Evaluation that counts each sample once, whatever the number of ranks and the batch size."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from imgzoo.errors import DataError
from imgzoo_train.models.answers import Alignment
from imgzoo_train.ranks.world import World
from imgzoo_train.techniques.precision import FP32, Precision

from .metrics import METRICS

WORST = 16


@dataclass
class Evaluation:
    """`metrics` by name, the `scores` object they come from, and the samples with the largest loss."""

    metrics: dict[str, float]
    scores: Any
    worst: list[dict[str, float]] = field(default_factory=list)
    labels: list[str] = field(default_factory=list)
    """A text for each output that was scored."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """What `scores.rows.Samples` collected, where it was asked to."""


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    classes: int,
    task: str = "classification",
    world: World | None = None,
    precision: Precision = FP32,
    steps: int | None = None,
    poll: Callable[[], None] | None = None,
    align: Alignment | None = None,
    observe: Callable[[torch.Tensor, torch.Tensor, Any], None] | None = None,
    advice: str = "--max-bad",
    threshold: float = 0.5,
) -> Evaluation:
    """Score `model` on this rank's `batches` and reduce the sums of all ranks once.

    Ranks may have different numbers of batches; with several ranks and a `poll` that talks to the others, `steps` is
    the largest number any of them has. `align` says which outputs the data's classes are; `observe` sees the outputs
    that are scored, the targets they are scored against, and the sample numbers of each batch. Samples that the loader
    left out are counted as `left_out`; one that it must not leave out is a `DataError` that names the option `advice`.
    Samples whose outputs are no finite number are counted as `nonfinite`. `threshold` is the probability above which
    one of several labels is said to hold.
    """
    world = world or World()
    scores = METRICS[task](classes, world.device, **{"threshold": threshold} if task == "multilabel" else {})
    broken = torch.zeros((), dtype=torch.int64, device=world.device)
    worst = torch.zeros(0, 4, dtype=torch.float64, device=world.device)
    training = model.training
    model.eval()
    try:
        for batch in padded(_advised(batches, advice), steps):
            if poll is not None:
                poll()
            if batch is None:
                continue
            images, targets = batch.images.to(world.device), batch.targets.to(world.device)
            with precision.forward(world.device):
                output = model(precision.inputs(images))
            if isinstance(output, (tuple, list)):
                output = output[0]
            if align is not None:
                output, targets = align.outputs(output), align.targets(targets)
            broken += len(output) - torch.isfinite(output.flatten(1)).all(1).sum()
            if observe is not None:
                observe(output, targets, batch.indices)
            losses = scores.update(output, targets)
            worst = _keep_worst(worst, losses, output, targets, batch.indices)
    finally:
        model.train(training)

    scores.reduce(world)
    left_out = len(getattr(getattr(batches, "quarantine", None), "seen", ()))
    left_out = int(world.reduce(torch.tensor(left_out, device=world.device)))
    worst = world.gather(worst)
    order = worst[:, 0].argsort(descending=True, stable=True)[:WORST]
    rows = [
        {"loss": loss, "index": int(index), "target": int(target), "predicted": int(predicted)}
        for loss, index, target, predicted in worst[order].tolist()
    ]
    counted = {"left_out": left_out, "nonfinite": int(world.reduce(broken))}
    metrics = scores.result() | {name: count for name, count in counted.items() if count}
    return Evaluation(metrics, scores, rows)


def advised(error: DataError, advice: str) -> DataError:
    """The loader's error with what can be done about it on the command line."""
    return DataError(f"{re.sub(r'; see bad=.*', '', str(error))}; {advice}")


def _advised(batches: Iterable[Any], option: str) -> Iterable[Any]:
    """`batches`, with the option that helps in the message about one that cannot be read."""
    try:
        yield from batches
    except DataError as error:
        raise advised(error, f"{option} leaves such samples out and counts them") from error


def padded(batches: Iterable[Any], steps: int | None) -> Iterable[Any]:
    """`batches`, then None until there are `steps` of them."""
    done = 0
    for batch in batches:
        done += 1
        yield batch
    for _ in range(done, steps or 0):
        yield None


def _keep_worst(
    worst: torch.Tensor, losses: torch.Tensor, output: torch.Tensor, targets: torch.Tensor, indices: Any
) -> torch.Tensor:
    """The rows (loss, index, target, predicted) with the largest loss, the new batch included."""
    if targets.ndim > 1 or indices is None:
        return worst
    index = torch.as_tensor(indices, device=losses.device)
    rows = torch.stack([losses.double(), index.double(), targets.double(), output.argmax(1).double()], 1)
    both = torch.cat([worst, rows])
    return both[both[:, 0].argsort(descending=True, stable=True)[:WORST]]

"""Evaluation that counts each sample once, whatever the number of ranks and the batch size."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from imgzoo_train.models.answers import Alignment
from imgzoo_train.models.modes import evaluating
from imgzoo_train.models.opening import advised
from imgzoo_train.ranks.world import World
from imgzoo_train.techniques.precision import FP32, Precision

from .metrics import METRICS

WORST, POINTS = 12, 1024


@dataclass
class Seen:
    """A sample as it was scored."""

    loss: float
    index: int
    """Its number in the source."""
    target: list[float]
    """The class, or a value for each output."""
    output: list[float]


@dataclass
class Evaluation:
    """`metrics` by name, the `scores` object they come from, and samples worth a look."""

    metrics: dict[str, float]
    scores: Any
    worst: list[Seen] = field(default_factory=list)
    """Those with the largest loss."""
    sure: list[Seen] = field(default_factory=list)
    """Of one label an image, the mistakes that the model is surest of."""
    some: list[Seen] = field(default_factory=list)
    """Of numbers to predict, samples drawn by a hash of their number."""
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
    kept: dict[str, torch.Tensor] = {}
    with evaluating(model):
        for batch in padded(advised(batches, f"{advice} leaves such samples out and counts them"), steps):
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
            _keep(kept, task, losses, output, targets, batch.indices)

    scores.reduce(world)
    left_out = len(getattr(getattr(batches, "quarantine", None), "seen", ()))
    left_out = int(world.reduce(torch.tensor(left_out, device=world.device)))
    looks: dict[str, Any] = {
        name: _seen(kept.get(name), task == "classification", world)[:count] for name, count in KEPT[task].items()
    }
    counted = {"left_out": left_out, "nonfinite": int(world.reduce(broken))}
    metrics = scores.result() | {name: count for name, count in counted.items() if count}
    return Evaluation(metrics, scores, **looks)


def padded(batches: Iterable[Any], steps: int | None) -> Iterable[Any]:
    """`batches`, then None until there are `steps` of them."""
    done = 0
    for batch in batches:
        done += 1
        yield batch
    for _ in range(done, steps or 0):
        yield None


KEPT = {
    "classification": {"worst": WORST, "sure": WORST},
    "multilabel": {"worst": WORST},
    "regression": {"worst": WORST, "some": POINTS},
}
"""Task -> which samples are kept, and how many."""


def _keep(
    kept: dict[str, torch.Tensor],
    task: str,
    losses: torch.Tensor,
    output: torch.Tensor,
    targets: torch.Tensor,
    indices: Any,
) -> None:
    """Keep of a batch and of what was kept before the rows (key, loss, index, target..., output...) of largest key."""
    if indices is None:
        return
    index = torch.as_tensor(indices, device=losses.device).double()
    columns = [losses[:, None], index[:, None], targets.reshape(len(index), -1), output.reshape(len(index), -1)]
    keys = {"worst": losses.double(), "some": (index * 2654435761) % 2**32}
    if task == "classification":
        sureness, answer = output.float().softmax(1).double().max(1)
        keys["sure"] = torch.where(answer == targets, -1.0, sureness)
    for name, count in KEPT[task].items():
        first = keys[name].argsort(descending=True, stable=True)[:count]
        keyed = torch.cat([keys[name][first, None], *(column[first].double() for column in columns)], 1)
        both = torch.cat([kept[name], keyed]) if name in kept else keyed
        kept[name] = both[both[:, 0].argsort(descending=True, stable=True)[:count]]


def _seen(rows: torch.Tensor | None, one_label: bool, world: World) -> list[Seen]:
    """What all ranks kept, by falling key; some of them may have had no batch."""
    width = torch.tensor(0 if rows is None else rows.shape[1], device=world.device)
    world.reduce(width, "max")
    rows = torch.zeros(0, int(width), dtype=torch.float64, device=world.device) if rows is None else rows
    gathered = world.gather(rows)
    if not len(gathered):
        return []
    found = gathered[gathered[:, 0].argsort(descending=True, stable=True)].tolist()
    end = 3 + (1 if one_label else (int(width) - 3) // 2)
    return [Seen(row[1], int(row[2]), row[3:end], row[end:]) for row in found if not row[0] < 0]

"""Scores of a task, by those of `imgzoo_train.scores`."""

from __future__ import annotations

import logging
from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo_timm.data._dataset import OrderedDistributedSampler
from imgzoo_train.loop.losses import exact
from imgzoo_train.ranks.world import World
from imgzoo_train.scores.metrics import MultiLabel, average_precision

log = logging.getLogger(__name__)


class ClassificationEvaluator:
    """Mean loss and percent of right answers over batches; at most `max_samples` are counted."""

    default_metric = "top1"
    metric_names: tuple[str, ...] = ("loss", "top1", "top5")

    def __init__(self, device: Any = None, *, max_samples: int | None = None, criterion: Any = None):
        self.device, self.max_samples = torch.device(device or "cpu"), max_samples
        self.criterion = criterion if criterion is not None else nn.CrossEntropyLoss()
        self.reset()

    def reset(self) -> None:
        self.num_samples = 0
        self.loss_sum = torch.zeros((), dtype=torch.float64, device=self.device)
        self.counts = torch.zeros(3, dtype=torch.long, device=self.device)  # samples, right, among the first five

    def taken(self, output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The part of a batch that still counts."""
        room = len(target) if self.max_samples is None else max(0, self.max_samples - self.num_samples)
        return output[:room], target[:room]

    def update(self, output: Any, target: Tensor) -> None:
        output = output[0] if isinstance(output, (tuple, list)) else output
        output, target = self.taken(output, target)
        if not len(target):
            return
        if target.ndim != 1:
            raise ValueError("targets of one label are class indices (batch,): "
                             "MultiLabelClassificationEvaluator scores several")  # fmt: skip
        loss, count = self.criterion(exact(output), target), len(target)
        hits = output.topk(min(5, output.shape[1]), 1).indices == target[:, None]
        self.add(loss, count, int(hits[:, 0].sum()), int(hits.any(1).sum()))

    def add(self, loss: Tensor, count: int, first: int = 0, five: int = 0) -> None:
        self.num_samples += count
        self.loss_sum += loss.detach().double().to(self.device) * count
        self.counts += torch.tensor([count, first, five], device=self.device)

    def summary(self) -> OrderedDict[str, float]:
        """What has been measured in this process so far, without what is dear."""
        return self.scores(self.loss_sum, self.counts)

    def scores(self, loss: Tensor, counts: Tensor) -> OrderedDict[str, float]:
        total, first, five = counts.tolist()
        total = max(total, 1)
        return OrderedDict(loss=float(loss) / total, top1=100 * first / total, top5=100 * five / total)

    def totals(self, distributed: bool) -> tuple[Tensor, Tensor]:
        if not distributed:
            return self.loss_sum, self.counts
        flat = torch.cat([self.loss_sum[None], self.counts.double()])
        torch.distributed.all_reduce(flat)
        return flat[0], flat[1:].long()

    def compute(self, distributed: bool = False) -> OrderedDict[str, float]:
        """The scores, over all processes if `distributed`."""
        return self.scores(*self.totals(distributed))


class MultiLabelClassificationEvaluator(ClassificationEvaluator):
    """Mean average precision and F1 of several labels an image, in percent.

    A label is said from `threshold` on. Means over classes are over all, and a class that no image has counts 0. The
    loss takes soft targets as they are, the other scores take them for labels from one half on.
    """

    default_metric = "map"
    metric_names = ("loss", "map", "micro_f1", "macro_f1", "sample_f1")

    def __init__(self, device: Any = None, *, max_samples: int | None = None, threshold: float = 0.5):
        if not 0 < threshold < 1:
            raise ValueError(f"the threshold of a label is a probability between 0 and 1, not {threshold}")
        self.threshold = threshold
        super().__init__(device, max_samples=max_samples, criterion=nn.BCEWithLogitsLoss())

    def reset(self) -> None:
        super().reset()
        self.native: MultiLabel | None = None
        self.softened = False

    def update(self, output: Any, target: Tensor) -> None:
        output = output[0] if isinstance(output, (tuple, list)) else output
        if output.ndim != 2 or output.shape != target.shape:
            raise ValueError("logits and targets of several labels are (batch, classes) both")
        output, target = self.taken(output, target)
        if not len(target):
            return
        labels = target >= 0.5
        if not self.softened and not (labels == target).all():
            self.softened = True
            log.warning("the evaluator binarizes soft targets at 0.5 for mAP and F1")
        self.native = self.native or MultiLabel(output.shape[1], self.device, self.threshold)
        self.native.update(output.to(self.device), labels.to(self.device))
        output = exact(output)
        self.add(self.criterion(output, target.to(output.dtype)), len(target))

    def summary(self) -> OrderedDict[str, float]:
        return OrderedDict(loss=super().summary()["loss"])

    def compute(self, distributed: bool = False) -> OrderedDict[str, float]:
        loss, counts = self.totals(distributed)
        found = dict.fromkeys(self.metric_names[1:], 0.0)
        if distributed:
            self._gather(loss.device)
        if self.native is not None:
            found = self._found(torch.cat(self.native.scores).double(), torch.cat(self.native.truths).double())
        return OrderedDict(loss=float(loss) / max(int(counts[0]), 1), **found)

    def _gather(self, device: torch.device) -> None:
        """The answers of all processes; one without samples learns the number of classes from the others."""
        world = torch.distributed
        classes = torch.tensor(0 if self.native is None else self.native.classes, device=device)
        world.all_reduce(classes, op=world.ReduceOp.MAX)
        if int(classes):
            self.native = self.native or MultiLabel(int(classes), self.device, self.threshold)
            self.native.reduce(World(world.get_rank(), world.get_world_size(), self.device))

    def _found(self, scores: Tensor, truths: Tensor) -> dict[str, float]:
        said = (scores.sigmoid() >= self.threshold).double()
        both, either = said * truths, said + truths
        f1 = [2 * both.sum(axis) / either.sum(axis).clamp(min=1) for axis in (0, 1)]
        precisions = [average_precision(scores[:, c], truths[:, c]) for c in range(scores.shape[1])]
        known = sum(value for value in precisions if value == value)
        return {"map": 100 * known / len(precisions),
                "micro_f1": 100 * float(2 * both.sum() / either.sum().clamp(min=1)),
                "macro_f1": 100 * float(f1[0].mean()), "sample_f1": 100 * float(f1[1].mean())}  # fmt: skip


def evaluation_sample_limit(loader: Any) -> int | None:
    """How many samples of this process's share are its own: a sampler that fills shares up repeats the rest."""
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, OrderedDistributedSampler):
        return None
    return len(range(sampler.rank, len(sampler.dataset), sampler.num_replicas))

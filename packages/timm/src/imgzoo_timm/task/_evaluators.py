"""Scores of a task, by those of `imgzoo_train.scores`."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo_timm.data._dataset import OrderedDistributedSampler
from imgzoo_train.ranks.world import World
from imgzoo_train.scores.metrics import MultiLabel


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
        loss, count = self.criterion(output, target), len(target)
        ranked = output.topk(min(5, output.shape[1]), 1).indices
        hits = ranked == (target.argmax(1) if target.ndim == 2 else target)[:, None]
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
    """Mean average precision and F1 of several labels an image, in percent."""

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

    def update(self, output: Any, target: Tensor) -> None:
        output = output[0] if isinstance(output, (tuple, list)) else output
        if output.ndim != 2 or output.shape != target.shape:
            raise ValueError("logits and targets of several labels are (batch, classes) both")
        output, target = self.taken(output, target)
        if not len(target):
            return
        self.native = self.native or MultiLabel(output.shape[1], self.device, self.threshold)
        self.add(self.native.update(output.to(self.device), target.to(self.device)).mean(), len(target))

    def summary(self) -> OrderedDict[str, float]:
        return OrderedDict(loss=super().summary()["loss"])

    def compute(self, distributed: bool = False) -> OrderedDict[str, float]:
        loss, counts = self.totals(distributed)
        total, found = max(int(counts[0]), 1), dict.fromkeys(("map", "f1_micro", "f1_macro", "f1_samples"), 0.0)
        if self.native is not None:
            if distributed:
                self.native.reduce(World(torch.distributed.get_rank(), torch.distributed.get_world_size(), self.device))
            found = self.native.result()
        return OrderedDict(loss=float(loss) / total, map=found["map"], micro_f1=found["f1_micro"],
                           macro_f1=found["f1_macro"], sample_f1=found["f1_samples"])  # fmt: skip


def evaluation_sample_limit(loader: Any) -> int | None:
    """How many samples of this process's share are its own: a sampler that fills shares up repeats the rest."""
    sampler = getattr(loader, "sampler", None)
    if not isinstance(sampler, OrderedDistributedSampler):
        return None
    return len(range(sampler.rank, len(sampler.dataset), sampler.num_replicas))

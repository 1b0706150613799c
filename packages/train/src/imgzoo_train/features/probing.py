"""How well features tell classes apart: nearest neighbors as in DINO (arXiv:2104.14294), and a linear classifier."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from imgzoo.errors import UsageError

from .store import Features

Row = dict[str, Any]
NEIGHBORS = (10, 20)
TEMPERATURE = 0.07
CHUNK = 256


def check_labels(record: Row, name: str) -> None:
    """Raise `UsageError` where images have no label, several, or numbers, by the record of their source."""
    if record["multi_label"] or record["task"] != "classification":
        raise UsageError(f"a probe needs one label an image; {name} has several, or numbers to predict")
    if not record["classes"]:
        raise UsageError(f"a probe needs one label an image; {name} has none")


def labels_of(found: Features, name: str) -> torch.Tensor:
    """(N,) classes of the images. Raises `UsageError` where they have none, several, or numbers."""
    check_labels(found.record, name)
    if found.targets.min() < 0:
        raise UsageError(f"a probe needs one label an image; {name} has images without")
    return torch.from_numpy(np.ascontiguousarray(found.targets)).long()


def check_pair(train: Features, validation: Features) -> None:
    """Raise `UsageError` where the two are of different networks, preprocessing or classes."""
    for name in ("architecture", "weights", "kind", "preprocessing", "classes"):
        if train.record[name] != validation.record[name]:
            raise UsageError(f"the features to train on and those to score differ in their {name}; embed both alike")


def nearest(
    bank: torch.Tensor, labels: torch.Tensor, queries: torch.Tensor, k: Sequence[int], classes: int
) -> dict[int, torch.Tensor]:
    """`{k: (Q, classes)}` votes of the k nearest of `bank` (N, D) by cosine, each of weight exp(cosine / 0.07).

    Raises `UsageError` for a k above N.
    """
    if max(k) > len(bank):
        raise UsageError(f"-k {max(k)} asks for more neighbors than the {len(bank)} images there are")
    bank, found = F.normalize(bank, dim=1), {each: [] for each in k}
    for chunk in F.normalize(queries, dim=1).split(CHUNK):
        cosines, places = (chunk @ bank.T).topk(max(k), dim=1)
        weights, near = ((cosines - 1) / TEMPERATURE).exp(), labels[places]
        for each in k:
            votes = weights.new_zeros(len(chunk), classes)
            found[each].append(votes.scatter_add_(1, near[:, :each], weights[:, :each]))
    return {each: torch.cat(votes) for each, votes in found.items()}


class Linear:
    """Multinomial logistic regression: C * sum of cross-entropies + |W|^2 / 2, on standardized features."""

    def __init__(self, features: torch.Tensor, classes: int) -> None:
        self.mean, self.classes = features.mean(0), classes
        spread = features.std(0, correction=0)
        self.scale = torch.where(spread > 0, spread, torch.ones_like(spread))
        self.weight = features.new_zeros(classes, features.shape[1])
        self.bias = features.new_zeros(classes)

    def fit(self, features: torch.Tensor, labels: torch.Tensor, c: float, steps: int = 1000) -> Linear:
        """Fit by L-BFGS from where it stands."""
        inputs, count = (features - self.mean) / self.scale, len(features)
        for parameter in (self.weight, self.bias):
            parameter.requires_grad_(True)
        solver = torch.optim.LBFGS(
            [self.weight, self.bias],
            max_iter=steps,
            max_eval=2 * steps,
            tolerance_grad=1e-5,
            tolerance_change=1e-8,
            line_search_fn="strong_wolfe",
        )

        def closure() -> torch.Tensor:
            solver.zero_grad()
            loss = F.cross_entropy(F.linear(inputs, self.weight, self.bias), labels)
            loss = loss + self.weight.square().sum() / (2 * c * count)
            loss.backward()
            return loss

        solver.step(closure)  # type: ignore[arg-type]
        self.weight, self.bias = self.weight.detach(), self.bias.detach()
        return self

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """(N, D) -> logits (N, classes)."""
        return F.linear((features - self.mean) / self.scale, self.weight, self.bias)


def hold_back(labels: torch.Tensor, share: float, seed: int = 0) -> torch.Tensor:
    """(N,) which images are held back: `share` of each class, drawn by `seed`; of a class of one image none."""
    held, generator = torch.zeros(len(labels), dtype=torch.bool), torch.Generator().manual_seed(seed)
    for label in labels.unique():
        places = (labels == label).nonzero().flatten()
        count = min(len(places) - 1, max(1, round(share * len(places))))
        held[places[torch.randperm(len(places), generator=generator)[:count]]] = True
    return held


def linear_probe(
    features: torch.Tensor, labels: torch.Tensor, classes: int, regularization: Sequence[float], share: float = 0.2
) -> tuple[Linear, float, dict[float, float]]:
    """The classifier of all images with the C that was best on a share held back, that C, and the accuracy of each.

    Of equal ones the smallest wins. Raises `UsageError` where no class has an image to hold back.
    """
    if len(regularization) == 1:
        return Linear(features, classes).fit(features, labels, regularization[0]), regularization[0], {}
    held = hold_back(labels.cpu(), share).to(labels.device)
    if not held.any():
        raise UsageError("no class has two images, so none can be held back to choose -C; give a single -C")
    trial, scores = Linear(features[~held], classes), {}
    for c in sorted(regularization):
        trial.fit(features[~held], labels[~held], c)
        scores[c] = (trial(features[held]).argmax(1) == labels[held]).float().mean().item() * 100
    best = max(scores, key=lambda c: (scores[c], -c))
    return Linear(features, classes).fit(features, labels, best), best, scores


def accuracy(scores: torch.Tensor, labels: torch.Tensor) -> Row:
    """`{"top1", "top5"}` in percent; top-5 where there are more than five classes."""
    order = scores.topk(min(5, scores.shape[1]), 1).indices == labels[:, None]
    row = {"top1": order[:, 0].double().mean().item() * 100}
    return row | ({"top5": order.any(1).double().mean().item() * 100} if scores.shape[1] > 5 else {})


def probe(
    train: Features,
    validation: Features,
    k: Sequence[int] | None,
    regularization: Sequence[float],
    device: torch.device,
) -> list[Row]:
    """A row for each k and one for the linear classifier, scored on `validation`; without `k` for those of `NEIGHBORS`
    that there are, or for all there are.
    """
    check_pair(train, validation)
    labels, wanted = labels_of(train, "the training set"), labels_of(validation, "the validation set").to(device)
    labels, classes = labels.to(device), len(train.record["classes"])
    bank, queries = (torch.from_numpy(np.array(found.vectors())).to(device) for found in (train, validation))
    k = k or [each for each in NEIGHBORS if each <= len(bank)] or [len(bank)]
    votes = nearest(bank, labels, queries, k, classes)
    rows: list[Row] = [{"probe": "k-nn", "k": each, **accuracy(votes[each], wanted)} for each in k]
    model, c, tried = linear_probe(bank, labels, classes, regularization)
    tried = [{"C": each, "top1": score} for each, score in tried.items()]
    return [*rows, {"probe": "linear", "C": c, **accuracy(model(queries), wanted), "held_back": tried}]

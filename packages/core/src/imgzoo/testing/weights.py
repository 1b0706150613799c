"""Checks of published weights; they read or download the files."""

from __future__ import annotations

import torch

from imgzoo.factory import create_model
from imgzoo.specs import ModelSpec, WeightSpec

from .outcome import Check


class WeightsSubject:
    """One tag of one model."""

    def __init__(self, spec: ModelSpec, weights: WeightSpec):
        self.spec, self.weights = spec, weights

    @property
    def name(self) -> str:
        """The full name, by who brings the weights."""
        return f"{self.weights.plugin or self.spec.plugin}/{self.spec.name}.{self.weights.tag}"

    def __str__(self) -> str:
        return f"weights:{self.spec.name}.{self.weights.tag}"


def load_strictly(subject: WeightsSubject) -> None:
    """Every tensor finds its place, and nothing is left at its initial value."""
    model = create_model(subject.name, pretrained=True)
    if model.load_report.initialized:
        raise AssertionError(f"left at initial values: {', '.join(model.load_report.initialized[:3])}")


def logits_are_sane(subject: WeightsSubject) -> None:
    model = create_model(subject.name, pretrained=True).eval()
    with torch.no_grad():
        logits = model(torch.zeros(1, *subject.weights.input_size))
    if not torch.isfinite(logits).all():
        raise AssertionError("the logits of a gray image are not finite")


CHECKS = [Check(fn.__name__, "weights", fn) for fn in (load_strictly, logits_are_sane)]

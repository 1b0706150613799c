"""Which samples an epoch draws: all once, or classes evened out; a pure function of (seed, epoch)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from imgzoo.errors import UsageError

from .rng import Purpose, generator
from .sources.base import Source
from .sources.views import strata

SAMPLERS = {"shuffle": 0.0, "balanced": 1.0, "sqrt": 0.5}
"""Name -> how far classes are evened out: a class of n samples is drawn in proportion to n ** (1 - this)."""


def create_sampler(sampler: Any, source: Source, seed: int) -> tuple[int, Callable[[int], np.ndarray] | None]:
    """(samples an epoch, what draws them) of a name of `SAMPLERS`, or of any iterable of sample numbers.

    An iterable is asked once an epoch, after its `set_epoch` where it has one; every rank must be given the same.
    """
    if not isinstance(sampler, str):
        if not (hasattr(sampler, "__len__") and hasattr(sampler, "__iter__")):
            raise UsageError(
                f"a sampler is {', '.join(SAMPLERS)}, or gives sample numbers and has a length, not {sampler!r}"
            )
        return len(sampler), Given(sampler, len(source))
    if sampler not in SAMPLERS:
        raise UsageError(f"sampler '{sampler}' is unknown; use {', '.join(SAMPLERS)}")
    if not SAMPLERS[sampler]:
        return len(source), None
    if not source.class_names:
        raise UsageError(f"sampler '{sampler}' evens out classes, and the targets are numbers to predict; use shuffle")
    return len(source), Evened(strata(source), seed, SAMPLERS[sampler])


class Given:
    """The sample numbers that an iterable gives."""

    def __init__(self, sampler: Iterable[int], length: int):
        self.sampler, self.length = sampler, length

    def __call__(self, epoch: int) -> np.ndarray:
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        drawn = np.fromiter(self.sampler, np.int64)
        outside = drawn[(drawn < 0) | (drawn >= self.length)]
        if len(outside):
            raise UsageError(f"the sampler gave sample {outside[0]} of a source of {self.length}")
        return drawn


class Evened:
    """As many samples as there are, classes evened out; within a class every sample as often as any other.

    (N,) class of each sample; `power` 1 draws every class equally often, 0.5 by the square root of its size
    ("Decoupling Representation and Classifier", 1910.09217).
    """

    def __init__(self, classes: np.ndarray, seed: int, power: float):
        self.seed, self.length = seed, len(classes)
        order = np.argsort(classes, kind="stable")
        self.groups = np.split(order, np.flatnonzero(np.diff(classes[order])) + 1)
        shares = np.array([len(rows) for rows in self.groups], float) ** (1 - power)
        self.shares = shares / shares.sum()

    def __call__(self, epoch: int) -> np.ndarray:
        rng = generator(self.seed, epoch, purpose=Purpose.ORDER)
        exact = self.shares * self.length
        counts = np.floor(exact).astype(np.int64)
        left = self.length - int(counts.sum())
        if left:  # whole samples only: what is left goes to classes by the fractions that were cut off
            parts = exact - counts
            counts[rng.choice(len(counts), left, replace=False, p=parts / parts.sum())] += 1
        drawn = [self._of(rows, int(count), rng) for rows, count in zip(self.groups, counts)]
        return rng.permutation(np.concatenate(drawn))

    @staticmethod
    def _of(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
        whole, rest = divmod(count, len(rows))
        return np.concatenate([np.tile(rows, whole), rng.permutation(rows)[:rest]])

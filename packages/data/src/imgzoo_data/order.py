"""Which samples a step sees: a pure function of (seed, epoch, step), cut by rank."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from imgzoo.errors import UsageError
from imgzoo.options import check_kinds, plain_numbers

from .rng import Purpose, generator, permutation


class BatchKey(NamedTuple):
    """The work order of one batch of one rank; everything a worker needs to build it."""

    epoch: int
    step: int
    slot: int
    indices: np.ndarray
    """(B,) int64 sample numbers."""
    views: np.ndarray
    """(B,) int64: which augmentation of the sample (repeated augmentation), 0 otherwise."""
    size: Any
    """None for the transform's own size, or what the size schedule chose."""


class Choice(NamedTuple):
    """One entry of a size schedule: what the transform is told, and how many samples a rank takes."""

    size: Any
    batch_size: int


@dataclass(frozen=True)
class SizeSchedule:
    """Batches of several sizes, drawn each step by weight, or progressively from small to large.

    `progressive` moves a Gaussian window of width `spread` (in choices) over the sorted choices during `epochs` epochs;
    `random_mix` of the steps are drawn uniformly all the same.
    """

    choices: tuple[Choice, ...]
    weights: tuple[float, ...] | None = None
    schedule: str = "constant"
    epochs: int = 1
    spread: float = 0.65
    random_mix: float = 0.1

    def __post_init__(self) -> None:
        if not self.choices:
            raise UsageError("a size schedule needs at least one size")
        if self.schedule not in ("constant", "progressive"):
            raise UsageError(f"size schedule '{self.schedule}' is unknown; use constant or progressive")
        odd = [choice for choice in self.choices if not isinstance(choice, Choice)]
        if odd:
            raise UsageError(
                f"a size schedule holds `Choice`s, not {odd[0]!r}; `SizeSchedule.images` makes it of sizes"
            )
        for choice in self.choices:
            sides = choice.size if isinstance(choice.size, tuple | list) else (choice.size,)
            if choice.batch_size < 1 or min(sides) < 1:
                raise UsageError(
                    f"a size schedule holds {choice.size} in batches of {choice.batch_size}; all must be positive"
                )
        if self.weights is not None and len(self.weights) != len(self.choices):
            raise UsageError(f"{len(self.weights)} weights for {len(self.choices)} sizes; give one each")
        if self.weights is not None and not (0 < sum(self.weights) < math.inf and min(self.weights) >= 0):
            raise UsageError(
                f"weights of sizes must be at least 0 and not all 0, not {', '.join(map(str, self.weights))}"
            )
        if not (0 <= self.random_mix <= 1 and self.spread >= 0 and self.epochs >= 1):
            raise UsageError("random_mix is a share from 0 to 1, spread at least 0, and epochs at least 1")

    @classmethod
    def images(
        cls, sizes: Sequence[int | tuple[int, int]], batch_sizes: int | Sequence[int], **options: Any
    ) -> SizeSchedule:
        """Sizes are ints or (H, W); one batch size for all keeps the pixels of a batch near those of the largest."""
        sizes, batch_sizes = plain_numbers(sizes), plain_numbers(batch_sizes)
        check_kinds("a size schedule", cls.images, {"sizes": sizes, "batch_sizes": batch_sizes})
        pairs = [(s, s) if isinstance(s, int) else (s[0], s[1]) for s in sizes]
        if not pairs or min(min(pair) for pair in pairs) < 1:
            raise UsageError(f"the sizes of a schedule must be positive, not {pairs}")
        if isinstance(batch_sizes, int) and batch_sizes < 1:
            raise UsageError(f"the batch size of a schedule must be positive, not {batch_sizes}")
        if isinstance(batch_sizes, int):
            most = max(h * w for h, w in pairs)
            batch_sizes = [max(1, batch_sizes * most // (h * w)) for h, w in pairs]
        if len(batch_sizes) != len(pairs):
            raise UsageError(f"{len(batch_sizes)} batch sizes for {len(pairs)} sizes; give one, or one each")
        return cls(tuple(Choice(s, int(b)) for s, b in zip(pairs, batch_sizes)), **options)

    @classmethod
    def sequences(
        cls,
        lengths: Any,
        tokens: int,
        patches: Any = (16,),
        patch_weights: Any = None,
        divisor: int = 1,
        **options: Any,
    ) -> SizeSchedule:
        """Patch sequences of several lengths (and patch sizes), each batch of at most `tokens` patches a rank."""
        lengths, tokens, patches, patch_weights, divisor = map(
            plain_numbers, (lengths, tokens, patches, patch_weights, divisor)
        )
        patch_weights = [1.0] * len(patches) if patch_weights is None else patch_weights
        if len(patch_weights) != len(patches):
            raise UsageError(f"{len(patch_weights)} patch_weights for {len(patches)} patches; give one each")
        if min([*lengths, *patches, tokens, divisor], default=0) < 1:
            raise UsageError("lengths, patches, tokens and divisor of a schedule must be positive")
        choices, weights = [], []
        for length in sorted(lengths):
            batch = max(1, tokens // length // divisor * divisor)
            for patch, weight in zip(patches, patch_weights):
                choices.append(Choice((patch, length), batch))
                weights.append(float(weight))
        return cls(tuple(choices), tuple(weights), **options)

    def probabilities(self, epoch: int) -> np.ndarray:
        """(choices,) the probability of each size in this epoch."""
        base = np.ones(len(self.choices)) if self.weights is None else np.asarray(self.weights, float)
        base = base / base.sum()
        if self.schedule == "constant":
            return base
        place = (len(base) - 1) * min(1.0, epoch / max(1, self.epochs - 1))
        far = 0.5 * ((np.arange(len(base)) - place) / max(self.spread, 1e-3)) ** 2
        window = base * np.exp(np.minimum(0, far[base > 0].min() - far))  # between two sizes something is left of it
        return (1 - self.random_mix) * window / window.sum() + self.random_mix * base

    def plan(self, length: int, world: int, seed: int, epoch: int, steps: int | None) -> tuple[np.ndarray, np.ndarray]:
        """(choice of each step, first global sample of each step) until `length` samples or `steps` steps are used."""
        batch = np.array([choice.batch_size for choice in self.choices]) * world
        most = steps if steps is not None else math.ceil(length / batch.min()) + 1
        chosen = generator(seed, epoch, purpose=Purpose.PLAN).choice(len(batch), most, p=self.probabilities(epoch))
        starts = np.concatenate([[0], np.cumsum(batch[chosen])])
        if steps is None:
            count = max(1, int(np.searchsorted(starts, length, side="right")) - 1)
            chosen, starts = chosen[:count], starts[:count]
        return chosen, starts[: len(chosen)]


@dataclass
class Order:
    """The stream of sample numbers: `batch(epoch, step)` in constant time once the epoch's permutation is drawn.

    Training: a permutation cut by global step, then into contiguous parts by rank; a last partial global batch is
    dropped unless `drop_last=False`, and a source smaller than a global batch wraps round. Evaluation: the natural
    order, dealt to ranks in turn, every sample once; ranks may differ by one batch.
    """

    length: int
    batch_size: int
    seed: int = 0
    rank: int = 0
    world: int = 1
    training: bool = True
    drop_last: bool | None = None
    repeats: int = 1
    """Repeated augmentation: each chosen sample appears this many times in a global batch, one view each."""
    schedule: SizeSchedule | None = None
    steps_per_epoch: int | None = None
    draw: Callable[[int], np.ndarray] | None = None
    """The (length,) sample numbers of an epoch; by default a permutation of all."""
    _cache: dict[str, Any] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.length < 1:
            raise UsageError("the source is empty; check its location and split")
        if self.batch_size < 1 or self.repeats < 1:
            raise UsageError("batch_size and repeats must be at least 1")
        if not 0 <= self.rank < self.world:
            raise UsageError(f"rank {self.rank} is outside a world of {self.world}")
        if self.schedule is not None and not self.training:
            raise UsageError("a size schedule is for training; evaluate at one size")

    def steps(self, epoch: int) -> int:
        """Batches of this rank in this epoch."""
        if not self.training:
            mine = max(0, -(-(self.length - self.rank) // self.world))
            return -(-mine // self.batch_size)
        if self.schedule is not None:
            return len(self._plan(epoch)[0])
        if self.steps_per_epoch is not None:
            return self.steps_per_epoch
        share = self.length / (self.batch_size * self.world)
        return max(1, math.ceil(share) if self.drop_last is False else math.floor(share))

    def batch(self, epoch: int, step: int, slot: int = 0) -> BatchKey:
        """The work order of this rank at a step."""
        if not self.training:
            first = self.rank + step * self.batch_size * self.world
            last = min(self.length, first + self.batch_size * self.world)
            indices = np.arange(first, last, self.world)
            return BatchKey(epoch, step, slot, indices, np.zeros_like(indices), None)

        size, batch_size, start = None, self.batch_size, step * self.batch_size * self.world
        if self.schedule is not None:
            chosen, starts = self._plan(epoch)
            size, batch_size = self.schedule.choices[chosen[step]]
            start = int(starts[step])
        indices, views = self._global_batch(epoch, start, batch_size * self.world)
        mine = slice(self.rank * len(indices) // self.world, (self.rank + 1) * len(indices) // self.world)
        return BatchKey(epoch, step, slot, indices[mine], views[mine], size)

    def position(self, epoch: int, step: int) -> int:
        """Number, within the global batch, of this rank's first sample of the step (for draws shared by all ranks)."""
        if self.schedule is None:
            total = self._global_size(epoch, step)
        else:
            total = self.schedule.choices[self._plan(epoch)[0][step]].batch_size * self.world
        return self.rank * total // self.world

    def _global_size(self, epoch: int, step: int) -> int:
        full = self.batch_size * self.world
        if self.drop_last is False and self.steps_per_epoch is None:
            return max(self.world, min(full, self.length - step * full))
        return full

    def _global_batch(self, epoch: int, start: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        if self.drop_last is False and self.schedule is None and self.steps_per_epoch is None:
            count = max(self.world, min(count, self.length - start))
        unique = -(-count // self.repeats)
        if self.repeats > 1:
            start = start // self.repeats
        permuted = self._permutation(epoch)
        picked = permuted[(start + np.arange(unique)) % self.length]
        # copies lie a whole set apart: on other ranks where there are several, never side by side where pairs are mixed
        views = np.repeat(np.arange(self.repeats), unique)[:count]
        return np.tile(picked, self.repeats)[:count], views

    def _permutation(self, epoch: int) -> np.ndarray:
        if self._cache.get("epoch") != epoch:
            drawn = permutation(self.length, self.seed, epoch) if self.draw is None else self.draw(epoch)
            if len(drawn) != self.length:
                raise UsageError(f"the sampler gave {len(drawn)} samples for epoch {epoch}, not {self.length}")
            self._cache.update(epoch=epoch, permutation=drawn)
        return self._cache["permutation"]

    def _plan(self, epoch: int) -> tuple[np.ndarray, np.ndarray]:
        assert self.schedule is not None
        if self._cache.get("plan_epoch") != epoch:
            plan = self.schedule.plan(self.length, self.world, self.seed, epoch, self.steps_per_epoch)
            self._cache.update(plan_epoch=epoch, plan=plan)
        return self._cache["plan"]

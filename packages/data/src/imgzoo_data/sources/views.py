"""Sources made of other things: rows of a source, changed targets, torch data sets, lists of (image, label)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from imgzoo.errors import DataError, UsageError

from .base import Facts, Sample, Source, StreamSource
from .classes import natural_sorted
from .targets import are_sparse

_FACTS = tuple(name for name in Facts.__annotations__)


class View(Source):
    """Another source seen differently; what is not changed is its own."""

    def __init__(self, base: Source):
        self.base = base
        for name in _FACTS:
            setattr(self, name, getattr(base, name))

    def __len__(self) -> int:
        return len(self.base)

    def __getitem__(self, index: int) -> Sample:
        return self.base[index]

    def key(self, index: int) -> str:
        return self.base.key(index)

    def place(self, index: int) -> str | None:
        return self.base.place(index)

    def size(self, index: int) -> int | None:
        return self.base.size(index)

    def is_missing(self, index: int) -> bool:
        return self.base.is_missing(index)

    def targets(self) -> np.ndarray:
        return self.base.targets()


class Subset(View):
    """Some rows of a source, in their order."""

    def __init__(self, base: Source, rows: np.ndarray, served: str = ""):
        super().__init__(base)
        self.rows, self.served = rows, served or base.served

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        return self.base[int(self.rows[index])]

    def key(self, index: int) -> str:
        return self.base.key(int(self.rows[index]))

    def place(self, index: int) -> str | None:
        return self.base.place(int(self.rows[index]))

    def size(self, index: int) -> int | None:
        return self.base.size(int(self.rows[index]))

    def is_missing(self, index: int) -> bool:
        return self.base.is_missing(int(self.rows[index]))

    def targets(self) -> np.ndarray:
        return self.base.targets()[self.rows]


class Retargeted(View):
    """A source whose every target goes through a function; its classes are then known only where they are given."""

    def __init__(self, base: Any, change: Callable[[Any], Any], class_names: Sequence[str] | None = None):
        if isinstance(base, StreamSource):
            raise UsageError("target_transform needs a source with random access, not a stream")
        super().__init__(base)
        self.change = change
        if class_names is not None:
            self.class_names, self.num_classes = class_names, len(class_names)

    def __getitem__(self, index: int) -> Sample:
        sample = self.base[index]
        return sample._replace(target=self.change(sample.target))

    def targets(self) -> np.ndarray:
        return np.asarray([self.change(_plain(target)) for target in self.base.targets()])


class PairSource(Source):
    """(image, label) pairs: a torch data set of them, or any sequence.

    Images are bytes, arrays, Pillow images or tensors; labels are class numbers, names, vectors of 0 and 1, or other
    numbers, which are to be predicted. Class names are those of its `classes`, else of the labels that occur.
    """

    def __init__(self, pairs: Any):
        self.pairs = pairs
        names = getattr(pairs, "classes", None)
        known = getattr(pairs, "targets", None)
        labels = [
            _plain(label) for label in (known if known is not None and len(known) == len(pairs) else self._labels())
        ]
        if not labels:
            raise DataError("there are no (image, label) pairs")
        self.numbers: dict[Any, int] | None = None
        if all(isinstance(label, str) for label in labels):
            found = natural_sorted(set(labels))
            self.numbers = {name: number for number, name in enumerate(names or found)}
            labels, names = [self._number(label) for label in labels], list(self.numbers)
        self._targets = _as_table(labels)
        vectors = self._targets.ndim > 1
        self.whole_numbers = self._targets.dtype.kind in "iu" and not vectors
        self.multi_label = vectors and bool(np.isin(self._targets, (0, 1)).all())
        self.numeric = not (self.whole_numbers or self.multi_label)
        if self.numeric and vectors and self._targets.shape[1] == 1:
            self._targets, vectors = self._targets[:, 0], False
        count = self._targets.shape[1] if vectors else _class_count(self._targets, names) if self.whole_numbers else 1
        if not self.numeric:
            self.class_names = [str(name) for name in (names if names is not None else range(count))]
            if self.multi_label and len(self.class_names) != count:
                raise DataError(f"the labels are vectors of {count}, and there are {len(self.class_names)} classes")
        self.num_classes = max(count, len(self.class_names))
        self.rule, self.served = "the labels of the pairs", type(pairs).__name__
        self.name = type(pairs).__name__

    def _labels(self) -> Iterator[Any]:
        for index in range(len(self.pairs)):
            yield self._pair(index)[1]

    def _pair(self, index: int) -> tuple[Any, Any]:
        pair = self.pairs[index]
        if not isinstance(pair, Sequence) or isinstance(pair, str | bytes) or len(pair) < 2:
            raise UsageError(f"item {index} of {type(self.pairs).__name__} is no (image, label) pair")
        return pair[0], pair[1]

    def _number(self, label: Any) -> int:
        known = label in self.numbers if self.numbers is not None else -1 <= label < self.num_classes
        if not known:
            raise DataError(f"label '{label}' is none of the {len(self.numbers or self.class_names)} classes")
        return int(label) if self.numbers is None else self.numbers[label]

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, index: int) -> Sample:
        image, label = self._pair(int(index))
        target = self._number(_plain(label)) if self.whole_numbers else self._targets[index]
        return Sample(image, target, self.key(index))

    def key(self, index: int) -> str:
        files = getattr(self.pairs, "samples", None)
        return str(files[index][0]) if files else f"item {index}"

    def targets(self) -> np.ndarray:
        return self._targets


class IterableSource(StreamSource):
    """A torch `IterableDataset` of (image, label) pairs; its own order, each reader keeping its share."""

    def __init__(self, pairs: Any):
        self.pairs = pairs
        self.class_names = [str(name) for name in getattr(pairs, "classes", ())]
        self.num_classes = len(self.class_names)
        self.served = self.name = type(pairs).__name__

    def __len__(self) -> int:
        return len(self.pairs) if hasattr(self.pairs, "__len__") else super().__len__()

    def stream(self, seed: int, epoch: int, reader: int, readers: int, training: bool) -> Iterator[Sample]:
        if hasattr(self.pairs, "set_epoch"):
            self.pairs.set_epoch(epoch)
        for count, (image, label) in enumerate(self.pairs):
            if count % readers == reader:
                yield Sample(image, _plain(label), f"item {count}")


def as_source(given: Any) -> Any:
    """A source as it is; a torch data set or a sequence of (image, label) as a source."""
    if isinstance(given, Source | StreamSource):
        return given
    if hasattr(given, "__getitem__") and hasattr(given, "__len__") and not isinstance(given, dict):
        return PairSource(given)
    if hasattr(given, "__iter__"):
        return IterableSource(given)
    raise UsageError(
        f"{type(given).__name__} is no source; give scheme:location, a torch data set, or (image, label) pairs"
    )


def strata(source: Source) -> np.ndarray:
    """(N,) the class of each sample; of several labels the rarest (-1 for none), of numbers to predict the decile."""
    targets = source.targets()
    if targets.ndim == 1 and targets.dtype.kind != "f":
        return targets
    if source.multi_label:
        counts = targets.sum(0)
        rarity = np.where(targets > 0, counts, np.inf)
        return np.where(targets.any(1), rarity.argmin(1), -1)
    first = targets if targets.ndim == 1 else targets[:, 0]
    return np.searchsorted(np.quantile(first, np.arange(0.1, 1, 0.1)), first)


def _as_table(labels: list[Any]) -> np.ndarray:
    """Labels as an array of numbers; raises `DataError` for what has no common kind, and for what is no number."""
    try:
        table = np.asarray(labels)
    except ValueError:  # vectors of several lengths
        table = np.asarray([None])
    if table.dtype.kind not in "biuf" or table.ndim > 2:
        raise DataError("the labels of the pairs are of different kinds; give class numbers, names, or vectors")
    if not np.isfinite(table).all():
        wrong = np.flatnonzero(~np.isfinite(table.reshape(len(table), -1)).all(1))
        raise DataError(f"the label of item {wrong[0]} is no finite number")
    return table.astype({"b": np.int64, "f": np.float32}.get(table.dtype.kind, table.dtype))


def _class_count(numbers: np.ndarray, names: Sequence[str] | None) -> int:
    """How many classes there are; raises `DataError` for numbers that are none. Without labels all are -1."""
    low, most = int(numbers.min()), int(numbers.max()) + 1
    if low < -1 or (low < 0 and most > 0):
        raise DataError(f"label {low} is no class number; those count from 0")
    if names is not None and most > len(names):
        raise DataError(f"label {most - 1} is none of the {len(names)} classes")
    if names is None and are_sparse(most, len(np.unique(numbers))):
        raise DataError(
            f"class numbers go up to {most - 1} and only {len(np.unique(numbers))} occur; give names, or the data set "
            "its `classes`"
        )
    return most


def _plain(value: Any) -> Any:
    """A number out of a tensor or a NumPy scalar."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    return np.asarray(value, np.float32) if isinstance(value, list | tuple) else value

"""The two halves of a run: training and validation data that share nothing, or a sentence that says why not."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any

import numpy as np

from imgzoo.errors import UsageError
from imgzoo.text import escaped

from .base import TRAIN, VALIDATION, Source, StreamSource
from .describe import COMPARED, Description, digest_of, settle
from .layout import SplitError, split_of, split_of_file
from .views import Subset, strata


@dataclass
class Splits:
    """Open training and validation data with their descriptions."""

    train: Any
    validation: Any
    description: list[Description] = field(default_factory=list)
    shared: str = ""
    """What is known of samples that are in both, in words."""
    held: np.ndarray | None = None
    """Rows of the source that were held back for validation by `val_share`."""

    def lines(self) -> list[str]:
        """The description as lines of text."""
        return [line for part in self.description for line in part.lines()] + [f"shared: {self.shared}"]

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def to_dict(self) -> dict[str, Any]:
        """The description as plain JSON-able values."""
        train, validation = (part.to_dict() for part in self.description)
        return {"train": train, "validation": validation, "shared": self.shared}

    def rows(self) -> str:
        """Which sample went where, as CSV of `key,split`; empty where the source has splits of its own."""
        if self.held is None:
            return ""
        out, held, whole = io.StringIO(), set(self.held.tolist()), self.train.base
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(("key", "split"))
        for row in range(len(whole)):
            writer.writerow((escaped(whole.key(row)), VALIDATION if row in held else TRAIN))
        return out.getvalue()


def open_splits(
    source: Any,
    val_source: Any = "",
    *,
    task: str = "classification",
    val_split: str = "",
    val_share: float = 0.0,
    folds: int = 0,
    fold: int = 0,
    allow_shared: bool = False,
    options: Mapping[str, Any] | None = None,
) -> Splits:
    """Open the training and validation data of a run.

    Validation is the split of that name (`val_split`) of `val_source` or `source`; or `val_share` of the training
    samples, or the `fold`-th (from 0) of their `folds` parts, held back by a hash of their names, class by class. A
    test split never serves as validation unless it is named. Raises `UsageError` where there is no validation data,
    where both halves share samples (but for `allow_shared`), and where classification has a single class; `DataError`
    where values contradict their range.
    """

    given = dict(options or {})
    asked = "--folds" if folds else "--val-share"
    if (val_share or folds) and (val_source or val_split or (val_share and folds)):
        others = [flag for flag in ("--val-data", "--val-split", "--val-share") if flag != asked]
        listed = f"{', '.join(others[:-1])} and {others[-1]}"
        raise UsageError(f"{asked} holds back training images; leave out {asked}, or {listed}")
    if val_share and not 0 < val_share < 1:
        raise UsageError(f"--val-share is a share between 0 and 1, as 0.1, not {val_share:g}")
    if folds and not 0 <= fold < folds:
        raise UsageError(f"there is no fold {fold} of {folds}: folds are at least 2, counted from 0")
    train, held = _open_training(source, task, given), None
    if val_share or folds:
        if isinstance(train, StreamSource):
            raise UsageError(f"{asked} needs a source with random access, not a stream")
        kept, held, copies = _hold_out_once(train, folds or val_share, fold)
        share = f"fold {fold} of {folds}" if folds else f"{val_share:g}"
        name = f"{share} of {train.served or train.name}, held back by the hash of their names"
        train, validation = Subset(train, kept, f"the rest of {train.served or train.name}"), Subset(train, held, name)
        train.whole = validation.whole = False
        validation.split = VALIDATION
        if copies:
            validation.notes = [*validation.notes, f"{copies} copies of training images were left in training"]
    else:
        validation = _open_validation(source, train, val_source, val_split, task, {} if val_source else given)
    splits = Splits(train, validation, [settle(train), settle(validation)], held=held)
    _check(splits, task, allow_shared)
    return splits


def _open_training(source: Any, task: str, options: Mapping[str, Any]) -> Any:
    from imgzoo_data import create_dataset

    try:
        return create_dataset(source, TRAIN, task=task, **options)
    except SplitError as error:
        raise SplitError(
            f"{error}: give what trains itself, its folder or file, as --data, and what validates as --val-data",
            error.found,
        ) from error


def _open_validation(
    source: Any, train: Any, val_source: Any, val_split: str, task: str, options: Mapping[str, Any]
) -> Any:
    from imgzoo_data import create_dataset

    advice = "hold back training images with --val-share 0.1, or name other data with --val-data"
    try:
        validation = create_dataset(val_source or source, val_split or VALIDATION, task=task, **options)
    except SplitError as error:
        names = [word for name in error.found if (word := _other_split(name))]
        names.sort(key=lambda name: split_of(name) is not None)  # a split of a usual name before any other
        other = f", or choose one with --val-split {names[-1]}" if names and not val_split else ""
        raise SplitError(f"{error}: {advice}{other}", error.found) from error
    if validation.whole and train.whole and not val_source:
        raise SplitError(f"{train.name} has no validation split, it is all one: {advice}")
    return validation


def _other_split(name: str) -> str:
    """What to call the split of a folder, a cell or an archive; empty for training data, and for what has no name."""
    word = name if name.isidentifier() else split_of_file(PurePath(name).stem) or ""
    return "" if split_of(word) == TRAIN else word


def hold_out(source: Source, share: float) -> tuple[np.ndarray, np.ndarray]:
    """(rows kept, rows held back), both ascending: of each class the share whose names hash lowest.

    A class of one sample stays whole; any other gives at least one and keeps at least one. Several labels count as the
    rarest of them, numbers to predict as their decile. The same names give the same split in any order, on any machine.
    """
    held: list[int] = []
    for rows in _by_hash(source):
        held += rows[: min(max(1, round(share * len(rows))), len(rows) - 1)]
    if not held:
        raise UsageError(f"--val-share {share:g}: no class has two samples, so none can be held back")
    mask = np.zeros(len(source), bool)
    mask[held] = True
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def fold_of(source: Source, folds: int) -> np.ndarray:
    """(N,) the fold of each sample, 0 to `folds - 1`: each has its share of each class, told as in `hold_out`."""
    if not 2 <= folds <= len(source):
        raise UsageError(f"{len(source)} samples make no {folds} folds; ask for 2 to {len(source)}")
    found, start = np.zeros(len(source), np.int64), 0
    for rows in _by_hash(source):
        found[rows] = (np.arange(len(rows)) + start) % folds
        start += len(rows)
    return found


def _by_hash(source: Source) -> list[list[int]]:
    """The rows of each class, those first whose names hash lowest."""
    groups: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(strata(source).tolist()):
        groups[group].append(row)
    for rows in groups.values():
        rows.sort(key=lambda row: hashlib.sha256(source.key(row).encode("utf-8", "surrogateescape")).digest())
    return list(groups.values())


def _hold_out_once(source: Source, part: float, fold: int) -> tuple[np.ndarray, np.ndarray, int]:
    """A share, or the `fold`-th of so many parts, held out; copies of training images left in training, and counted."""
    if part < 1:
        kept, held = hold_out(source, part)
    else:
        folds = fold_of(source, int(part))
        kept, held = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
    pairs, _ = shared_samples(Subset(source, kept), Subset(source, held))
    copies = np.unique([row for _, row in pairs]).astype(np.int64)
    if len(copies) == len(held):
        raise UsageError("--val-share: every image that would be held back is also in training")
    return np.sort(np.concatenate([kept, held[copies]])), np.delete(held, copies), len(copies)


def shared_samples(train: Any, validation: Any) -> tuple[list[tuple[int, int]], str]:
    """(row of training, row of validation) pairs that are the same sample, and how they were compared.

    The same by where they lie; up to `COMPARED` samples also by their bytes.
    """
    if isinstance(train, StreamSource) or isinstance(validation, StreamSource):
        return [], "not compared, a stream"
    if train.place(0) is None and train.size(0) is None:
        return [], "not compared, the source does not say where samples lie"
    regions = train.region(), validation.region()
    apart = None not in regions and not any(str(a).startswith(str(b)) for a, b in (regions, regions[::-1]))
    pairs = [] if apart else _same_places(train, validation)
    same = _same_bytes(train, validation, pairs) if len(train) + len(validation) <= COMPARED else None
    return (pairs, "compared by where they lie") if same is None else (pairs + same, "compared by content")


def _same_places(train: Source, validation: Source) -> list[tuple[int, int]]:
    """Pairs of rows that lie in one place, found by numbers rather than by holding all names."""
    numbers = [
        np.fromiter((hash(s.place(row)) for row in range(len(s))), np.int64, len(s)) for s in (train, validation)
    ]
    near = [np.flatnonzero(np.isin(own, other)) for own, other in (numbers, numbers[::-1])]
    places = {train.place(row): row for row in near[0].tolist()}
    found = ((validation.place(row), row) for row in near[1].tolist())
    return [(places[place], row) for place, row in found if place is not None and place in places]


def _same_bytes(train: Source, validation: Source, pairs: list[tuple[int, int]]) -> list[tuple[int, int]] | None:
    """More pairs, of rows that hold the same bytes; None where a side does not know how many those are."""
    known = {row for _, row in pairs}
    sizes: dict[int | None, list[int]] = defaultdict(list)
    for row in range(len(train)):
        sizes[train.size(row)].append(row)
    sizes.pop(None, None)
    others = [(row, size) for row in range(len(validation)) if (size := validation.size(row)) is not None]
    if not sizes or not others:
        return None
    alike = [(row, size) for row, size in others if size in sizes and row not in known]
    digests: dict[bytes, int] = {}
    for size in {size for _, size in alike}:
        digests.update({digest: row for row in sizes[size] if (digest := digest_of(train, row))})
    return [(digests[digest], row) for row, _ in alike if (digest := digest_of(validation, row)) in digests]


def _check(splits: Splits, task: str, allow_shared: bool) -> None:
    """Raise for what contradicts itself; say what is shared."""
    names = splits.train.class_names
    if task == "classification" and len(names) == 1 and not splits.train.multi_label:
        raise UsageError(
            f"{splits.train.name} has the single class '{names[0]}', so there is nothing to tell apart; give images of "
            "other classes too"
        )
    pairs, how = shared_samples(splits.train, splits.validation)
    total = len(splits.validation) if pairs else 0
    splits.shared = f"{len(pairs):,} of {total:,} validation images are also in training" if pairs else "no samples"
    splits.shared += f", {how}"
    if pairs and not allow_shared:
        row, other = pairs[0]
        first, same = escaped(splits.validation.key(other)), escaped(splits.train.key(row))
        raise UsageError(
            f"{len(pairs):,} of {total:,} validation images are also training images, the first "
            f"'{first}' as '{same}': take them out, hold others back with "
            "--val-share 0.1, or add --allow-shared"
        )

"""`csv:FILE` and `parquet:FILE`: one row a sample, with its image (a path, or bytes) and its target in columns."""

from __future__ import annotations

import bisect
import csv
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from imgzoo.errors import DataError, MissingDependencyError, UsageError

from .base import TRAIN, Sample, Source, require_path, split_words
from .classes import load_class_map, multi_hot, names_of, natural_sorted, number_of
from .index import IndexBuilder

IMAGE_KEYS = ("image", "path", "file", "filename", "file_name", "filepath", "img", "jpg")
TARGET_KEYS = ("label", "target", "class", "labels", "cls", "fine_label")
SPLIT_KEYS = ("split", "subset", "fold")
FORMATS = ("class", "labels", "multihot", "value")


def pick_column(asked: str | None, usual: Sequence[str], columns: Sequence[str], what: str) -> str | None:
    """The asked column, or the first usual one there is; an asked one that is missing is a `UsageError`."""
    if asked is not None:
        if asked.split("/")[0] not in columns:
            raise UsageError(f"there is no column '{asked}' for the {what}; there are {', '.join(map(str, columns))}")
        return asked
    lower = {str(column).lower(): column for column in columns}
    return next((lower[name] for name in usual if name in lower), None)


def nested(row: Any, key: str) -> Any:
    """The value at a key, or at a path into nested fields, `objects/label`."""
    for part in key.split("/"):
        try:
            row = row[part]
        except (KeyError, TypeError, IndexError) as error:
            raise DataError(f"a row has no field '{key}'") from error
    return row


class Targets:
    """Turns raw target columns into class numbers, vectors (num_classes,) of 0 and 1, or the numbers that stand there.

    `form` is `class` (a name or number), `labels` (a list, or names separated by `;`, `|` or `,`), or `multihot` (one
    column of a vector, or several columns of 0 and 1 named in `key`, separated by commas), or `value` (a number, or
    several columns of numbers, for regression).
    """

    def __init__(self, form: str, class_map: Any = None, num_classes: int | None = None, keys: Sequence[str] = ()):
        if form not in FORMATS:
            raise UsageError(f"target_format '{form}' is unknown; use {', '.join(FORMATS)}")
        self.form, self.keys = form, tuple(keys)
        self.numbers = load_class_map(class_map)
        self.names: list[str] = names_of(self.numbers) if self.numbers else []
        if form == "multihot" and len(self.keys) > 1:
            self.names = list(self.keys)
        self.num_classes = num_classes or len(self.names)

    @property
    def multi_label(self) -> bool:
        return self.form in ("labels", "multihot")

    @property
    def dtype(self) -> type[np.generic]:
        """How targets are kept."""
        return np.int32 if self.form == "class" else np.float32

    def adopt(self, names: Sequence[str] | None) -> None:
        """Take the class names that the data set itself declares, unless a class map or numbers were asked for."""
        if names and self.numbers is None and self.form != "value":
            self.names, self.num_classes = list(names), self.num_classes or len(names)

    def labels(self, raw: Any) -> list[Any]:
        """The labels of one raw cell."""
        if raw is None or raw == "":
            return []
        if isinstance(raw, str) and self.form == "labels":
            for separator in (";", "|", ","):
                if separator in raw:
                    return [part.strip() for part in raw.split(separator) if part.strip()]
            return [raw.strip()]
        return list(raw) if isinstance(raw, list | tuple | np.ndarray) else [raw]

    def learn(self, cells: Iterable[Any]) -> None:
        """Find the classes where no class map gave them: numbers as they are, names in natural order."""
        if self.form == "value":
            self.num_classes = self.num_classes or max(1, len(self.labels(next(iter(cells), 0.0))))
            return
        if self.numbers is not None or (self.form == "multihot" and self.num_classes):
            return
        if self.form == "multihot":
            self.num_classes = max((len(self.labels(cell)) for cell in cells), default=0)
            self.names = [str(i) for i in range(self.num_classes)]
            return
        seen = {str(label) for cell in cells for label in self.labels(cell)}
        if seen and all(label.isdecimal() for label in seen):
            self.num_classes = max(self.num_classes, 1 + max(int(label) for label in seen))
            names = [str(i) for i in range(self.num_classes)]
        else:
            names = natural_sorted(seen)
        self.numbers = {name: i for i, name in enumerate(names)}
        self.names, self.num_classes = names, max(self.num_classes, len(names))

    def read(self, raw: Any) -> Any:
        """The target of a raw cell: an int, a float, or a vector."""
        if self.form == "value":
            return self._value(self.labels(raw))
        if self.form == "multihot":
            return self._vector(self.labels(raw))
        numbers = [self._number(label) for label in self.labels(raw)]
        if self.form == "labels":
            return multi_hot(numbers, self.num_classes)
        if len(numbers) != 1:
            raise DataError(f"a row has {len(numbers)} labels; use target_format=labels for several")
        return numbers[0]

    def _value(self, values: list[Any]) -> Any:
        numbers = _floats(values, "a target is no number: {}; use target_format=class for names")
        if len(numbers) != self.num_classes or not np.isfinite(numbers).all():
            raise DataError(f"a target must be {self.num_classes} finite numbers, got {values}")
        return numbers if self.num_classes > 1 else float(numbers[0])

    def _number(self, label: Any) -> int:
        if self.numbers:
            return number_of(label, self.numbers)
        if not str(label).isdecimal():
            raise DataError(f"label '{label}' is not a class number, and there is no class map")
        return int(label)

    def _vector(self, values: list[Any]) -> np.ndarray:
        vector = _floats(values, "a multi-hot target holds something else than 0 and 1: {}")
        if len(vector) != self.num_classes or not np.isin(vector, (0, 1)).all():
            raise DataError(f"a multi-hot target must be {self.num_classes} values of 0 and 1")
        return vector


def _floats(values: list[Any], wrong: str) -> np.ndarray:
    """Cells as float32, or a `DataError` that says what is wrong."""
    try:
        return np.array([float(value) for value in values], np.float32)
    except (TypeError, ValueError) as error:
        raise DataError(wrong.format(error)) from error


class ListSource(Source):
    """A listing whose images are files: names packed, targets in one array."""

    def __init__(self, root: Path, rows: Iterable[tuple[str, Any]], targets: Targets, anywhere: bool = False):
        self.root = root
        rows = list(rows)
        targets.learn(cell for _, cell in rows)
        builder, values = IndexBuilder(), []
        for name, cell in rows:
            builder.add(name if anywhere else checked_name(name), -1)
            values.append(targets.read(cell))
        self.index = builder.build()
        self._targets = np.array(values, targets.dtype)
        if not len(self.index):
            raise DataError("the listing has no rows for this split")
        self.class_names, self.num_classes = targets.names, targets.num_classes
        self.multi_label = targets.multi_label

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> Sample:
        name, target = self.index.name(index), self._targets[index]
        with open(self.root / name, "rb", buffering=0) as file:
            return Sample(file.read(), target.copy() if target.ndim else target.item(), name)

    def key(self, index: int) -> str:
        return self.index.name(index)

    def targets(self) -> np.ndarray:
        return self._targets


def checked_name(name: str) -> str:
    """A relative path that stays below its root, or a `DataError`."""
    if not name or "\0" in name or os.path.isabs(name) or ".." in Path(name).parts:
        raise DataError(f"'{name[:80]}' leaves the folder of the listing; pass root, or anywhere=true to allow it")
    return name


def csv_source(
    location: str,
    split: str = TRAIN,
    root: str | None = None,
    image_key: str | None = None,
    target_key: str | None = None,
    split_key: str | None = None,
    target_format: str = "class",
    class_map: Any = None,
    num_classes: int | None = None,
    delimiter: str | None = None,
    anywhere: bool = False,
) -> Source:
    """Open a CSV (or TSV) with a header line. Paths are relative to `root`, by default the folder of the file.

    `target_key` may name several 0/1 columns, separated by commas. A column `split`, if there is one, selects rows.
    `anywhere` allows paths outside the root.
    """
    path = require_path(location, "listing")
    delimiter = delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
        reader = csv.DictReader(file, delimiter=delimiter)
        try:
            rows = _csv_rows(reader, split, image_key, target_key, split_key, target_format)
            columns, cells = next(rows), list(rows)
        except csv.Error as error:
            raise DataError(f"{path.name}, line {reader.line_num}: {error}") from error
    targets = Targets(target_format, class_map, num_classes, columns)
    return ListSource(Path(root).expanduser() if root else path.parent, cells, targets, anywhere)


def _csv_rows(
    reader: Any, split: str, image_key: str | None, target_key: str | None, split_key: str | None, form: str
) -> Iterator[Any]:
    """The target columns, then (path, target cell) of the rows of a split."""
    columns = list(reader.fieldnames or [])
    image = pick_column(image_key, IMAGE_KEYS, columns, "image")
    if image is None:
        raise UsageError(f"no column of image paths among {', '.join(columns)}; name it with image_key")
    keys = [pick_column(k.strip(), (), columns, "target") for k in target_key.split(",")] if target_key else []
    keys = keys or [pick_column(None, TARGET_KEYS, columns, "target")]
    if keys == [None]:
        raise UsageError(f"no column of targets among {', '.join(columns)}; name it with target_key")
    chosen = pick_column(split_key, SPLIT_KEYS, columns, "split")
    words = {word.lower() for word in split_words(split)}
    yield keys
    for row in reader:
        if None in row.values() or None in row:
            raise DataError(f"line {reader.line_num} has another number of cells than the header")
        if chosen is None or row[chosen].lower() in words:
            cell = row[keys[0]] if len(keys) == 1 else [row[key] for key in keys]
            yield row[image], _split_vector(cell) if form == "multihot" else cell


def _split_vector(cell: Any) -> Any:
    return cell.replace(",", " ").replace(";", " ").split() if isinstance(cell, str) else cell


class ParquetSource(Source):
    """Parquet whose image column holds bytes, {"bytes", "path"} pairs, or paths below `root`; one row group in memory
    at a time.
    """

    def __init__(
        self,
        location: str,
        split: str = TRAIN,
        root: str | None = None,
        image_key: str | None = None,
        target_key: str | None = None,
        target_format: str = "class",
        class_map: Any = None,
        num_classes: int | None = None,
    ):
        self._parquet = _pyarrow()
        path = require_path(location, "parquet")
        self.paths = [path] if path.is_file() else _parquet_files(path, split)
        self.root = Path(root).expanduser() if root else (path.parent if path.is_file() else path)
        first = self._parquet.ParquetFile(self.paths[0])
        columns = first.schema_arrow.names
        image = pick_column(image_key, IMAGE_KEYS, columns, "image")
        if image is None:
            raise UsageError(f"no image column among {', '.join(columns)}; name it with image_key")
        keys = (
            [k.strip() for k in target_key.split(",")]
            if target_key
            else [pick_column(None, TARGET_KEYS, columns, "target")]
        )
        if keys == [None]:
            raise UsageError(f"no target column among {', '.join(columns)}; name it with target_key")
        self.image, self.keys = image, [str(k) for k in keys]
        self._groups: list[tuple[int, int]] = []
        starts, cells = [0], []
        for number, file in enumerate(self.paths):
            opened = self._parquet.ParquetFile(file)
            for group in range(opened.metadata.num_row_groups):
                self._groups.append((number, group))
                starts.append(starts[-1] + opened.metadata.row_group(group).num_rows)
            cells += _target_cells(opened, self.keys)
        self._starts = starts
        targets = Targets(target_format, class_map, num_classes, self.keys)
        targets.learn(cells)
        self._targets = np.array([targets.read(cell) for cell in cells], targets.dtype)
        self.class_names, self.num_classes = targets.names, targets.num_classes
        self.multi_label = targets.multi_label
        self._held: tuple[int, Any] = (-1, None)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Sample:
        group = bisect.bisect_right(self._starts, index) - 1
        if self._held[0] != group:
            file, part = self._groups[group]
            table = self._parquet.ParquetFile(self.paths[file]).read_row_group(part, columns=[self.image.split("/")[0]])
            self._held = (group, table.column(0))
        cell = self._held[1][index - self._starts[group]].as_py()
        target = self._targets[index]
        data = image_bytes(cell, self.root)
        return Sample(data, target.copy() if target.ndim else target.item(), self.key(index))

    def key(self, index: int) -> str:
        group = bisect.bisect_right(self._starts, index) - 1
        return f"{self.paths[self._groups[group][0]].name}:{index}"

    def targets(self) -> np.ndarray:
        return self._targets

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": (-1, None)}


def image_bytes(cell: Any, root: Path | None) -> Any:
    """The bytes of an image cell: bytes, {"bytes", "path"}, a path (below `root` if that is given), or an array."""
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, str):
        return (root / checked_name(cell) if root is not None else Path(cell)).read_bytes()
    if cell is None:
        raise DataError("the row has no image")
    if isinstance(cell, list):
        return np.asarray(cell, np.uint8)
    return cell


def _target_cells(file: Any, keys: list[str]) -> list[Any]:
    roots = list(dict.fromkeys(key.split("/")[0] for key in keys))
    rows = file.read(columns=roots).to_pylist()
    return [nested(row, keys[0]) if len(keys) == 1 else [nested(row, key) for key in keys] for row in rows]


def _parquet_files(folder: Path, split: str) -> list[Path]:
    files = [folder / name for name in natural_sorted(p.name for p in folder.rglob("*.parquet") if p.parent == folder)]
    for word in split_words(split):
        inside = sorted((folder / word).glob("*.parquet")) if (folder / word).is_dir() else []
        named = [file for file in files if file.name.lower().startswith(word)]
        if inside or named:
            return inside or named
    if not files:
        raise UsageError(f"no .parquet below '{folder}' for split '{split}'")
    return files


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingDependencyError("parquet: needs pyarrow: pip install 'imgzoo-data[parquet]'") from error
    return pyarrow.parquet

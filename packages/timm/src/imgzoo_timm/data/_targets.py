"""Readers, and those of the Hugging Face library, whose targets are left to transforms as they stand there."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from imgzoo.errors import DataError, UsageError
from imgzoo_data.sources import hf
from imgzoo_data.sources.listing import cell_of, image_bytes


class Reader:
    """`reader[i]` is an open file and a target; a script's own has `_filename` too."""

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        raise NotImplementedError

    def filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        return self._filename(index, basename=basename, absolute=absolute)

    def filenames(self, basename: bool = False, absolute: bool = False) -> list[str]:
        return [self._filename(i, basename=basename, absolute=absolute) for i in range(len(self))]  # type: ignore[arg-type]


def load_class_map(map_or_filename: Any, root: str = "") -> dict[str, int]:
    """Names and numbers of classes: a table, or a file with a name a line."""
    if isinstance(map_or_filename, Mapping):
        return dict(map_or_filename)
    path = next((each for each in (Path(map_or_filename), Path(root, map_or_filename)) if each.is_file()), None)
    if path is None:
        raise FileNotFoundError(f"there is no file of classes {map_or_filename}")
    if path.suffix == ".pkl":
        raise pickle.UnpicklingError(f"{path} would run code: write its classes into a text file, a name a line")
    if path.suffix != ".txt":
        raise ValueError(f"classes are a table or a text file with a name a line, not {path.name}")
    return {line.strip(): i for i, line in enumerate(path.read_text().splitlines())}


class Cells:
    """Turns target cells into what a data set yields.

    A cell of one field is taken as it is, numbers and lists of them; a `class_map` of names or numbers gives each its
    number. Of several `keys` the target is the numbers of the fields above 0. With `multihot` a cell is a vector of all
    classes, which a map of numbers puts into its order.
    """

    def __init__(self, keys: Sequence[str], names: Sequence[str] = (), class_map: Any = None,
                 target_format: str = "indices"):  # fmt: skip
        if target_format not in ("indices", "multihot"):
            raise UsageError(f"Unknown target format {target_format!r}: use indices or multihot")
        if len(keys) > 1 and target_format != "indices":
            raise UsageError("several target fields have their own target format: leave target_format out")
        if len(set(keys)) < len(keys):
            raise UsageError(f"target_key names a field twice, and fields are unique: {','.join(keys)}")
        self.keys, self.names, self.dense = list(keys), list(names), target_format == "multihot"
        self.map: dict[Any, int] | None = None if class_map is None else load_class_map(class_map)
        own = keys if len(keys) > 1 else names
        self.class_to_idx = self.map if self.map is not None else {name: i for i, name in enumerate(own)}

    def tell(self, source: Any) -> None:
        """Give a stream of `imgzoo_data` what is known of its labels."""
        source.class_to_idx, source.class_names = self.class_to_idx, list(map(str, self.class_to_idx))
        source.num_classes = len(self.class_to_idx)

    def read(self, cell: Any) -> Any:
        if len(self.keys) > 1:
            return [self._number(key) for key, value in zip(self.keys, cell) if self._holds(key, value)]
        if self.map is None:
            return cell
        if self.dense:
            return self._in_order(cell, self.map)
        return list(map(self._number, cell)) if isinstance(cell, (list, tuple)) else self._number(cell)

    def _holds(self, key: str, value: Any) -> bool:
        if not isinstance(value, (bool, int, float)):
            raise DataError(f"several target fields are yes or no each, and {key} holds {str(value)[:80]!r}")
        return value > 0

    def _number(self, label: Any) -> Any:
        if len(self.keys) > 1 and self.map is None:
            return self.keys.index(label)
        named = self.names[label] if isinstance(label, int) and 0 <= label < len(self.names) else None
        for known in (label, named):
            if self.map and known in self.map:
                return self.map[known]
        raise DataError(f"class_map has no {label if named is None else named!r}")

    @staticmethod
    def _in_order(cell: Any, numbers: Mapping[Any, int]) -> list[float]:
        """A vector by the numbers of a map; entries that the map leaves out are dropped."""
        if not all(isinstance(place, int) and 0 <= place < len(cell) for place in numbers):
            raise UsageError("the class_map of a vector is keyed by source class index, a place in it each: "
                             f"there are {len(cell)}")  # fmt: skip
        found = [0.0] * (1 + max(numbers.values(), default=-1))
        for place, number in numbers.items():
            found[number] = max(found[number], float(cell[place]))
        return found


class HfReader(Reader):
    """Samples of a data set in memory."""

    def __init__(self, rows: Any, image: str, cells: Cells, reach: Any):
        self.rows, self.image, self.cells, self.reach = rows, image, cells, reach
        self.class_to_idx = cells.class_to_idx

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def num_samples(self) -> int:
        return len(self)

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        row = self.rows[int(index)]
        try:
            target = self.cells.read(cell_of(row, self.cells.keys))
        except DataError as error:
            raise DataError(f"row {index}, field {', '.join(self.cells.keys)}: {error}") from error
        return io.BytesIO(image_bytes(row[self.image], None, self.reach)), target

    def _filename(self, index: int, basename: bool = False, absolute: bool = False) -> str:
        cell = self.rows[int(index)][self.image]
        path = cell.get("path") if isinstance(cell, Mapping) else None
        return (os.path.basename(path) if basename else path) if path else f"row {index}"


def hf_reader(location: str, split: str, streaming: bool = False, input_key: str | None = None,
              target_key: str | None = None, target_format: str = "indices", class_map: Any = None,
              num_samples: int | None = None, name: str | None = None, revision: str | None = None,
              shuffle: int = 4096) -> Any:  # fmt: skip
    """A reader of `hf:location`, or with `streaming` a stream; `target_key` may name several fields between commas."""
    found, image, keys, names = hf.open_rows(location, split, name, revision, streaming, input_key, target_key)
    cells, reach = Cells(keys, names, class_map, target_format), hf.reach_of(location)
    if streaming:
        return hf.HfStream(found, image, cells, shuffle, num_samples, reach)  # type: ignore[arg-type]
    return HfReader(found, image, cells, reach)

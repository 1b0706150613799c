"""`csv:FILE` and `parquet:FILE`: one row a sample, with its image (a path, or bytes) and its target in columns."""

from __future__ import annotations

import bisect
import csv
import functools
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from imgzoo.errors import DataError, ImgzooError, MissingDependencyError, UsageError
from imgzoo.text import escaped, first_line
from imgzoo_data.kinds import BINARY, what_it_is

from .base import IMAGE_EXTENSIONS, TRAIN, Sample, Source, real_place, require_path
from .classes import natural_sorted
from .index import IndexBuilder
from .layout import MOST_READ, SHOWN, VALIDATION, SplitError, canonical_split, no_split, split_of, split_of_file
from .targets import Targets, nested, read_all

IMAGE_KEYS = ("image", "path", "file", "filename", "file_name", "filepath", "img", "jpg")
TARGET_KEYS = ("label", "target", "class", "labels", "cls", "fine_label")
SPLIT_KEYS = ("split", "subset", "fold")
ELSEWHERE, NO_BYTES = -1, -2
_DELIMITERS = (",", ";", "\t", "|")
_HEADLESS = ", or, where line 1 is a row, all of them with columns=, as columns=image,label"


def pick_column(asked: str | None, usual: Sequence[str], columns: Sequence[str], what: str) -> str | None:
    """The asked column, or the first usual one there is; an asked one that is missing is a `UsageError`."""
    if asked is not None:
        if asked not in columns and asked.split("/")[0] not in columns:
            raise UsageError(f"there is no column '{asked}' for the {what}; there are {', '.join(map(str, columns))}")
        return asked
    lower = {str(column).lower(): column for column in columns}
    return next((lower[name] for name in usual if name in lower), None)


def pick_targets(asked: str | None, columns: Sequence[str]) -> list[str]:
    """The target columns: those asked for, separated by commas, or the first usual one."""
    keys = [pick_column(part.strip(), (), columns, "target") for part in asked.split(",")] if asked else []
    keys = keys or [pick_column(None, TARGET_KEYS, columns, "target")]
    if keys == [None]:
        raise UsageError(f"no column of targets among {', '.join(map(str, columns))}; name it with target_key")
    return [str(key) for key in keys]


def pick_image(asked: str | None, columns: Sequence[str], advice: str = "") -> str:
    """The image column, or a `UsageError` that lists the columns."""
    image = pick_column(asked, IMAGE_KEYS, columns, "image")
    if image is None:
        raise UsageError(f"no column of images among {', '.join(map(str, columns))}; name it with image_key{advice}")
    return image


def cell_of(row: Any, keys: Sequence[str]) -> Any:
    """The target cell of a row: of one field, or a list of several."""
    return nested(row, keys[0]) if len(keys) == 1 else [nested(row, key) for key in keys]


class ListSource(Source):
    """A listing whose images are files: names packed, targets in one array."""

    def __init__(self, root: Path, names: Iterable[str], values: np.ndarray, targets: Targets):
        self.root, self._targets = root, values
        builder = IndexBuilder()
        for name in names:
            builder.add(name, -1)
        self.index = builder.build()
        if not len(self.index):
            raise DataError("the listing has no rows")
        targets.tell(self)

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, index: int) -> Sample:
        name, target = self.index.name(index), self._targets[index]
        with open(self.root / name, "rb", buffering=0) as file:
            return Sample(file.read(), target.copy() if target.ndim else target.item(), name)

    def key(self, index: int) -> str:
        return self.index.name(index)

    def place(self, index: int) -> str:
        return real_place(os.path.join(self.root, self.index.name(index)))

    def size(self, index: int) -> int | None:
        try:
            return os.stat(self.root / self.index.name(index)).st_size
        except OSError:  # a file that is missing is a bad sample, when it is read
            return None

    def is_missing(self, index: int) -> bool:
        return self.size(index) is None

    def targets(self) -> np.ndarray:
        return self._targets


def checked_name(name: str) -> str:
    """A relative path that stays below its root, or a `DataError`."""
    if not name or "\0" in name or os.path.isabs(name) or ".." in Path(name).parts:
        raise DataError(f"'{name[:80]}' leaves the folder of the listing; pass root, or anywhere=true to allow it")
    return name


class _Row(NamedTuple):
    line: int
    name: str
    cell: Any
    split: str


def csv_source(
    location: str,
    split: str = TRAIN,
    root: str | None = None,
    image_key: str | None = None,
    target_key: str | None = None,
    split_key: str | None = None,
    fold: str | None = None,
    target_format: str = "class",
    class_map: Any = None,
    num_classes: int | None = None,
    delimiter: str | None = None,
    encoding: str = "utf-8",
    anywhere: bool = False,
    columns: str | None = None,
    ending: str = "",
) -> Source:
    """Open a CSV (or TSV) whose first line names the columns, or whose columns are named by `columns=image,label`.
    Paths are relative to `root`, by default the folder of the file.

    `target_key` may name several columns, separated by commas. A column `split`, if there is one, selects rows;
    `split_key` names another, or none (`split_key=`). With `fold=2` the rows whose split column holds 2 are the
    validation split and all others train. Classes are those of all rows, whatever their split. `anywhere` allows paths
    outside the root. `ending=.jpg` is added to each path, where the file leaves it out.
    """
    path = require_path(location, "listing")
    if path.is_dir():
        raise UsageError(f"'{path}' is a folder; csv: reads one file of rows, folder: images in folders")
    folder = Path(root).expanduser() if root else path.parent
    given = [name.strip() for name in columns.split(",")] if columns else []
    names, rows = _read_rows(path, delimiter, encoding, given)
    if not columns:
        _refuse_row(path, names, folder)
    image, keys = pick_image(image_key, names, "" if columns else _HEADLESS), pick_targets(target_key, names)
    chosen = None if split_key == "" else pick_column(split_key, SPLIT_KEYS, names, "split")
    if fold is not None and chosen is None:
        raise UsageError(f"{path.name}: fold needs a column of folds; name it with split_key")
    listed = [_listed(path, line, row, image, keys, chosen, anywhere) for line, row in rows]
    if not listed:
        raise DataError(f"{path.name}: the listing has no rows")

    targets = Targets(target_format, class_map, num_classes, keys)
    column = f"column '{keys[0]}'" if len(keys) == 1 else f"columns {', '.join(keys)}"
    values = read_all(
        targets, [row.cell for row in listed], lambda place: f"{path.name}, line {listed[place].line}, {column}"
    )
    picked = np.array(_rows_of(path, split, fold, chosen, [row.split for row in listed]), np.int64)
    source = ListSource(folder, (f"{listed[place].name}{ending}" for place in picked), values[picked], targets)
    source.whole = chosen is None
    source.served = f"all rows of '{path.name}'" if chosen is None else f"rows of '{path.name}' by column '{chosen}'"
    if fold is not None:
        source.served += f", fold {fold}"
    elif chosen is not None:
        strange = Counter(row.split for row in listed if row.split != split and not split_of(row.split))
        source.left_out = {f"rows of split {cell!r}": count for cell, count in strange.most_common(SHOWN)}
    return source


def _read_rows(
    path: Path, delimiter: str | None, encoding: str, names: Sequence[str]
) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """The column names, those given or those of the first line, and (line number, row) of the rows of a CSV."""
    delimiter = {"tab": "\t"}.get(delimiter or "", delimiter) or ("\t" if path.suffix.lower() == ".tsv" else ",")
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise UsageError(f"delimiter is one character, as ; or |, or the word tab; not {delimiter!r}")
    encoding = "utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding
    try:
        with path.open(newline="", encoding=encoding) as file:
            reader = csv.DictReader(file, names or None, delimiter=delimiter)
            _check_columns(path, list(reader.fieldnames or []), delimiter)
            rows = []
            for row in reader:
                if None in row.values() or None in row:
                    there = f"columns={','.join(names)}" if names else "the header"
                    raise DataError(f"{path.name}, line {reader.line_num} has another number of cells than {there}")
                rows.append((reader.line_num, row))
            if names and rows and _is_header(rows[0][1]):
                raise UsageError(f"{path.name}, line {rows[0][0]} names the columns already; leave columns= out")
            return list(reader.fieldnames or []), rows
    except csv.Error as error:
        raise DataError(f"{path.name}, line {reader.line_num}: {error}") from error
    except LookupError as error:
        raise UsageError(f"encoding '{encoding}' is unknown; use utf-8, latin-1, cp1252, ...") from error
    except UnicodeDecodeError as error:
        if (kind := what_it_is(path.read_bytes()[:512])) in BINARY:
            raise UsageError(f"{path.name} is {kind}; csv: reads text, a row a line") from error
        line = 1 + path.read_bytes()[: _bad_byte(path, encoding)].count(b"\n")
        raise DataError(
            f"{path.name}, line {line} is not {encoding.removesuffix('-sig')}: pass encoding=latin-1, or the right one"
        ) from error


def _check_columns(path: Path, columns: Sequence[str], delimiter: str) -> None:
    """Raise for a header that another delimiter would part, and for one that names a column twice."""
    if not any(column.strip() for column in columns):
        raise DataError(f"{path.name} is empty: its first line names the columns")
    other = next((mark for mark in _DELIMITERS if len(columns) == 1 and mark != delimiter and mark in columns[0]), "")
    if other:
        word = "tab" if other == "\t" else other
        raise UsageError(f"{path.name} has the single column '{escaped(columns[0])}'; pass delimiter={word}")
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise DataError(f"{path.name}, line 1: several columns are called '{twice[0]}'; rename all but one")


def _is_header(row: dict[str, str]) -> bool:
    """Whether a row repeats the names of the columns, or holds the usual ones."""
    cells = [cell.strip().lower() for cell in row.values()]
    usual = not {*cells}.isdisjoint(IMAGE_KEYS) and not {*cells}.isdisjoint(TARGET_KEYS)
    return usual or cells == [name.lower() for name in row]


def _refuse_row(path: Path, cells: Sequence[str], folder: Path) -> None:
    """Raise `UsageError` for a first line that holds the path of an image where the names of the columns should be."""
    ends = [os.path.splitext(cell.strip())[1].lower() in IMAGE_EXTENSIONS for cell in cells]
    images = [end or os.path.isfile(folder / cell) for cell, end in zip(cells, ends)]
    if any(images):
        others = iter(("label", *(f"column{number}" for number in range(3, len(cells) + 1))))
        names = ["image" if number == images.index(True) else next(others) for number in range(len(cells))]
        raise UsageError(
            f"{path.name}, line 1 is a row, '{escaped(cells[images.index(True)])}' names an image and no column; name "
            f"the columns, as columns={','.join(names)}"
        )


def _bad_byte(path: Path, encoding: str) -> int:
    try:
        path.read_bytes().decode(encoding)
    except UnicodeDecodeError as error:
        return error.start
    return 0


def _listed(
    path: Path, line: int, row: dict[str, str], image: str, keys: Sequence[str], chosen: str | None, anywhere: bool
) -> _Row:
    where = f"{path.name}, line {line}, column '{image}'"
    name = row[image]
    if not name.strip():
        raise DataError(f"{where}: the path of the image is empty")
    try:
        checked = name if anywhere else checked_name(name)
    except DataError as error:
        raise DataError(f"{where}: {error}") from error
    cell = row[keys[0]] if len(keys) == 1 else [row[key] for key in keys]
    return _Row(line, checked, cell, row[chosen].strip() if chosen else "")


def _rows_of(path: Path, split: str, fold: str | None, chosen: str | None, cells: Sequence[str]) -> list[int]:
    """The rows of a split, by their cells in the split column."""
    if chosen is None:
        if not split_of(split):
            raise no_split(f"'{path.name}'", split, ())
        return list(range(len(cells)))
    values = natural_sorted(set(cells))
    if fold is not None:
        if fold not in values:
            raise UsageError(f"{path.name}: column '{chosen}' holds {_some(values)}, none of which is the fold {fold}")
        held = canonical_split(split) == VALIDATION
        return [place for place, cell in enumerate(cells) if (cell == fold) == held]
    picked = [place for place, cell in enumerate(cells) if cell == split]
    wanted = canonical_split(split)
    picked = picked or [place for place, cell in enumerate(cells) if split_of(cell) == wanted]
    if picked:
        return picked
    if any(split_of(value) for value in values):
        raise no_split(f"'{path.name}'", split, values)
    raise SplitError(
        f"{path.name}: column '{chosen}' holds {_some(values)}, none of which is the split '{split}'; add "
        f"fold={values[0]} to validate on these rows and train on the others, split={values[0]} for these rows alone, "
        "or split_key= to read all rows",
        values,
    )


def _some(values: Sequence[str]) -> str:
    return ", ".join(values[:5]) + (", ..." if len(values) > 5 else "")


class ParquetSource(Source):
    """Parquet whose image column holds bytes, {"bytes", "path"} pairs, or paths below `root`; one row group in memory
    at a time. Options as for `csv:`; `target_key` may lead into nested fields, `objects/label`.
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
        self.paths, self.served, self.whole = _parquet_files(path, split)
        self.root = Path(root).expanduser() if root else (path.parent if path.is_file() else path)
        with readable(self.paths[0]):
            columns = self._parquet.ParquetFile(self.paths[0]).schema_arrow.names
        self.image, self.keys = pick_image(image_key, columns), pick_targets(target_key, columns)
        self._groups: list[tuple[int, int]] = []
        starts, cells = [0], []
        for number, file in enumerate(self.paths):
            with readable(file):
                opened = self._parquet.ParquetFile(file)
                for group in range(opened.metadata.num_row_groups):
                    self._groups.append((number, group))
                    starts.append(starts[-1] + opened.metadata.row_group(group).num_rows)
                cells += _target_cells(opened, self.keys)
        self._starts = starts
        targets = Targets(target_format, class_map, num_classes, self.keys)
        self._targets = read_all(targets, cells, lambda row: f"{self.key(row)}, field {', '.join(self.keys)}")
        targets.tell(self)
        self._held: tuple[int, Any] = (-1, None)

    def __len__(self) -> int:
        return self._starts[-1]

    def __getitem__(self, index: int) -> Sample:
        group = bisect.bisect_right(self._starts, index) - 1
        held, column = self._held  # taken at once: other threads read other groups
        if held != group:
            file, part = self._groups[group]
            path, columns = self.paths[file], [self.image.split("/")[0]]
            with readable(path):
                column = self._parquet.ParquetFile(path).read_row_group(part, columns=columns).column(0)
            self._held = (group, column)
        cell = column[index - self._starts[group]].as_py()
        target = self._targets[index]
        data = image_bytes(cell, self.root)
        return Sample(data, target.copy() if target.ndim else target.item(), self.key(index))

    def key(self, index: int) -> str:
        group = bisect.bisect_right(self._starts, index) - 1
        return f"{self.paths[self._groups[group][0]].name}:{index}"

    def place(self, index: int) -> str:
        group = bisect.bisect_right(self._starts, index) - 1
        file, part = self._groups[group]
        return f"{real_place(self.paths[file])}:{part}:{index - self._starts[group]}"

    def size(self, index: int) -> int | None:
        count = int(self._sizes[index]) if len(self._sizes) else -1
        return count if count >= 0 else None

    @functools.cached_property
    def _sizes(self) -> np.ndarray:
        """(N,) bytes of each image, below 0 where not known; none where the files are too large to be read for it."""
        if sum(path.stat().st_size for path in self.paths) > MOST_READ:
            return np.zeros(0, np.int64)
        counts = []
        for path in self.paths:
            with readable(path):
                column = self._parquet.ParquetFile(path).read(columns=[self.image.split("/")[0]]).column(0)
                counts.append(byte_counts(column))
        return np.concatenate(counts)

    def targets(self) -> np.ndarray:
        return self._targets

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_held": (-1, None)}


def image_bytes(cell: Any, root: Path | None, reach: Sequence[Path] | None = None) -> Any:
    """The bytes of an image cell: bytes, {"bytes", "path"}, a path (below `root` if that is given), or an array.

    With `reach` a path must lie below one of these folders.
    """
    if isinstance(cell, dict):
        cell = cell.get("bytes") or cell.get("path")
    if isinstance(cell, str):
        path = root / checked_name(cell) if root is not None else Path(cell)
        if reach is not None and not any(path.resolve().is_relative_to(folder) for folder in reach):
            raise DataError(f"the cell names the file '{cell[:200]}' of this machine; add anywhere=true to open it")
        return path.read_bytes()
    if cell is None:
        raise DataError("the row has no image")
    if isinstance(cell, list):
        return np.asarray(cell, np.uint8)
    return cell


def byte_counts(column: Any) -> np.ndarray:
    """(N,) bytes of each image of an Arrow column; `ELSEWHERE` for those that are paths, `NO_BYTES` for all others."""
    import pyarrow
    import pyarrow.compute

    compute: Any = pyarrow.compute  # its functions are made as it is imported: no checker knows them
    missing = NO_BYTES
    if pyarrow.types.is_struct(column.type) and column.type.get_field_index("bytes") >= 0:
        column, missing = compute.struct_field(column, "bytes"), ELSEWHERE
    if not (pyarrow.types.is_binary(column.type) or pyarrow.types.is_large_binary(column.type)):
        text = pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type)
        return np.full(len(column), ELSEWHERE if text else NO_BYTES, np.int64)
    return compute.fill_null(compute.binary_length(column).cast("int64"), missing).to_numpy()


def _target_cells(file: Any, keys: list[str]) -> list[Any]:
    roots = list(dict.fromkeys(key.split("/")[0] for key in keys))
    return [cell_of(row, keys) for row in file.read(columns=roots).to_pylist()]


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Say in one `DataError` what a library finds in a file or folder that is not what its name says."""
    try:
        yield
    except ImgzooError:
        raise
    except Exception as error:  # of whatever kind the library's are
        raise DataError(f"'{path}' is damaged, or not what its name says: {first_line(error)}") from error


def _parquet_files(path: Path, split: str) -> tuple[list[Path], str, bool]:
    """The files of a split, what serves it, and whether that is all there is."""
    if path.is_file():
        return [path], f"'{path.name}'", True
    files = [path / name for name in natural_sorted(p.name for p in path.glob("*.parquet"))]
    folders = {d.name: sorted(d.glob("*.parquet")) for d in path.iterdir() if d.is_dir()}
    wanted = canonical_split(split)
    inside = [name for name, found in folders.items() if found and (name == split or split_of(name) == wanted)]
    if inside:
        return folders[inside[0]], f"folder '{inside[0]}'", False
    named = [file for file in files if file.stem == split or split_of_file(file.stem) == wanted]
    if named:
        return named, ", ".join(file.name for file in named[:3]), False
    others = [*(n for n, found in folders.items() if found and split_of(n)),
              *(file.name for file in files if split_of_file(file.stem))]  # fmt: skip
    if others:
        raise no_split(f"'{path}'", split, others)
    if not files:
        raise UsageError(f"no .parquet below '{path}' for split '{split}'")
    return files, f"all .parquet files of '{path}'", True


def _pyarrow() -> Any:
    try:
        import pyarrow.parquet
    except ModuleNotFoundError as error:
        raise MissingDependencyError("parquet: needs pyarrow: pip install 'imgzoo-data[parquet]'") from error
    return pyarrow.parquet

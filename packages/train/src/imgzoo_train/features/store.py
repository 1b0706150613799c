"""Files of features: .npy with a .json beside it, .parquet, or .safetensors; written in parts, put in place whole."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from imgzoo.errors import DataError, MissingDependencyError, UsageError
from imgzoo.loading.disk import replacing
from imgzoo.text import escaped
from imgzoo_train.files.storage import (
    CODES,
    StorageError,
    check_file,
    held,
    make_folder,
    replace_text,
    sync_folder,
    tensors_head,
    write_tensors,
)
from imgzoo_train.terminal.progress import Watched

from .embedding import Embedding, Part, changed, joined

SUFFIXES = (".npy", ".parquet", ".safetensors")
META = "imgzoo"


@dataclass
class Features:
    """What a file holds: arrays (N, ...) by name, targets (N,) or (N, count), the keys of the images, its record."""

    arrays: dict[str, np.ndarray]
    targets: np.ndarray
    keys: list[str]
    record: dict[str, Any]

    def vectors(self) -> np.ndarray:
        """(N, D) vectors an image. Raises `UsageError` for tokens and levels."""
        if self.record.get("kind") != "pooled":
            raise UsageError(f"these are {self.record.get('kind')}; embed the source with `imgzoo embed --kind pooled`")
        return self.arrays["features"]


def in_memory(embedding: Embedding, what: str) -> Features:
    """The features of a source without a file."""
    steps = -(-len(embedding.keys) // embedding.settings.batch_size)
    found = joined(list(embedding.parts(watch=lambda loader: Watched(loader, steps, what))))
    return Features(found.features, found.targets, embedding.keys, embedding.record())


def check_output(path: Path, kind: str, overwrite: bool = False) -> None:
    """Raise `UsageError` for a file of another kind, one that is there already, or cannot be written."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"--output takes {', '.join(SUFFIXES)}, not '{path.suffix}'")
    if path.suffix == ".npy" and kind == "levels":
        raise UsageError(".npy holds a single array, and levels are several; use .safetensors or .parquet")
    if path.suffix == ".parquet":
        _pyarrow()
    check_file(path)
    if path.exists() and not overwrite:
        raise UsageError(f"{path} is there already; add --overwrite, or choose another --output")


class Parts:
    """The folder beside an output in which its parts wait; `done` images are in it."""

    def __init__(self, output: Path, record: dict[str, Any], keys: list[str]) -> None:
        self.output, self.record, self.keys = output, record, keys
        self.folder = output.with_name(f"{output.name}.parts")

    @contextmanager
    def opened(self, resume: bool, overwrite: bool) -> Iterator[int]:
        """Keep every other process out; gives the number of images that are done.

        Raises `UsageError` for what is there and was not asked for, and for parts of another model, source or setting.
        """
        if self.paths() and not (resume or overwrite):
            raise UsageError(f"{self.folder} holds a part of it; add --resume to go on, or --overwrite to begin anew")
        with held(make_folder(self.folder)):
            note = self.folder / "record.json"
            if not resume or not note.exists():
                for path in self.folder.iterdir():
                    path.unlink()
                replace_text(note, json.dumps(self.record))
            elif differing := changed(json.loads(note.read_text()), self.record):
                raise UsageError(
                    f"{self.folder} was begun with another {', '.join(differing)}; add --overwrite to begin anew"
                )
            try:
                yield sum(map(len, self.each("targets")))
            finally:
                if not self.paths():
                    shutil.rmtree(self.folder, ignore_errors=True)

    def paths(self) -> list[Path]:
        return sorted(self.folder.glob("*.safetensors"))

    def __iter__(self) -> Iterator[Part]:
        for path in self.paths():
            yield read_part(path)

    def each(self, name: str) -> Iterator[np.ndarray]:
        """One array of every part, the others unread."""
        from safetensors import safe_open

        for path in self.paths():
            with safe_open(str(path), "np") as file:
                yield file.get_tensor(name)

    def add(self, part: Part) -> None:
        """Keep a part: whole, or not at all."""
        tensors = {name: torch.from_numpy(array) for name, array in part.features.items()}
        path = self.folder / f"{len(self.paths()):08}.safetensors"
        try:
            with replacing(path) as partial:
                write_tensors(partial, {**tensors, "targets": torch.from_numpy(part.targets)})
        except OSError as error:
            raise StorageError(
                f"cannot write {path} ({error.strerror}); the parts are kept, go on with --resume"
            ) from error
        sync_folder(self.folder)

    def finish(self) -> None:
        """Put the file in place, and take the parts away."""
        try:
            if self.output.suffix == ".npy":
                targets = np.concatenate([*self.each("targets")]).tolist()
                note = {"record": self.record, "keys": self.keys, "targets": targets}
                replace_text(sidecar(self.output), json.dumps(note))
            with replacing(self.output) as partial:
                WRITERS[self.output.suffix](partial, self)
        except OSError as error:
            reason = error.strerror or error
            raise StorageError(f"cannot write {self.output} ({reason}); the parts are kept: add --resume") from error
        sync_folder(self.output.absolute().parent)
        shutil.rmtree(self.folder, ignore_errors=True)


def read_part(path: Path) -> Part:
    from safetensors.numpy import load_file

    arrays = load_file(str(path))
    return Part({name: array for name, array in arrays.items() if name != "targets"}, arrays["targets"])


def sidecar(path: Path) -> Path:
    """The file beside an .npy that holds keys, targets and the record."""
    return path.with_name(f"{path.name}.json")


def _write_npy(path: Path, parts: Parts) -> None:
    shape = next(iter(parts)).features["features"].shape[1:]
    header = {"descr": "<f4", "fortran_order": False, "shape": (len(parts.keys), *shape)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for array in parts.each("features"):
            file.write(array.tobytes())


def _write_safetensors(path: Path, parts: Parts) -> None:
    """One tensor behind the other, a part at a time."""
    first = next(iter(parts))
    keys = np.frombuffer(json.dumps(parts.keys).encode(), np.uint8)
    arrays = {**first.features, "targets": first.targets}
    rows = {}
    for name, array in [*arrays.items(), ("keys", keys)]:
        shape = array.shape if name == "keys" else (len(parts.keys), *array.shape[1:])
        code = CODES[getattr(torch, array.dtype.name)]
        rows[name] = code, shape, int(np.prod(shape, dtype=np.int64)) * array.itemsize
    with path.open("wb") as file:
        file.write(tensors_head(rows, {META: json.dumps(parts.record)}))
        for name in arrays:
            for array in parts.each(name):
                file.write(array.tobytes())
        file.write(keys.tobytes())


def _pyarrow() -> Any:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("parquet needs pyarrow: pip install imgzoo-train[parquet]") from error
    return pyarrow


def _write_parquet(path: Path, parts: Parts) -> None:
    """Columns `key`, `target` and one of lists of numbers an array, whose shapes stand in the metadata."""
    arrow, writer, begin = _pyarrow(), None, 0
    try:
        for part in parts:
            keys = [escaped(key, "") for key in parts.keys[begin : begin + len(part)]]  # a table holds Unicode alone
            columns: dict[str, Any] = {"key": keys, "target": part.targets.tolist()}
            for name, array in part.features.items():
                flat = arrow.array(array.reshape(-1))
                columns[name] = arrow.FixedSizeListArray.from_arrays(flat, int(np.prod(array.shape[1:])))
            table = arrow.table(columns)
            if writer is None:
                shapes = {name: array.shape[1:] for name, array in part.features.items()}
                note = json.dumps({"record": parts.record, "shapes": shapes}).encode()
                schema = table.schema.with_metadata({META.encode(): note})
                writer = arrow.parquet.ParquetWriter(path, schema)
            writer.write_table(table.cast(schema))
            begin += len(part)
    finally:
        if writer is not None:
            writer.close()


WRITERS = {".npy": _write_npy, ".parquet": _write_parquet, ".safetensors": _write_safetensors}


def read_features(path: Path) -> Features:
    """A file that `imgzoo embed` wrote; raises `UsageError` or `DataError` for any other."""
    if path.suffix not in SUFFIXES:
        raise UsageError(f"features are read from {', '.join(SUFFIXES)}, not from '{path.suffix or path}'")
    if not path.is_file():
        raise UsageError(f"there is no file {path}; write it with imgzoo embed")
    try:
        found = READERS[path.suffix](path)
    except MissingDependencyError:
        raise
    except Exception as error:  # whatever a library finds in a file that is not what its name says
        raise DataError(f"{path} holds no features of imgzoo embed ({type(error).__name__})") from error
    rows = {len(found.keys), len(found.targets), *map(len, found.arrays.values())}
    if len(rows) > 1:
        raise DataError(f"{path} is damaged: its keys, targets and features differ in number")
    return found


def _read_npy(path: Path) -> Features:
    note = json.loads(sidecar(path).read_text())
    array = np.load(path, mmap_mode="r", allow_pickle=False)
    return Features({"features": array}, np.asarray(note["targets"]), note["keys"], note["record"])


def _read_safetensors(path: Path) -> Features:
    from safetensors import safe_open

    with safe_open(str(path), "np") as file:
        record = json.loads(file.metadata()[META])
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    keys = json.loads(arrays.pop("keys").tobytes())
    return Features({n: a for n, a in arrays.items() if n != "targets"}, arrays["targets"], keys, record)


def _read_parquet(path: Path) -> Features:
    _pyarrow()
    import pyarrow.parquet

    table = pyarrow.parquet.read_table(path)
    note = json.loads(table.schema.metadata[META.encode()])
    arrays = {}
    for name, shape in note["shapes"].items():
        flat = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        arrays[name] = flat.reshape(len(table), *shape)
    return Features(arrays, np.asarray(table["target"].to_pylist()), table["key"].to_pylist(), note["record"])


READERS = {".npy": _read_npy, ".parquet": _read_parquet, ".safetensors": _read_safetensors}

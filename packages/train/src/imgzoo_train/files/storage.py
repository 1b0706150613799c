"""Files that survive a crash: written, flushed to the disk, then renamed. Tensors as safetensors, never pickle."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import shutil
import struct
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from imgzoo.errors import ImgzooError, UsageError
from imgzoo.loading.disk import check_end, replacing
from imgzoo.text import escaped, json_text

DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
CHUNK = 1 << 24

CODES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


class StorageError(ImgzooError, OSError):
    """A file of the run could not be written or read."""

    exit_code = 1


def is_disk_full(error: BaseException | None) -> bool:
    """Whether `error`, or what caused it, says that no space was left."""
    while error is not None:
        known = isinstance(error, OSError) and error.errno in DISK_FULL
        if known or any(os.strerror(number) in str(error) for number in DISK_FULL):
            return True  # safetensors has errors of its own, with the system's words in them
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def telling(path: Path) -> Iterator[None]:
    """Say of a file that cannot be written which one it is, and why."""
    try:
        yield
    except Exception as error:
        if isinstance(error, ImgzooError) or not (isinstance(error, OSError) or is_disk_full(error)):
            raise
        reason = getattr(error, "strerror", None) or "no space left"
        raise StorageError(f"cannot write {path} ({reason}); choose another --output") from error


class _Writer:
    """A new file that is hashed while it is written and flushed to the disk when it is closed."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o666)
        self.hash = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes | memoryview) -> None:
        view = memoryview(data)
        while len(view):
            done = os.write(self.descriptor, view[:CHUNK])
            self.hash.update(view[:done])
            self.size += done
            view = view[done:]

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                os.fsync(self.descriptor)
        finally:
            os.close(self.descriptor)

    def entry(self) -> dict[str, Any]:
        return {"sha256": self.hash.hexdigest(), "size": self.size}


def write_file(path: Path, data: bytes) -> dict[str, Any]:
    """Write and flush `data`; returns `{"sha256", "size"}`."""
    with _Writer(path) as writer:
        writer.write(data)
    return writer.entry()


def tensors_head(rows: Mapping[str, tuple[str, Sequence[int], int]], metadata: Mapping[str, str]) -> bytes:
    """The head of a safetensors file whose tensors are (code, shape, bytes), one behind the other."""
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, (code, shape, size) in rows.items():
        header[name] = {"dtype": code, "shape": list(shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> dict[str, Any]:
    """Write a safetensors file without a second copy of the tensors; returns `{"sha256", "size"}`.

    Tensors must lie on the CPU. Raises `TypeError` for a dtype the format does not know.
    """
    rows: dict[str, tuple[str, Sequence[int], int]] = {}
    for name, tensor in tensors.items():
        if tensor.dtype not in CODES:
            raise TypeError(f"tensor '{name}' has dtype {tensor.dtype}, which safetensors files cannot hold")
        rows[name] = CODES[tensor.dtype], tensor.shape, tensor.numel() * tensor.element_size()
    head = tensors_head(rows, {"format": "pt"})
    with _Writer(path) as writer:
        writer.write(head)
        for tensor in tensors.values():
            if tensor.numel():
                flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
                writer.write(memoryview(flat.numpy()))  # type: ignore[arg-type]
    return writer.entry()


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file; every tensor in memory of its own, as aligned as any that torch makes.

    A file packs its tensors, and a matrix product of one that lies less aligned may round otherwise.
    """
    from safetensors.torch import load_file

    return {name: tensor.clone() for name, tensor in load_file(str(path)).items()}


def file_entry(path: Path) -> dict[str, Any]:
    """`{"sha256", "size"}` of a file on disk."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            digest.update(block)
            size += len(block)
    return {"sha256": digest.hexdigest(), "size": size}


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def replace_file(path: Path, data: bytes) -> None:
    """Write `path` as a whole or not at all; raises `StorageError` where it cannot be written."""
    try:
        with replacing(path) as partial:
            write_file(partial, data)
    except OSError as error:
        raise StorageError(f"cannot write {path} ({error.strerror})") from error
    sync_folder(path.parent)


def append_row(path: Path, row: Mapping[str, Any]) -> None:
    """Add a line to a file of JSON lines: whole, or not at all. A number that is not finite is null."""
    with path.open("ab") as file:
        start = file.tell()
        try:
            file.write(json_text(row, None).encode() + b"\n")
            file.flush()
        except OSError:
            with contextlib.suppress(OSError):
                file.truncate(start)
            raise


def replace_text(path: Path, text: str) -> None:
    """Write `path` as a whole or not at all, as UTF-8; what no encoding knows, such as a byte of a name, is escaped."""
    replace_file(path, text.encode(errors="backslashreplace"))


def remove_folder(folder: Path) -> None:
    """Delete a folder: out of sight first, so that a crash leaves no half of it under its name."""
    trash = folder.with_name(f".trash-{folder.name}")
    if trash.exists():
        shutil.rmtree(trash, ignore_errors=True)
    os.rename(folder, trash)
    shutil.rmtree(trash, ignore_errors=True)


def check_file(path: Path | None, *ends: str, option: str = "--output") -> None:
    """Raise `UsageError` for a file that cannot be written, before the work whose result it takes; leaves nothing.

    Where `ends` are given, a file whose name ends otherwise is refused too.
    """
    if path is None:
        return
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        tempfile.TemporaryFile(dir=path.absolute().parent).close()
    except OSError as error:
        raise UsageError(f"cannot write {path} ({error.strerror}); choose another {option}") from error
    if ends:
        check_end(path, *ends, option=option)


@contextmanager
def held(folder: Path, patience: float = 8.0) -> Iterator[None]:
    """Keep every other process out of a folder that exists; raises `UsageError` where one is in it.

    `patience` seconds are given to the workers of a process that was killed, which hold what it held until they notice.
    """
    descriptor, last = os.open(folder, os.O_RDONLY), time.monotonic() + patience
    try:
        while not _locked(descriptor):
            if time.monotonic() > last:
                raise UsageError(f"another process writes to {folder}: wait for its end, or choose another --output")
            time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


def is_held(folder: Path) -> bool:
    """Whether another process, or this one, keeps the folder to itself."""
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return False
    try:
        return not _locked(descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    """Take the lock of an open folder; a file system that knows no locks gives it to anyone."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):
            raise
    return True


def make_folder(folder: Path) -> Path:
    """Create `folder`; raises `StorageError` when it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / ".probe"
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise StorageError(f"cannot write to {folder} ({error.strerror}); choose another --output") from error
    return folder


def safe_cell(text: str) -> str:
    """A text as a spreadsheet cell that is never run as a formula, control characters escaped."""
    text = escaped(text, "")
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text

"""Files on this machine: what weights and configurations are called, read, hashed, and written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import stat
import zipfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from imgzoo.errors import UsageError, WeightsError
from imgzoo.plain import is_table

CONFIG = "config.json"
MOST_HEADER = 100_000_000
FILES = (".safetensors", ".pth", ".pt", ".bin", ".tar", ".npz")
INDEX = ".safetensors.index.json"
"""How the name ends of a file that tells in which of several files the tensors are."""


def read_config(path: Path) -> dict[str, Any]:
    """Parse a `config.json` from outside: an object of limited size, nothing else."""
    try:
        if path.stat().st_size > 16 * 2**20:
            raise WeightsError(f"{path} is too large for a model configuration")
        config = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(f"{path} is no model configuration: {error}") from error
    if not is_table(config):
        raise WeightsError(f"{path} is no model configuration: expected an object")
    return dict(config)


def check_end(path: Path, *ends: str, option: str = "--output") -> None:
    """Raise `UsageError` for a file to be written whose name ends otherwise: it may be a file of another kind."""
    if path.suffix.lower() not in ends:
        wanted = f"a {ends[0]} file" if len(ends) == 1 else ", ".join(ends)
        raise UsageError(f"{option} takes {wanted}, not '{path.name}'")


def sha256_of(path: Path) -> str:
    """Hash of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_whole(path: Path, kind: str) -> bool:
    """Whether a weight file of a kind (`.safetensors`, or one that is a zip archive) is complete by its own account."""
    if kind == ".safetensors":
        try:
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(min(length, MOST_HEADER)))
            ends = [row["data_offsets"][1] for name, row in header.items() if name != "__metadata__"]
            return path.stat().st_size == 8 + length + max(ends, default=0)
        except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
            return False
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, ValueError, NotImplementedError, RuntimeError, EOFError):
        return False


@contextmanager
def replacing(path: Path) -> Generator[Path]:
    """A new empty file beside `path`, to be written; it takes the place of `path` when the block ends well, else goes.

    It lies on the disk before it does. Nobody can guess its name, and nothing that stands there before is followed or
    written. Its mode is the umask's.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    os.close(descriptor)
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        os.chmod(part, mode)  # some libraries write a file of their own in its place, for nobody else to read
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, "utf-8")

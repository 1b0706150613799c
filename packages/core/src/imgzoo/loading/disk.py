"""Files on this machine: what weights and configurations are called, read, hashed, and written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from imgzoo.errors import WeightsError

CONFIG = "config.json"
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
    if not isinstance(config, Mapping):
        raise WeightsError(f"{path} is no model configuration: expected an object")
    return dict(config)


def sha256_of(path: Path) -> str:
    """Hash of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A new empty file beside `path`, to be written; it takes the place of `path` when the block ends well, else goes.

    Nobody can guess its name, and nothing that stands there before is followed or written.
    """
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a small file whole or not at all."""
    with replacing(path) as part:
        part.write_text(text, "utf-8")

"""A deployed network as one file: a zip archive of what its engine wrote and `imgzoo.json`, which says what it is."""

from __future__ import annotations

import json
import shutil
import tempfile
import weakref
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imgzoo.errors import UsageError
from imgzoo.loading.disk import replacing
from imgzoo_train.files.storage import StorageError

SUFFIX = ".imgzoo"
RECORD = "imgzoo.json"
VERSION = 1
MOST_RECORD = 1 << 26
KEYS = {"engine", "precision", "facts", "input_size", "batch", "several", "model", "parity", "report"}
PRECISIONS = ("float16", "bfloat16", "float32", "float64")
"""Of the images that a network may take."""


class Scratch:
    """An empty folder that goes when nothing holds it."""

    def __init__(self) -> None:
        self.path = Path(tempfile.mkdtemp(prefix="imgzoo-"))
        weakref.finalize(self, shutil.rmtree, self.path, ignore_errors=True)


def is_deployed(path: Path) -> bool:
    """Whether a path is meant as a deployed file."""
    return path.suffix.lower() == SUFFIX and not path.is_dir()


def pack(folder: Path, record: Mapping[str, Any], path: Path) -> Path:
    """Write a folder and its record as one file, whole or not at all."""
    text = json.dumps({"version": VERSION, **record}, indent=1)
    try:
        with replacing(path) as part, zipfile.ZipFile(part, "w") as archive:
            archive.writestr(RECORD, text)
            for file in sorted(folder.iterdir()):
                archive.write(file, file.name)
    except OSError as error:
        raise StorageError(f"cannot write {path} ({error.strerror}); choose another file") from error
    return path


def unpack(path: Path, folder: Path) -> dict[str, Any]:
    """Fill an empty folder with what a file holds; returns the record.

    Raises `UsageError` for a file that is missing, damaged, or written by another version.
    """
    if not path.is_file():
        raise UsageError(f"there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(RECORD).file_size > MOST_RECORD:
                raise ValueError("its record is too large")
            record = json.loads(archive.read(RECORD))
            version = record["version"]
            if version == VERSION:
                if lacks := KEYS - record.keys():
                    raise ValueError(f"its record lacks {min(lacks)}")
                if record.get("dtype", "float32") not in PRECISIONS:
                    raise ValueError("the precision of its images is unknown")
                for name in archive.namelist():
                    if name != RECORD:
                        with archive.open(name) as source, (folder / Path(name).name).open("wb") as target:
                            shutil.copyfileobj(source, target, 1 << 24)
    except (zipfile.BadZipFile, zlib.error, KeyError, TypeError, ValueError, EOFError, NotImplementedError) as error:
        reason = str(error).strip("'\"").splitlines()
        raise UsageError(
            f"{path} is no whole deployed file ({reason[0] if reason else type(error).__name__}): write it again with "
            "imgzoo export --engine"
        ) from error
    if version != VERSION:
        raise UsageError(
            f"{path} is of version {version}, this imgzoo-train reads version {VERSION}: write it again with imgzoo "
            "export --engine"
        )
    return record

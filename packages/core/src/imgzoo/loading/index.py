"""The index of a bundle or lock file: which files hold the weights of a name, and their hashes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from imgzoo.errors import WeightsError

from .disk import sha256_of
from .source import ModelSource

INDEX = "bundle.json"
VERSION = 2
"""Of the layout: rows are keyed by `plugin/name.tag`."""


def read_index(folder: Path, name: str = INDEX) -> dict[str, Any]:
    """The rows of a bundle or lock file; file names that lead out of the folder are refused."""
    path = folder / name
    try:
        index = json.loads(path.read_text("utf-8"))
        rows, version = index["weights"], index.get("version")
        for each, row in rows.items():
            if Path(row["file"]).name != row["file"] or not isinstance(row["sha256"], str):
                raise ValueError(f"the row '{each}' is malformed")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise WeightsError(f"'{path}' is no bundle index: {error}") from error
    if version != VERSION:
        raise WeightsError(f"'{path}' has version {version!r}, this imgzoo reads {VERSION}; make it again")
    return rows


def bundled_file(folder: Path, source: ModelSource) -> Path:
    """The file a bundle holds for a source, its hash verified."""
    row = read_index(folder).get(source.full_name)
    if row is None:
        raise WeightsError(f"the bundle '{folder}' does not hold '{source.full_name}'")
    return verified(folder / row["file"], row["sha256"])


def verified(path: Path, sha256: str) -> Path:
    """The path, once its content has the expected hash; an empty one expects nothing."""
    if not path.is_file():
        raise WeightsError(f"the file '{path}' is missing")
    if not sha256:
        return path
    actual = sha256_of(path)
    if actual != sha256:
        raise WeightsError(f"'{path}' has sha256 {actual}, but {sha256} was recorded; the file is damaged")
    return path

"""Reading files, none of which is ever run."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from imgzoo.errors import WeightsError
from imgzoo.loading.files import read_torch


class UnreadError(WeightsError, RuntimeError):
    """A file that is not read, as clients expect to be told of it."""


@contextmanager
def told_of_files() -> Iterator[None]:
    """Let what is wrong with a file be told by `UnreadError`."""
    try:
        yield
    except WeightsError as error:
        raise UnreadError(str(error)) from error


def load_checkpoint_metadata(checkpoint_path: str) -> dict[str, Any]:
    """What a checkpoint holds; nothing in it is ever run."""
    with told_of_files():
        return read_torch(Path(checkpoint_path))

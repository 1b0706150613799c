"""The C code of this package, as `hatch_build.py` compiles it into the wheel. Imports nothing of the package."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def sources() -> Iterator[str]:
    """Each text that is a library of its own."""
    yield Path(__file__).with_name("transforms").joinpath("resize.c").read_text(encoding="utf-8")

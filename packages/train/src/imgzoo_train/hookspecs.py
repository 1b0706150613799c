"""Run events that a plugin may follow; `imgzoo-train` adds these hooks to the plugin contract. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from imgzoo.plugin import hookspec


@hookspec
def imgzoo_run_started(folder: Path, config: Any) -> None:
    """A training run begins, or goes on, in `folder`."""


@hookspec
def imgzoo_run_logged(folder: Path, row: Mapping[str, Any]) -> None:
    """A row was written to `metrics.jsonl`."""


@hookspec
def imgzoo_run_ended(folder: Path, summary: Mapping[str, Any]) -> None:
    """A training run is complete; `summary` holds its best scores."""

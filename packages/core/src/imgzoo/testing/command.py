"""Checks of commands and health checks."""

from __future__ import annotations

from typing import Any

import click
from click.testing import CliRunner

from imgzoo.discovery.doctor import LEVELS


def is_a_command(subject: Any) -> None:
    """A click command whose help can be shown; nothing of it runs."""
    command = subject.spec.load()
    if not isinstance(command, click.Command):
        raise AssertionError(f"{subject.spec.target} is a {type(command).__name__}, and no click command")
    shown = CliRunner().invoke(command, ["--help"])
    if shown.exit_code or "Usage:" not in shown.output:
        raise AssertionError(f"--help ends with {shown.exit_code}: {shown.output.strip()[:200]}")


def yields_findings(subject: Any) -> None:
    """Called with nothing, it yields pairs of a level and a message."""
    for row in subject.spec.load()():
        if not (isinstance(row, tuple) and len(row) == 2 and row[0] in LEVELS and isinstance(row[1], str)):
            raise AssertionError(f"it yields {row!r}, and no pair of {', '.join(LEVELS)} and a message")


COMMAND = (is_a_command,)
HEALTH_CHECK = (yields_findings,)

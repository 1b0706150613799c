"""The `imgzoo` program: a lazy group of commands that plugins bring."""

from __future__ import annotations


def main() -> None:
    """Entry point of the console script."""
    from .app import run

    run()

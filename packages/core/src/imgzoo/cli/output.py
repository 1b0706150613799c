"""Printing: aligned tables, JSON, and one-sentence complaints, all without control characters."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import click

from imgzoo.text import escaped, json_text, safe


def complain(message: object) -> None:
    """One line on stderr."""
    print(f"imgzoo: {safe(message)}", file=sys.stderr)


def say(text: object = "", *, err: bool = False, nl: bool = True) -> None:
    """A line on stdout or stderr, whatever names are in it: what is not printable is shown escaped."""
    click.echo(escaped(text, "\t"), err=err, nl=nl)


def say_text(text: object) -> None:
    """Lines of our own making on stdout; names in them have no line breaks."""
    click.echo(escaped(text))


def show_warning(message: Any, category: type, filename: str, lineno: int, file: Any = None, line: Any = None) -> None:
    """What `warnings.showwarning` is while the program runs: imgzoo's own without the source line."""
    if category.__module__.startswith("imgzoo"):
        complain(message)
    else:
        complain(f"{category.__name__}: {message} ({filename}:{lineno})")


@contextlib.contextmanager
def without_gc() -> Iterator[None]:
    """Hold the garbage collector while a command imports its libraries or builds its rows: all of it stays."""
    held = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if held:
            gc.enable()


def print_json(value: Any) -> None:
    print(json_text(value))


def print_table(rows: Iterable[Sequence[Any]], head: Sequence[str] = ()) -> None:
    """Columns side by side, numbers to the right, an empty cell for None; one column is printed bare."""
    body = [[_cell(value) for value in row] for row in rows]
    if len(head) == 1 or (body and len(body[0]) == 1):
        print("".join(f"{row[0]}\n" for row in body), end="")
        return
    numeric = [_is_numeric(column) for column in zip(*body)]
    table = [list(head), *body] if head and body else body
    widths = [max(map(len, column)) for column in zip(*table)]
    for row in table:
        cells = [cell.rjust(width) if right else cell.ljust(width) for cell, width, right in zip(row, widths, numeric)]
        print("  ".join(cells).rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else safe(value)


def _is_numeric(cells: Iterable[str]) -> bool:
    return all(not cell or cell.replace(".", "", 1).removesuffix("M").isdigit() for cell in cells)

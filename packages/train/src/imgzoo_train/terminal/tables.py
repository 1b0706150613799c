"""Rows as a table on a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from imgzoo.text import escaped


def show(rows: Sequence[Mapping[str, Any]], columns: Sequence[str] = ()) -> None:
    """Print the columns that any row has; numbers are rounded to what one reads."""
    names = [name for name in columns if any(name in row for row in rows)]
    names += [name for name in dict.fromkeys(name for row in rows for name in row) if not columns or name == "error"]
    table = Table(box=None, pad_edge=False)
    for name in names:
        numeric = any(isinstance(row.get(name), (int, float)) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell(row.get(name))) for name in names))
    Console(width=None if Console().is_terminal else 200).print(table)


def cell(value: Any) -> str:
    """A value as a table cell."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.2f}" if abs(value) >= 10 else f"{value:.4g}"
    return escaped(value, "")

"""Markdown from data."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import Any


def table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table; a cell of None is empty."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(map(cell, row))} |" for row in rows]
    return "\n".join(lines)


def cell(value: Any) -> str:
    """What a cell shows: one line, no bar that would end it."""
    return " ".join(str("" if value is None else value).split()).replace("|", "&#124;")


def code(value: Any) -> str:
    """`value` as code that Markdown leaves alone; nothing for nothing."""
    text = " ".join(str(value).split())
    if not text:
        return ""
    if "`" in text or "|" in text:  # which would end the code, or a table's cell
        return f"<code>{html.escape(text, quote=False)}</code>".replace("`", "&#96;").replace("|", "&#124;")
    return f"`{text}`"


def plain(text: str) -> str:
    """Prose of the code that Markdown shows as written: `<`, `*`, `_` and `[` outside of code begin nothing."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*_\[\]])", r"\\\1", part.replace("<", "&lt;")) for part in parts
    )


def first_paragraph(docstring: str | None) -> str:
    return " ".join((docstring or "").strip().partition("\n\n")[0].split())

"""The look of every page that imgzoo writes: one stylesheet, one shell, one chart library; a page needs no network.

A page runs no script but its own: their hashes stand in its policy, so that a name taken for markup would stay dead.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from typing import Any

from imgzoo.text import escaped, json_text

EXTRA = "imgzoo-core[explore]"
"""What brings the chart library."""


def page(
    title: str, kind: str, line: str, body: str, *, script: str = "", data: Mapping[str, Any] | None = None,
    charts: bool = False,
) -> str:  # fmt: skip
    """A whole page: `kind` and `line` (text) stand in its head, `body` (markup) below.

    With a `script` it has a button between dark and light, and `data` as a constant of that name; without, it runs
    nothing and follows the reader's settings. With `charts` it carries the chart library, which the promise `library`
    unpacks.
    """
    library = packed_library() if charts else None
    scripts = [resource("imgzoo.page", "page.js"), script] if script else []
    allowed = [_allowed(text) for text in scripts] + ([library.allowed] if library else [])
    parts = {
        "policy": "; ".join(
            ["default-src 'none'", "style-src 'unsafe-inline'", "img-src data: blob:"]
            + ([f"script-src {' '.join(allowed)}"] if allowed else [])
        ),
        "title": text(title),
        "style": resource("imgzoo.page", "page.css"),
        "kind": text(kind),
        "line": text(line),
        "button": '<button id="theme" type="button" aria-pressed="false">Dark</button>' if script else "",
        "body": body,
        "data": _held("data", "application/json", data_text(data)) if data is not None else "",
        "charts": _held("charts", "text/plain", library.packed) if library else "",
        "scripts": "\n".join(f"<script>{each}</script>" for each in scripts),
    }
    return filled(resource("imgzoo.page", "page.html"), parts)


def text(value: object) -> str:
    """A value as text of a page: markup, control and direction characters and bytes that are no UTF-8 are escaped."""
    return escape(escaped(value), quote=True)


def data_text(value: Any) -> str:
    """A value as JSON that nothing in it can end: `<` is written as an escape."""
    return json_text(value, None).replace("<", "\\u003c")


def filled(template: str, parts: Mapping[str, str]) -> str:
    """The template with each `{{name}}` replaced; what is put in is not looked at."""
    before, *others = template.split("{{")
    return before + "".join(parts[other.partition("}}")[0]] + other.partition("}}")[2] for other in others)


def resource(package: str, name: str) -> str:
    """A text file of a package."""
    return files(package).joinpath(name).read_text(encoding="utf-8")


class Library:
    """The text of the chart library, packed for a page (gzip, base64), and what allows it to run there."""

    def __init__(self, source: str) -> None:
        self.packed = base64.b64encode(gzip.compress(source.encode(), 6, mtime=0)).decode()
        self.allowed = _allowed(source)


@functools.cache
def packed_library() -> Library | None:
    """The chart library, or None where it is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        return None
    return Library(get_plotlyjs())


def _allowed(script: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _held(name: str, kind: str, content: str) -> str:
    return f'<script id="{name}" type="{kind}">{content}</script>'

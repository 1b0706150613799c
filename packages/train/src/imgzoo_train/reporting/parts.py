"""Pieces that the pages of a run and of a comparison share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from imgzoo.page import EXTRA, packed_library, page, resource, text

from . import drawing
from .figures import Figure

HINT = f"Charts are pictures here: pip install '{EXTRA}', then imgzoo report RUN, for charts to read, zoom and smooth."


@dataclass
class Sections:
    """Sections of a page in their order, and the figures that its script draws."""

    parts: list[tuple[str, str]] = field(default_factory=list)
    figures: list[dict[str, Any]] = field(default_factory=list)

    def add(self, title: str, *content: str) -> None:
        """A section of markup; one without content is left out."""
        if whole := "".join(content):
            self.parts.append((title, whole))

    def figure(self, figure: Figure) -> str:
        """The frame of a figure, with its still picture until the script draws it."""
        self.figures.append(figure.to_dict())
        return (
            f'<figure class="figure"><h3>{text(figure.title)}</h3>'
            f'<div data-figure="{len(self.figures) - 1}">{drawing.svg(figure)}</div>{drawing.legend(figure)}</figure>'
        )

    def pairs(self, figures: Iterable[Figure]) -> str:
        """Figures side by side; nothing without any."""
        frames = "".join(map(self.figure, figures))
        return f'<div class="pair">{frames}</div>' if frames else ""

    def page(self, title: str, kind: str, line: str, head: str) -> str:
        """The whole page: `head` above the sections, and links to them."""
        links = "".join(f'<a href="#{_anchor(name)}">{text(name)}</a>' for name, _ in self.parts)
        body = "".join(
            f'<section id="{_anchor(name)}"><h2>{text(name)}</h2>{part}</section>' for name, part in self.parts
        )
        hint = "" if packed_library() else f'<p class="note">{text(HINT)}</p>'
        return page(
            title, kind, line,
            f'<nav aria-label="Sections">{links}</nav><main><section>{head}{hint}</section>{body}</main>',
            script=resource("imgzoo_train.reporting", "report.js"), data={"figures": self.figures}, charts=True,
        )  # fmt: skip


def _anchor(name: str) -> str:
    return "part-" + name.lower().replace(" ", "-")


def note(words: str) -> str:
    return f'<p class="note">{text(words)}</p>'


def table(head: Sequence[str], rows: Iterable[Sequence[Any]], words: Sequence[int] = (0,)) -> str:
    """An HTML table, empty without rows; columns of `words` stand left and may break. Every cell is escaped.

    A float between 0 and 1 in a list of one is a bar of that length, a negative one a bar of losses.
    """

    def cell(place: int, value: Any) -> str:
        if isinstance(value, list):
            less = ' class="less"' if value[0] < 0 else ""
            return f'<td class="bar"><span{less} style="width:{100 * min(1, abs(value[0])):.1f}%"></span></td>'
        mark = ' class="word text"' if place in words else ""
        return f"<td{mark}>{text(value)}</td>"

    body = "".join("<tr>" + "".join(cell(*each) for each in enumerate(row)) + "</tr>" for row in rows)
    if not body:
        return ""
    top = "".join(f"<th{' class=word' if place in words else ''}>{text(each)}</th>" for place, each in enumerate(head))
    named = f"Table of {', '.join(filter(None, head))}" if any(head) else "Table"
    frame = f'class="scroll" tabindex="0" role="region" aria-label="{text(named)}"'
    return f"<div {frame}><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def tiles(rows: Iterable[tuple[str, str, str]]) -> str:
    """Large figures: what, the figure, and a few words below."""
    cells = "".join(
        f"<div><dt>{text(what)}</dt><dd>{text(value)}<small>{text(below)}</small></dd></div>"
        for what, value, below in rows
    )
    return f'<dl class="tiles">{cells}</dl>'


def score(metric: str, value: Any) -> str:
    """A score with as many digits as one reads; percentages with their sign."""
    from .figures import AVERAGE, PLAIN

    if not isinstance(value, (int, float)) or value != value:
        return "not a number"
    base = AVERAGE.sub("", metric)
    if base in ("n", "left_out", "nonfinite"):
        return f"{int(value):,}"
    return f"{value:.4g}" if base in PLAIN else f"{value:.2f} %"

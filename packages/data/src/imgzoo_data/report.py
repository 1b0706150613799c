"""The data doctor's findings as one HTML page: offline, nothing executable, every name escaped."""

from __future__ import annotations

from typing import Any

from imgzoo.page import page, text
from imgzoo.text import counted

from .examine import KINDS, Health
from .pictures import data_uri, thumbnail
from .sources.base import Source

_SHOWN = 24


def write_report(source: Source, health: Health) -> str:
    """The page as text."""
    verdict = "no errors" if not health.errors else counted(health.errors, "error")
    line = f"{counted(health.count, 'sample')}, {counted(len(health.classes), 'class')}: {verdict}"
    oriented = f"<p>{counted(health.oriented, 'image')} with an EXIF rotation.</p>" if health.oriented else ""
    sizes = _table(["", "least", "5 %", "median", "95 %", "greatest"], [[n, *v] for n, v in health.sides.items()])
    kinds = _table(["format", "images"], health.formats.items()) + _table(["channels", "images"], health.modes.items())
    parts = [
        f"<section><h2>Findings</h2>{_findings_table(health)}</section>",
        f'<section><h2>Images</h2><div class="pair"><div>{sizes}{oriented}</div><div>{kinds}</div></div></section>',
        f"<section><h2>Classes</h2>{_class_table(health)}</section>",
        *(_sheet(source, health, kind) for kind in health.counts()),
    ]
    return page(f"imgzoo data: {health.name}", "data", f"{health.name} · {line}", f"<main>{''.join(parts)}</main>")


def _findings_table(health: Health) -> str:
    rows = []
    for kind, count in health.counts().items():
        serious, meaning = KINDS[kind]
        mark = ' class="bad"' if serious else ""
        rows.append(f"<tr><td{mark}>{kind}</td><td>{count}</td><td class='word'>{meaning}</td></tr>")
    if not rows:
        return "<p>Nothing to report.</p>"
    return f"<table><tr><th>finding</th><th>samples</th><th></th></tr>{''.join(rows)}</table>"


def _table(head: list[str], rows: Any) -> str:
    body = "".join("<tr>" + "".join(f"<td>{text(value)}</td>" for value in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{text(h)}</th>' for h in head)}</tr>{body}</table>" if body else ""


def _class_table(health: Health) -> str:
    most = max(health.classes.values(), default=1) or 1
    rows = []
    for name, count in health.classes.items():
        bar = f'<span style="width:{100 * count / most:.1f}%"></span>'
        rows.append(f'<tr><td class="text">{text(name)}</td><td>{count}</td><td class="bar">{bar}</td></tr>')
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>'


def _sheet(source: Source, health: Health, kind: str) -> str:
    found = [f for f in health.findings if f.kind == kind]
    figures = []
    for finding in found[:_SHOWN]:
        picture = thumbnail(source, finding.index)
        shown = f'<img alt="" src="{data_uri(picture)}">' if picture else '<div class="none"></div>'
        caption = f"<b>{text(finding.key)}</b><br>{text(finding.detail)}"
        figures.append(f"<figure>{shown}<figcaption>{caption}</figcaption></figure>")
    more = f"<p>and {len(found) - _SHOWN} more</p>" if len(found) > _SHOWN else ""
    return f'<section><h2>{kind}: {len(found)}</h2><div class="gallery">{"".join(figures)}</div>{more}</section>'

"""The data doctor's findings as one HTML page: offline, nothing executable, every name escaped."""

from __future__ import annotations

import base64
import html
import io
from typing import Any

from PIL import Image

from imgzoo.errors import DataError
from imgzoo.text import counted, escaped

from .decode import decode_image
from .examine import KINDS, Health
from .sources.base import Source
from .transforms.pipeline import as_array

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_SHOWN = 24
_SIDE = 112
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse;margin:.5rem 0}td,th{padding:.15rem .7rem;text-align:left;border-bottom:1px solid #ddd}
td.n{text-align:right}.bad{color:#a00}.bar{background:#69c;height:.7rem;display:inline-block}
.sheet{display:flex;flex-wrap:wrap;gap:.8rem}figure{margin:0;width:8.5rem;font-size:12px;overflow-wrap:anywhere}
img,.none{width:112px;height:112px;object-fit:contain;background:#eee}"""


def write_report(source: Source, health: Health) -> str:
    """The page as text."""
    verdict = "no errors" if not health.errors else counted(health.errors, "error")
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>",
        f"<meta http-equiv='Content-Security-Policy' content=\"{_POLICY}\">",
        f"<title>{_text(health.name)}</title><style>{_STYLE}</style></head><body>",
        f"<h1>{_text(health.name)}</h1><p>{counted(health.count, 'sample')}, "
        f"{counted(len(health.classes), 'class')}: {verdict}.</p>",
        _findings_table(health),
        "<h2>Sizes</h2>",
        _table(["", "least", "5 %", "median", "95 %", "greatest"], [[n, *v] for n, v in health.sides.items()]),
        _table(["format", "images"], health.formats.items()),
        _table(["channels", "images"], health.modes.items()),
        f"<p>{health.oriented} images carry an EXIF rotation.</p>" if health.oriented else "",
        "<h2>Classes</h2>",
        _class_table(health),
        *(_sheet(source, health, kind) for kind in health.counts()),
        "</body></html>",
    ]
    return "\n".join(part for part in parts if part)


def _findings_table(health: Health) -> str:
    rows = []
    for kind, count in health.counts().items():
        serious, meaning = KINDS[kind]
        mark = " class='bad'" if serious else ""
        rows.append(f"<tr><td{mark}>{kind}</td><td class='n'>{count}</td><td>{meaning}</td></tr>")
    if not rows:
        return "<p>Nothing to report.</p>"
    return f"<table><tr><th>finding</th><th>samples</th><th></th></tr>{''.join(rows)}</table>"


def _table(head: list[str], rows: Any) -> str:
    body = "".join("<tr>" + "".join(_cell(value) for value in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{_text(h)}</th>' for h in head)}</tr>{body}</table>" if body else ""


def _class_table(health: Health) -> str:
    most = max(health.classes.values(), default=1) or 1
    rows = []
    for name, count in health.classes.items():
        bar = f"<span class='bar' style='width:{12 * count / most:.2f}rem'></span>"
        rows.append(f"<tr><td>{_text(name)}</td><td class='n'>{count}</td><td>{bar}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def _sheet(source: Source, health: Health, kind: str) -> str:
    found = [f for f in health.findings if f.kind == kind]
    figures = []
    for finding in found[:_SHOWN]:
        picture = thumbnail(source, finding.index)
        shown = f"<img alt='' src='data:image/jpeg;base64,{picture}'>" if picture else "<div class='none'></div>"
        caption = f"<b>{_text(finding.key)}</b><br>{_text(finding.detail)}"
        figures.append(f"<figure>{shown}<figcaption>{caption}</figcaption></figure>")
    more = f"<p>and {len(found) - _SHOWN} more</p>" if len(found) > _SHOWN else ""
    return f"<h2>{kind}: {len(found)}</h2><div class='sheet'>{''.join(figures)}</div>{more}"


def thumbnail(source: Source, index: int) -> str:
    """A small JPEG in base64; empty where the sample cannot be decoded."""
    try:
        data = source[index].data
        raw = isinstance(data, bytes | bytearray)
        array = decode_image(data, 3, backend="fast", shrink=1) if raw else as_array(data, 3)
    except (DataError, OSError):
        return ""
    image = Image.fromarray(array.copy())
    image.thumbnail((_SIDE, _SIDE))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=80)
    return base64.b64encode(file.getvalue()).decode()


def _cell(value: Any) -> str:
    number = isinstance(value, int | float)
    return f"<td{' class=n' if number else ''}>{_text(value)}</td>"


def _text(value: Any) -> str:
    """Escaped for HTML; control and direction characters, and bytes that are no UTF-8, as escapes."""
    return html.escape(escaped(value), quote=True)

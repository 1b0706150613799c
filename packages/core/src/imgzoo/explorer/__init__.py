"""`imgzoo explore`: one page with every name and weight of the installed plugins, that needs no network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

from imgzoo.errors import UsageError
from imgzoo.query import COLUMNS, COSTS, SCORES, Query, Row, search, sort_rows
from imgzoo.text import json_text

SHOWN = ("plugin", "family", "license", "size", "params", "gmacs", "macts", "top1", *SCORES[1:])
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:"


def all_rows() -> list[Row]:
    """Every published weight, and every architecture that has none, in the order of names."""
    weights, bare = (search(Query(pretrained=pretrained, columns=COSTS)) for pretrained in (True, False))
    bare = [row for row in bare if not any(each.published for each in row.spec.weights)]
    return sort_rows(weights + bare, "name")


def table(rows: Iterable[Row], measured: Mapping[str, float] | None = None) -> dict[str, Any]:
    """The rows as columns: a list of `name`, and of each of `SHOWN`, `ms` and `capabilities`; unknown values are null.

    `measured` is milliseconds by name, of an architecture or of one of its weights.
    """
    times = measured or {}
    kept = list(rows)
    columns: dict[str, Any] = {name: [COLUMNS[name](row) for row in kept] for name in SHOWN}
    bare = [row.name.removesuffix(f".{row.weights.tag}") if row.weights else row.name for row in kept]
    columns["name"] = [row.name for row in kept]
    columns["ms"] = [times.get(row.name, times.get(name)) for row, name in zip(kept, bare)]
    columns["capabilities"] = [sorted(row.spec.capabilities) for row in kept]
    return columns


def read_measured(text: str, where: str) -> dict[str, float]:
    """Milliseconds by name out of what `imgzoo benchmark --json` or `--output FILE.json` wrote.

    Raises `UsageError` for anything else.
    """
    try:
        rows = json.loads(text)
        rows = rows if isinstance(rows, list) else [rows]
        found = {str(row["model"]): float(row["ms_p50"]) for row in rows if "error" not in row}
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{where} is nothing that `imgzoo benchmark --json` writes for the mode inference") from error
    return found


def charts() -> str:
    """Plotly's own text, which the page carries; `UsageError` where it is not installed."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise UsageError("the page carries a chart library: pip install 'imgzoo-core[explore]'") from error
    return get_plotlyjs()


def page(columns: Mapping[str, Any], version: str) -> str:
    """The whole page: about 5 MB, most of it the chart library."""
    here = files("imgzoo.explorer")
    parts = {
        "policy": POLICY,
        "style": here.joinpath("page.css").read_text(encoding="utf-8"),
        "charts": charts(),
        "data": json_text({"columns": dict(columns), "version": version}, None).replace("</", "<\\/"),
        "app": here.joinpath("page.js").read_text(encoding="utf-8"),
    }
    text = here.joinpath("page.html").read_text(encoding="utf-8")
    before, *others = text.split("{{")
    return before + "".join(parts[other.partition("}}")[0]] + other.partition("}}")[2] for other in others)

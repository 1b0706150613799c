"""`imgzoo explore`: one page with every name and weight of the installed plugins, that needs no network."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from imgzoo import page as shell
from imgzoo.errors import UsageError
from imgzoo.page import EXTRA, packed_library, resource
from imgzoo.query import COLUMNS, COSTS, SCORES, Query, Row, search, sort_rows

SHOWN = ("plugin", "family", "license", "size", "params", "gmacs", "macts", "top1", *SCORES[1:])


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


def page(columns: Mapping[str, Any], version: str) -> str:
    """The whole page: about 2 MB, most of it the chart library. `UsageError` where that is not installed."""
    if packed_library() is None:
        raise UsageError(f"the page carries a chart library: pip install '{EXTRA}'")
    body, script = (resource("imgzoo.explorer", name) for name in ("body.html", "explorer.js"))
    data = {"columns": dict(columns), "version": version}
    return shell.page("imgzoo models", "models", "", body, script=script, data=data, charts=True)

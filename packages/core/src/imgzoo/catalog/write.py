"""The canonical text of catalog files. No torch."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .cells import DEFAULTS, MODEL_KEYS, NORMALIZE, SIZES, Cells, Row, expanded

FIELD: Cells = {key: value for key, value in DEFAULTS.items() if key not in ("arch", "plugin")}
STANDARD = {**FIELD, "hf_hub_id": None, "normalize": "imagenet", "input_size": FIELD["input_size"][1]}
"""What a cell means that nobody writes; the hub id is then derived from the name."""
WRITTEN = (*(key for key in FIELD if key not in ("mean", "std")), "normalize")


def format_catalog(data: Mapping[str, Any]) -> str:
    """The canonical text of a family: fixed order of keys, one row a line, no cell that equals its default."""
    paper = data.get("paper", "")
    capabilities = sorted(data.get("capabilities", ()))
    defaults = tidy_cells(data.get("defaults", {}), {"paper": None})  # even "" would hide the papers of the models
    head = {"family": data["family"], "target": data.get("target"), "paper": paper, "capabilities": capabilities}
    sections = [_inline({key: value for key, value in head.items() if value})[1:-1]]
    if defaults:
        sections.append(f' "defaults": {_inline(defaults)}')
    if data.get("spelling"):
        rows = [f"  {_inline(word)}: {_inline(ours)}" for word, ours in sorted(data["spelling"].items())]
        sections.append(' "spelling": {\n' + ",\n".join(rows) + "}")
    if data.get("field"):
        sections.append(f' "field": {_inline(sorted(data["field"]))}')
    if data.get("aliases"):
        rows = [f"  {_inline(old)}: {_inline(new)}" for old, new in sorted(data["aliases"].items())]
        sections.append(' "aliases": {\n' + ",\n".join(rows) + "}")

    inherited = {"target": data.get("target", ""), "paper": paper, "capabilities": capabilities}
    rows = {name: row for name, row in expanded(data["models"])}
    models = [f"  {_inline(name)}: {_model_text(name, row, inherited, defaults)}" for name, row in likened(rows)]
    sections.append(' "models": {\n' + ",\n".join(models) + "}")
    return "{" + ",\n".join(sections) + "}\n"


def format_results(results: Mapping[str, Any]) -> str:
    """The canonical text of published results: a line for each model, then one for each of its weights."""
    models = []
    for name, row in results.items():
        start = _inline({key: value for key, value in row.items() if key != "weights"})[:-1]
        lines = [f"   {_inline(tag)}: {_inline(scores)}" for tag, scores in row.get("weights", {}).items()]
        weights = ', "weights": {\n' + ",\n".join(lines) + "}" if lines else ""
        models.append(f"  {_inline(name)}: {start}{weights}}}")
    return "{\n" + ",\n".join(models) + "}\n"


def likened(rows: Mapping[str, Row]) -> Iterator[tuple[str, Row]]:
    """Each row as what it adds to an earlier row that stands in full, where that saves 40 characters."""
    full: dict[str, dict[str, str]] = {}
    for name, row in rows.items():
        own = {key: _inline(value) for key, value in row.items() if key not in MODEL_KEYS}
        best, cost = "", _length(own) - 40
        for other, theirs in full.items():
            if theirs.keys() <= own.keys():
                length = _length(own.items() - theirs.items()) + len(f'"like": "{other}", ')
                if length <= cost:  # of equals the nearest
                    best, cost = other, length
        if best:
            more = {key: row[key] for key in {**full[best], **own} if full[best].get(key) != own[key]}
            row = {"like": best, **more, **{key: row[key] for key in MODEL_KEYS if key in row}}
        else:
            full[name] = own
        yield name, row


def _length(options: Any) -> int:
    return sum(len(key) + len(text) + 6 for key, text in dict(options).items())


def _model_text(name: str, row: Mapping[str, Any], inherited: Cells, shared: Cells) -> str:
    """A model's row, then a line for each of its weights."""
    cells = {key: value for key, value in row.items() if key == "like" or key not in MODEL_KEYS}
    for key in ("target", "paper", "capabilities"):
        value = sorted(row[key]) if key == "capabilities" and key in row else row.get(key)
        if value is not None and value != inherited[key]:
            cells[key] = value
    if row.get("aliases"):
        cells["aliases"] = sorted(row["aliases"])
    base = {"paper": row.get("paper", inherited["paper"]), **shared}
    defaults = tidy_cells(row.get("defaults", {}), base)
    if defaults:
        cells["defaults"] = defaults

    weights = row.get("weights", {})
    if not weights:
        return _inline(cells)
    base |= defaults
    rows = []
    for tag, weight in weights.items():
        hub = "" if {**base, **weight}.get("url") else f"timm/{name}.{tag}"
        rows.append(f"   {_inline(tag)}: {_inline(tidy_cells(weight, {'hf_hub_id': hub, **base}))}")
    start = _inline(cells)[:-1] + (", " if cells else "")
    return start + '"weights": {\n' + ",\n".join(rows) + "}}"


def tidy_cells(cells: Mapping[str, Any], base: Mapping[str, Any]) -> Cells:
    """Weight cells in canonical order and shortest form, without those that equal `base` or the field's default."""
    full = dict(cells)
    if "mean" in full or "std" in full:
        pair = (tuple(full.pop("mean", FIELD["mean"])), tuple(full.pop("std", FIELD["std"])))
        full.setdefault("normalize", _normalize_name(pair))
    for key in SIZES:
        size = full.get(key)
        if size is not None and not isinstance(size, int):
            full[key] = size[1] if len(size) == 3 and size[0] == 3 and size[1] == size[2] else list(size)
    standard = {**STANDARD, **base}
    known = {key: full[key] for key in WRITTEN if key in full and full[key] != standard[key]}
    return known | {key: value for key, value in full.items() if key not in WRITTEN}


def _normalize_name(pair: tuple[tuple[float, ...], tuple[float, ...]]) -> Any:
    for name, known in NORMALIZE.items():
        if known == pair:
            return name
    return [list(pair[0]), list(pair[1])]


def _inline(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def hoisted(rows: Iterable[Mapping[str, Any]], base: Mapping[str, Any]) -> Cells:
    """Cells worth writing once: the values that most rows share and that differ from `base`."""
    rows = [tidy_cells(row, {}) for row in rows]
    standard = {**STANDARD, **base}
    shared: Cells = {}
    for key in WRITTEN:
        values = [row.get(key, standard.get(key)) for row in rows]
        common = max(values, key=values.count) if values else None
        if (
            key not in ("hf_hub_id", "url", "sha256")
            and common != standard[key]
            and values.count(common) * 2 > len(rows)
        ):
            shared[key] = common
    return shared

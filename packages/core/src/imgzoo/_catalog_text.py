"""Writing and checking catalog files: the canonical text of a family, and what is wrong with one. No torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from .catalog import FAMILY_KEYS, MODEL_KEYS, NORMALIZE, SIZES, expanded
from .licenses import is_known
from .specs import WeightSpec

Cells = dict[str, Any]

FIELD: Cells = {key: value for key, value in WeightSpec._field_defaults.items() if key not in ("arch", "plugin")}
STANDARD = {**FIELD, "hf_hub_id": None, "normalize": "imagenet", "input_size": FIELD["input_size"][1]}
"""What a cell means that nobody writes; the hub id is then derived from the name."""
WRITTEN = (*(key for key in FIELD if key not in ("mean", "std")), "normalize")
NAME = re.compile(r"[a-z0-9][a-z0-9_]*")
TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
HASH = re.compile(r"[0-9a-f]{64}")
INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "lanczos", "random")
CROP_MODES = ("center", "squash", "border")


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


def likened(rows: Mapping[str, Cells]) -> Iterator[tuple[str, Cells]]:
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
    rows = [
        f"   {_inline(tag)}: {_inline(tidy_cells(weight, {'hf_hub_id': f'timm/{name}.{tag}', **base}))}"
        for tag, weight in weights.items()
    ]
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


def check(data: Mapping[str, Any]) -> list[str]:
    """What is wrong with the shape of a family file, one sentence each; empty when nothing is."""
    if not isinstance(data.get("models"), dict) or not isinstance(data.get("family"), str):
        return ["a catalog needs a 'family' name and a 'models' table"]
    problems = [f"unknown key '{key}'" for key in data if key not in FAMILY_KEYS]
    problems += _check_cells("defaults", data.get("defaults", {}))
    try:
        list(expanded({name: row for name, row in data["models"].items() if isinstance(row, dict)}))
    except (TypeError, ValueError) as error:
        problems.append(str(error))
    for name, row in data["models"].items():
        if not isinstance(row, dict):
            problems.append(f"{name}: a row is a table, not {type(row).__name__}")
            continue
        problems += _check_model(name, row, data)
    problems += _check_spelling(data.get("spelling", {}))
    problems += _check_aliases(data)
    return problems


def _check_spelling(spelling: Any) -> Iterator[str]:
    if not isinstance(spelling, dict):
        yield f"spelling is a table, not {type(spelling).__name__}"
        return
    for word, entry in spelling.items():
        if isinstance(entry, dict):
            right = entry and all(isinstance(each, str if value == "*" else dict) for value, each in entry.items())
        else:
            right = isinstance(entry, str) or (
                isinstance(entry, list) and len(entry) == 1 and isinstance(entry[0], str)
            )
        if not right:
            yield f"spelling of {word}: {_inline(entry)} is no word, [word] or table of values"


def _check_model(name: str, row: Mapping[str, Any], data: Mapping[str, Any]) -> Iterator[str]:
    if not NAME.fullmatch(name):
        yield f"{name}: a model's name has small letters, digits and '_' only"
    target = row.get("target", data.get("target", ""))
    if not TARGET.fullmatch(target):
        yield f"{name}: target '{target}' is not 'package.module:attribute'"
    yield from _check_cells(f"{name} defaults", row.get("defaults", {}))
    shared = {**data.get("defaults", {}), **row.get("defaults", {})}
    published = []
    for tag, weight in row.get("weights", {}).items():
        if not NAME.fullmatch(tag):
            yield f"{name}.{tag}: a tag has small letters, digits and '_' only"
        yield from _check_cells(f"{name}.{tag}", weight)
        cells = {**shared, **weight}
        published.append(bool(cells.get("url") or cells.get("hf_hub_id", "timm/")))
        if published[-1] and not cells.get("license"):
            yield f"{name}.{tag}: published weights need a license"
    if any(published) and not published[0]:
        yield f"{name}: the first weights are the default, so they must be published"


def _check_cells(where: str, cells: Mapping[str, Any]) -> Iterator[str]:
    for key, value in cells.items():
        test = CELL_TESTS.get(key)
        if key not in WRITTEN and key not in ("mean", "std"):
            yield f"{where}: unknown cell '{key}'"
        elif test is not None and value != FIELD.get(key) and not test[0](value):
            yield f"{where}: {key} {_inline(value)} is not {test[1]}"


def _is_size(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return len(value) == 3 and all(isinstance(side, int) and side > 0 for side in value)
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_normalize(value: Any) -> bool:
    if isinstance(value, str):
        return value in NORMALIZE
    return len(value) == 2 and all(
        isinstance(row, list) and all(isinstance(x, float | int) for x in row) for row in value
    )


def _is_fraction(value: Any) -> bool:
    return isinstance(value, float | int) and not isinstance(value, bool) and 0 < value < 2


def _is_license(value: Any) -> bool:
    return isinstance(value, str) and is_known(value)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_url(value: Any) -> bool:
    return isinstance(value, str) and (not value or value.startswith("https://"))


CELL_TESTS: dict[str, tuple[Any, str]] = {
    **{size: (_is_size, "an integer or [channels, height, width]") for size in SIZES},
    "normalize": (_is_normalize, f"one of {', '.join(NORMALIZE)} or [[mean], [std]]"),
    "crop_pct": (_is_fraction, "between 0 and 2"),
    "test_crop_pct": (_is_fraction, "between 0 and 2"),
    "license": (_is_license, "an SPDX id or LicenseRef-..."),
    "num_classes": (_is_count, "a count"),
    "interpolation": (INTERPOLATIONS.__contains__, f"one of {', '.join(INTERPOLATIONS)}"),
    "crop_mode": (CROP_MODES.__contains__, f"one of {', '.join(CROP_MODES)}"),
    "fixed_input_size": ((True, False).__contains__, "true or false"),
    "sha256": (lambda value: not value or bool(HASH.fullmatch(value)), "64 hexadecimal digits"),
    "url": (_is_url, "an https:// address"),
}


def _check_aliases(data: Mapping[str, Any]) -> Iterator[str]:
    models = data["models"]
    pairs: list[tuple[str, str]] = list(data.get("aliases", {}).items())
    pairs += [(old, name) for name, row in models.items() if isinstance(row, dict) for old in row.get("aliases", ())]
    for old, new in pairs:
        arch, _, tag = new.partition(".")
        if old in models:
            yield f"alias {old}: there is a model of that name"
        if arch not in models:
            yield f"alias {old}: there is no model '{arch}'"
        elif tag and tag not in models[arch].get("weights", {}):
            yield f"alias {old}: {arch} has no weights '{tag}'"


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

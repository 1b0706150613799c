"""What is wrong with a catalog file, in sentences. No torch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from imgzoo.licenses import is_known

from .cells import DEFAULTS, FAMILY_KEYS, NORMALIZE, SIZES, expanded

NAME = re.compile(r"[a-z0-9][a-z0-9_]*")
TARGET = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*(\.[A-Za-z_]\w*)*")
HASH = re.compile(r"[0-9a-f]{64}")
INTERPOLATIONS = ("bicubic", "bilinear", "nearest", "lanczos", "random")
CROP_MODES = ("center", "squash", "border")


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
    words = data.get("field", [])
    if not (isinstance(words, list) and all(isinstance(word, str) for word in words)):
        problems.append(f"field is a list of words, not {json.dumps(words)}")
    problems += _check_aliases(data)
    return problems


def _check_spelling(spelling: Any) -> Iterator[str]:
    if not isinstance(spelling, dict):
        yield f"spelling is a table, not {type(spelling).__name__}"
        return
    for word, entry in spelling.items():
        if isinstance(entry, dict):
            words = isinstance(whole := entry.get("*"), str) and whole.endswith(".*")
            right = entry and all(isinstance(each, str if words or value == "*" else dict)
                                  for value, each in entry.items())  # fmt: skip
        else:
            right = isinstance(entry, str) or (
                isinstance(entry, list) and len(entry) == 1 and isinstance(entry[0], str)
            )
        if not right:
            yield f"spelling of {word}: {json.dumps(entry)} is no word, [word] or table of values"


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
        if key not in DEFAULTS.keys() - {"arch", "plugin"} | {"normalize"}:
            yield f"{where}: unknown cell '{key}'"
        elif test is not None and value != DEFAULTS.get(key) and not test[0](value):
            yield f"{where}: {key} {json.dumps(value)} is not {test[1]}"


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

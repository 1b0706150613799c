"""A page for each family: papers, variants, weights, what they score and cost, what the constructor can be told."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable, Iterator
from itertools import groupby
from typing import Any

from imgzoo.catalog import read_results
from imgzoo.cli.info import constructor_rows
from imgzoo.query import COLUMNS, Row
from imgzoo.registry import registry
from imgzoo.specs import ModelSpec

from .markdown import code, first_paragraph, plain, table

SCORES = ("top1", "top5", "real", "v2", "a", "r", "sketch")
SHOWN = 90
"""Characters of a variant's options in the table; `imgzoo info NAME` has all of them."""
INTRO = """# Models

{families} families, {names:,} names, {weights} published weights. A page each has the variants, their costs and
published results, the licenses of the weights, and what the constructor can be told ([lines and tokens](../families.md)
of each file). To search all of them:

```console
$ imgzoo list --sort -top1 --max-gmacs 2 --license permissive --pareto
```
"""


def pages() -> dict[str, str]:
    """The index and a page for each family of imgzoo's own packages."""
    specs = [spec for spec in registry("models").specs() if spec.plugin.startswith("archs-")]
    specs.sort(key=lambda spec: (spec.family, spec.name))
    families = {family: list(group) for family, group in groupby(specs, key=lambda spec: spec.family)}
    written = {f"models/{family}.md": page(family, rows) for family, rows in families.items()}
    return {"models/index.md": index(families)} | written


def index(families: dict[str, list[ModelSpec]]) -> str:
    rows = [
        (f"[{family}]({family}.md)", plain(about(specs[0])), len(specs),
         sum(each.published for spec in specs for each in spec.weights),
         span(COLUMNS["params"](row) for row in known(specs)))
        for family, specs in families.items()
    ]  # fmt: skip
    names = sum(map(len, families.values()))
    intro = INTRO.format(families=len(families), names=names, weights=f"{sum(row[3] for row in rows):,}")
    return f"{intro}\n{table(('family', 'about', 'names', 'weights', 'million parameters'), rows)}\n"


def page(family: str, specs: list[ModelSpec]) -> str:
    targets = list(dict.fromkeys(spec.target for spec in specs))
    weights = [each for spec in specs for each in spec.weights if each.published]
    papers = [paper for spec in specs for paper in (spec.paper, *(each.paper for each in spec.weights)) if paper]
    papers += re.findall(r"arXiv:(\d{4}\.\d{4,5})", about(specs[0]))
    able = sorted(set.intersection(*(set(spec.capabilities) for spec in specs)))
    facts = [
        ("package", code(f"imgzoo-{specs[0].plugin}")),
        ("papers", ", ".join(f"[{paper}]({link(paper)})" for paper in dict.fromkeys(papers))),
        ("licenses of the weights", ", ".join(dict.fromkeys(each.license for each in weights))),
        ("every variant can", ", ".join(map(code, able))),
    ]
    parts = [f"# {family}", plain(about(specs[0])), table(("", ""), [row for row in facts if row[1]])]
    parts += [
        "## Use",
        f'```python\nimport imgzoo\n\nmodel = imgzoo.create_model("{smallest(specs)}", num_classes=10)\n```',
    ]
    if weights:
        best = next(spec for spec in specs if any(each.published for each in spec.weights))
        parts.append(f"`pretrained=True` loads the default weights, `imgzoo info {best.name}` lists them all.")
    parts += ["## Variants", table(VARIANTS, map(variant, known(specs)))]
    if weights:
        parts += ["## Weights", "Published figures, in percent; the licenses are those of the weights' authors.",
                  table(WEIGHTS, scores(specs))]  # fmt: skip
    for target in targets:
        sample = next(spec for spec in specs if spec.target == target)
        name = target.partition(":")[2]
        told = f"Options of `{name}`" if len(targets) > 1 else "Options"
        parts += [f"## {told}", f"With the values of `{sample.name}`; [API](../api/{sample.plugin}.md) has the class."]
        parts.append(table(OPTIONS, map(option, constructor_rows(sample.name))))
    return "\n\n".join(parts) + "\n"


VARIANTS = ("name", "million parameters", "GMACs", "at", "weights", "its row of the catalog")
WEIGHTS = ("weights", "size", "classes", "license", *SCORES)
OPTIONS = ("option", "value", "what it does", "in the field")


def known(specs: Iterable[ModelSpec]) -> Iterator[Row]:
    """A row of each architecture with what is published of it."""
    for spec in specs:
        yield Row(spec.name, spec, None, results(spec))


def results(spec: ModelSpec) -> dict[str, Any]:
    return read_results(spec.target.partition(".")[0], spec.family).get(spec.name, {})


def variant(row: Row) -> tuple[Any, ...]:
    options = ", ".join(f"{key}={value}" for key, value in row.spec.kwargs.items())
    short = options if len(options) <= SHOWN else options[:SHOWN].rpartition(",")[0] + ", ..."
    count = sum(each.published for each in row.spec.weights)
    gmacs, size = COLUMNS["gmacs"](row), COLUMNS["size"](row)
    return code(row.name), millions(COLUMNS["params"](row)), gmacs, size if gmacs else None, count, code(short)


def scores(specs: Iterable[ModelSpec]) -> Iterator[tuple[Any, ...]]:
    for spec in specs:
        for each in spec.weights:
            if each.published:
                row = Row(f"{spec.name}.{each.tag}", spec, each, results(spec))
                measured = ("" if (score := COLUMNS[key](row)) is None else f"{score:.2f}" for key in SCORES)
                yield code(row.name), COLUMNS["size"](row), each.num_classes or "-", each.license, *measured


def option(row: dict[str, Any]) -> tuple[str, str, str, str]:
    value = "none" if row["value"] is None else f'"{row["value"]}"' if isinstance(row["value"], str) else row["value"]
    text = str(value)
    short = text if len(text) <= SHOWN else text[:SHOWN] + "..."
    return code(row["option"]), code(short), plain(row["about"]), ", ".join(map(code, row["field"]))


def about(spec: ModelSpec) -> str:
    """The first line of the module of a family's network."""
    return first_paragraph(inspect.getdoc(importlib.import_module(spec.target.partition(":")[0])))


def smallest(specs: list[ModelSpec]) -> str:
    """A name to try: the test variant where there is one, else the one with the fewest parameters."""
    counted = [(COLUMNS["params"](row) or float("inf"), row.name) for row in known(specs)]
    return min(counted)[1]


def millions(count: float | None) -> str:
    return "" if count is None else f"{count / 1e6:,.2f}"


def span(counts: Iterable[float | None]) -> str:
    found = [count for count in counts if count is not None]
    return f"{millions(min(found))} to {millions(max(found))}" if found else ""


def link(paper: str) -> str:
    return f"https://arxiv.org/abs/{paper}" if re.fullmatch(r"\d{4}\.\d{4,5}(v\d+)?", paper) else paper

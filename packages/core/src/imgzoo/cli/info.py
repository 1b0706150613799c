"""`imgzoo info`: all that is known of a model or another component."""

from __future__ import annotations

from typing import Any

import click

from imgzoo.errors import PluginLoadError, UsageError

from .listing import KINDS
from .output import print_json, print_table

LONGEST = 40
"""Characters of an option's value in a table; JSON has all of it."""


def _complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    from imgzoo.registry import registry

    kind = KINDS[ctx.params.get("kind") or "model"]
    return [name for name in registry(kind).names() if name.startswith(incomplete)]


@click.command("info")
@click.argument("name", shell_complete=_complete)
@click.option("--kind", type=click.Choice(list(KINDS)), default="model", show_default=True, help="What NAME is.")
@click.option("--options", "list_options", is_flag=True, help="Print what a model's constructor can be told instead.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(name: str, kind: str, list_options: bool, as_json: bool) -> None:
    """Show what is known of NAME: who brings it, its options, costs, weights and their licenses."""
    if list_options:
        if kind != "model":
            raise UsageError(f"--options is for models; without it every option of the {kind} is shown")
        options = constructor_rows(name)
        if as_json:
            print_json(options)
        else:
            print_table([(row["option"], _shown(row["value"]), _told(row)) for row in options])
        return
    facts = _model(name) if kind == "model" else _component(name, kind)
    if as_json:
        print_json(facts)
        return
    weights = facts.pop("weights", [])
    rows = [(key, _line(value)) for key, value in facts.items() if value not in ("", None, {}, [], ())]
    print_table(rows)
    if weights:
        print()
        columns = ("name", "size", "classes", "license", "top1", "top5")
        print_table([[row[column] for column in columns] for row in weights], columns)


def constructor_rows(name: str) -> list[dict[str, Any]]:
    """Every option of a model's constructor: its value in this row, the field's words for it, a line about it."""
    from imgzoo.models import resolve_model
    from imgzoo.options import lines_of, parameters_of
    from imgzoo.spelling import field_words

    spec, weights = resolve_model(name)
    build = spec.load()
    parameters, _ = parameters_of(build)
    words, lines = field_words(spec, parameters), lines_of(build)
    told: dict[str, Any] = {"num_classes": weights.num_classes, **weights.kwargs} if weights else {}
    told |= spec.kwargs
    return [
        {"option": option, "value": told.get(option, _default(each)), "field": words.get(option, []),
         "about": lines[option]} for option, each in parameters.items()
    ]  # fmt: skip


def _default(parameter: Any) -> Any:
    return None if parameter.default is parameter.empty else parameter.default


def _shown(value: Any) -> str:
    text = f'"{value}"' if isinstance(value, str) else _line("none" if value is None else value)
    return text if len(text) <= LONGEST else text[: LONGEST - 3] + "..."


def _told(row: dict[str, Any]) -> str:
    return row["about"] + (f" (in the field {', '.join(row['field'])})" if row["field"] else "")


def _line(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}={each}" for key, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _component(name: str, kind: str) -> dict[str, Any]:
    from imgzoo.registry import registry

    spec = registry(KINDS[kind]).resolve(name)
    return spec._asdict() | {"kwargs": dict(spec.kwargs), "traits": sorted(spec.traits), "options": _options(spec)}


def _options(spec: Any) -> list[str]:
    """What the component can be told: `name=default`, or `name`; nothing where it cannot be loaded."""
    import inspect

    try:
        parameters = inspect.signature(spec.load()).parameters.values()
    except (PluginLoadError, TypeError, ValueError):
        return []
    kept = [each for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)]
    return [each.name if each.default is each.empty else f"{each.name}={each.default!r}" for each in kept]


def _model(name: str) -> dict[str, Any]:
    from imgzoo.models import resolve_model
    from imgzoo.query import COLUMNS, Row
    from imgzoo.registry import registry

    spec, chosen = resolve_model(name)
    plugin = next(each for each in registry("models").plugins.plugins if each.name == spec.plugin)
    results = _results(plugin.package, spec.family, spec.name)
    rows = [Row(f"{spec.name}.{row.tag}", spec, row, results) for row in spec.weights if row.published]
    if "." in name and chosen is not None and chosen.published:
        rows = [row for row in rows if row.weights == chosen] or [Row(name, spec, chosen, results)]
    model = Row(spec.name, spec, None, results)
    details = ("plugin", "tag", "license", "classes", "size", "top1", "top5", "real", "v2", "a", "r", "sketch")
    return {
        "name": spec.name,
        "plugin": spec.plugin,
        "distribution": f"{plugin.dist} {plugin.version}".strip(),
        "family": spec.family,
        "paper": spec.paper,
        "target": spec.target,
        "options": dict(spec.kwargs),
        "capabilities": sorted(spec.capabilities),
        "deprecated names": list(spec.aliases),
        "params": COLUMNS["params"](model),
        "costs": [f"{size}px: {gmacs} GMACs, {macts}M activations" for size, gmacs, macts in results.get("cost", ())],
        "weights": [{"name": row.name} | _source(row) | {key: COLUMNS[key](row) for key in details} for row in rows],
    }


def _source(row: Any) -> dict[str, Any]:
    return {"hf_hub_id": row.weights.hf_hub_id, "url": row.weights.url, "origin_url": row.weights.origin_url}


def _results(package: str, family: str, name: str) -> dict[str, Any]:
    from imgzoo.catalog import read_results

    return read_results(package, family).get(name, {}) if family else {}

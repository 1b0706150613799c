"""`imgzoo list`: names of everything plugins bring; models can be filtered, sorted and compared."""

from __future__ import annotations

from typing import Any

import click

from imgzoo.errors import UsageError
from imgzoo.registry import KINDS as REGISTERED
from imgzoo.registry import registry

from .numbers import Number
from .output import complain, print_json, print_table, without_gc

KINDS = {kind.noun.replace(" ", "-"): plural for plural, kind in REGISTERED.items()}
COSTS = ("params", "gmacs", "macts", "size")


@click.command("list")
@click.argument("pattern", nargs=-1)
@click.option("--plugin", is_flag=False, flag_value="*", metavar="[NAME]",
              help="Show who brings each row; with a NAME keep only that plugin's.")  # fmt: skip
@click.option("--kind", type=click.Choice(list(KINDS)),
              help="What to list  [default: model; with --plugin NAME everything it brings]")  # fmt: skip
@click.option("--family", default="", metavar="GLOB", help="Keep this family.")
@click.option("--tag", default="", metavar="GLOB", help="Keep weights with this tag.")
@click.option("--license", default="", metavar="ID", help="Keep weights under this SPDX license, or 'permissive'.")
@click.option("--can", multiple=True, metavar="CAPABILITY", help="Keep what can do this, such as compile, export, fx, "
              "onnx, script, set_input_size; several: all of them.")  # fmt: skip
@click.option("--pretrained", is_flag=True, help="List published weights, as name.tag.")
@click.option("--min-params", type=Number(0), metavar="M", help="At least so many million parameters.")
@click.option("--max-params", type=Number(0), metavar="M", help="At most so many million parameters.")
@click.option("--min-gmacs", type=Number(0), metavar="G", help="At least so many billion multiply-adds.")
@click.option("--max-gmacs", type=Number(0), metavar="G", help="At most so many billion multiply-adds.")
@click.option("--min-top1", type=Number(0, 100), metavar="PERCENT", help="At least this published ImageNet-1k top-1.")
@click.option("--sort", default="", metavar="KEY", help="Order by a column, -KEY for descending: name, params, "
              "gmacs, macts, top1, top5, real, v2, size, license, family, plugin.")  # fmt: skip
@click.option("--pareto", is_flag=False, flag_value="gmacs", metavar="[COST]", default="",
              help="Keep weights that none beats in both COST (gmacs, params, macts, size) and top-1.")  # fmt: skip
@click.option("--exclude", multiple=True, metavar="GLOB", help="Leave these out.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON with every known column.")
def command(pattern: tuple[str, ...], plugin: str | None, kind: str | None, as_json: bool, **options: Any) -> None:
    """List models, or another --kind, that match any glob PATTERN.

    Rows are architectures; a filter on weights (--tag, --license, --pretrained, --min-top1, --pareto, a PATTERN with a
    dot) makes them published weights, as name.tag.
    """
    with without_gc():
        _list(pattern, plugin, kind, as_json, options)


def _list(pattern: tuple[str, ...], plugin: str | None, kind: str | None, as_json: bool, options: Any) -> None:
    if plugin not in (None, "*") or options["pareto"]:
        _check_optional_values(plugin, options["pareto"], pattern)
    only = "" if plugin in (None, "*") else plugin or ""
    given = [name for name, value in options.items() if value not in ("", None, False, ())]
    if kind not in (None, "model"):
        if given and given != ["exclude"]:
            raise UsageError(f"--{given[0].replace('_', '-')} is for models, not for --kind {kind}")
        rows = _components([kind], pattern, options["exclude"], only)
        _print_components(kind, rows, plugin is not None, as_json)
        return
    whole = only and kind is None and not set(given) - {"exclude"}  # everything that a plugin brings
    others: list[tuple[str, str, Any]] = []
    if whole:
        others = _components([each for each in KINDS if each != "model"], pattern, options["exclude"], only)
        others += _added_weights(pattern, options["exclude"], only)
    models = _models(pattern, only, plugin is not None, as_json, options)
    if as_json:
        print_json(models + [{"kind": kind} | row for kind, row in _described(others)])
    elif others:
        print_table([[name, kind, getattr(spec, "help", "")] for kind, name, spec in others], ["name", "kind", "help"])


def _check_optional_values(plugin: str | None, pareto: str, pattern: tuple[str, ...]) -> None:
    """An option with an optional value takes a pattern that follows it: say so."""
    known = plugin in (None, "*") or registry("models").plugins.named(plugin or "")
    swallowed = plugin if not known else (pareto if pareto and pareto not in COSTS else "")
    if swallowed:
        option, what = ("--plugin", "plugin") if not known else ("--pareto", "cost")
        hint = f": put the pattern first, imgzoo list '{swallowed}' {option}" if not pattern else ""
        raise UsageError(f"there is no {what} '{swallowed}'{hint}")


def _models(pattern: tuple[str, ...], only: str, show: bool, as_json: bool, options: dict[str, Any]) -> list[Any]:
    """Rows of models as they are in JSON, or printed as a table."""
    from imgzoo.query import COLUMNS, OF_WEIGHTS, Query, search

    million = {key: options[key] and options[key] * 1e6 for key in ("min_params", "max_params")}
    query = Query(patterns=pattern, plugin=only, **{**options, **million})
    if as_json:
        columns = [name for name in COLUMNS if query.of_weights or name not in OF_WEIGHTS]
    else:
        columns = [name for name in COLUMNS if name in query.reads or (name == "plugin" and show)]
        columns += ["license"] if query.license and "license" not in columns else []
    rows = search(query._replace(columns=tuple(columns)))
    shared = _ambiguous("model", [(row.name, row.spec) for row in rows])
    if as_json:
        return [
            {"name": row.name} | {name: COLUMNS[name](row) for name in columns} | _mark(row.name, shared)
            for row in rows
        ]
    table = [[row.name, *(_shown(name, COLUMNS[name](row)) for name in columns)] for row in rows]
    if table:
        print_table(table, ["name", *columns])
    _say_ambiguous(shared)
    return []


def _ambiguous(kind: str, listed: list[tuple[str, Any]]) -> list[str]:
    """Short names among those listed that several plugins bring and none of them owns."""
    table = registry(KINDS[kind])
    short = {spec.name for name, spec in listed if "/" in name}
    return sorted(name for name in short if table.owner(table.owners(name)) is None)


def _mark(name: str, shared: list[str]) -> dict[str, bool]:
    short = name.partition("/")[2].partition(".")[0]
    return {"ambiguous": True} if short in shared else {}


def _say_ambiguous(names: list[str]) -> None:
    if names:
        complain(f"several plugins bring {', '.join(names)}: say which with plugin/name, or set IMGZOO_PREFER")


def _shown(column: str, value: Any) -> Any:
    return f"{value / 1e6:.1f}M" if column == "params" and value is not None else value


def _components(
    kinds: list[str], patterns: tuple[str, ...], exclude: tuple[str, ...], only: str
) -> list[tuple[str, str, Any]]:
    """Kind, name and spec of what is no model: of one plugin, or of all."""
    from imgzoo.query import plugin_names

    plugins = plugin_names(only) if only else None
    return [
        (kind, name, spec)
        for kind in kinds
        for name, spec in registry(KINDS[kind]).listed().items()
        if (plugins is None or spec.plugin in plugins) and _chosen(name, patterns, exclude)
    ]


def _chosen(name: str, patterns: tuple[str, ...], exclude: tuple[str, ...]) -> bool:
    from fnmatch import fnmatchcase

    wanted = not patterns or any(fnmatchcase(name, each) for each in patterns)
    return wanted and not any(fnmatchcase(name, each) for each in exclude)


def _added_weights(patterns: tuple[str, ...], exclude: tuple[str, ...], only: str) -> list[tuple[str, str, Any]]:
    """What `_components` gives, of weights that a plugin adds to models, by the name to use for each."""
    from imgzoo.models import weights_name
    from imgzoo.query import plugin_names

    rows: list[tuple[str, str, Any]] = []
    plugins = plugin_names(only)
    for (plugin, arch, _), (spec, row) in registry("models").added.by_plugin.items():
        name = weights_name(arch if row in spec.weights else f"{plugin}/{arch}", row)
        if plugin in plugins and _chosen(name, patterns, exclude):
            rows.append(("weights", name, row))
    return rows


def _described(rows: list[tuple[str, str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    fields = ("plugin", "help", "paper", "target")
    return [(kind, {"name": name} | {key: getattr(spec, key, "") for key in fields}) for kind, name, spec in rows]


def _print_components(kind: str, rows: list[tuple[str, str, Any]], show: bool, as_json: bool) -> None:
    shared = _ambiguous(kind, [(name, spec) for _, name, spec in rows])
    if as_json:
        print_json([row | _mark(row["name"], shared) for _, row in _described(rows)])
    elif show:
        print_table([[name, spec.plugin, spec.help] for _, name, spec in rows], ["name", "plugin", "help"])
    else:
        print_table([[name, spec.help] for _, name, spec in rows], ["name", "help"])
    if not as_json:
        _say_ambiguous(shared)

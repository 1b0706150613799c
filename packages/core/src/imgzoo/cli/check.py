"""`imgzoo check`: run the conformance kit on a plugin, in a process of its own."""

from __future__ import annotations

from typing import Any

import click

from imgzoo.errors import UsageError

from .output import print_json, print_table, say

TIERS = ("static", "component", "model", "weights")


@click.command("check")
@click.argument("plugin")
@click.option("--tier", multiple=True, type=click.Choice(TIERS), default=TIERS[:-1], show_default=True,
              help="Which checks: static reads metadata and asks the doctor, component tries optimizers, sources, "
                   "commands, ..., model builds networks, weights downloads.")  # fmt: skip
@click.option("--sample", type=click.IntRange(min=1), help="Check so many models only, spread over the catalog.")
@click.option("--example", "examples", multiple=True, metavar="dataset:NAME=LOCATION",
              help="Where a data source finds a few images to be tried with.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--verbose", is_flag=True, help="Show checks that pass, too.")
@click.pass_context
def command(
    ctx: click.Context,
    plugin: str,
    tier: tuple[str, ...],
    sample: int | None,
    examples: tuple[str, ...],
    as_json: bool,
    verbose: bool,
) -> None:
    """Check that PLUGIN keeps its promises: names, metadata, components, models, capabilities."""
    from imgzoo.query import plugin_names

    names = sorted(plugin_names(plugin))
    places = dict(_example(text) for text in examples)
    from imgzoo.testing.process import check_in_process

    results: list[Any] = []
    for name in names:
        shown = None if as_json else _progress
        results += check_in_process(name, tiers=tier, sample=sample, examples=places, callback=shown)
        if not as_json:
            say(err=True)
    failed = [row for row in results if row.status == "failed"]
    if as_json:
        print_json([{key: getattr(row, key) for key in ("name", "subject", "status", "message")} for row in results])
    else:
        shown = results if verbose else [row for row in results if row.status not in ("passed", "skipped")]
        print_table([(row.status, row.subject, row.name, row.message) for row in shown])
        counts = {status: sum(row.status == status for row in results) for status in ("passed", "failed", "skipped")}
        say(f"{plugin}: " + ", ".join(f"{count} {status}" for status, count in counts.items() if count))
    ctx.exit(1 if failed else 0)


def _example(text: str) -> tuple[str, str]:
    name, equals, location = text.partition("=")
    if not equals or not name.startswith("dataset:"):
        raise UsageError(f"--example takes dataset:NAME=LOCATION, not '{text}'")
    return name, location


def _progress(result: Any) -> None:
    say({"passed": ".", "failed": "F", "skipped": "s"}.get(result.status, "?"), nl=False, err=True)

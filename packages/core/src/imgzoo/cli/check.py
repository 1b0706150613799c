"""`imgzoo check`: run the conformance kit on a plugin."""

from __future__ import annotations

from typing import Any

import click

from .output import print_json, print_table

TIERS = ("static", "model", "weights")


@click.command("check")
@click.argument("plugin")
@click.option("--tier", multiple=True, type=click.Choice(TIERS), default=TIERS[:2], show_default=True,
              help="Which checks: static reads metadata, model builds networks, weights downloads.")  # fmt: skip
@click.option("--sample", type=click.IntRange(min=1), help="Check so many models only, spread over the catalog.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--verbose", is_flag=True, help="Show checks that pass, too.")
@click.pass_context
def command(
    ctx: click.Context, plugin: str, tier: tuple[str, ...], sample: int | None, as_json: bool, verbose: bool
) -> None:
    """Check that PLUGIN keeps its promises: names, metadata, models, capabilities."""
    from imgzoo.query import plugin_names

    names = sorted(plugin_names(plugin))
    from imgzoo.testing import check_plugin

    results: list[Any] = []
    for name in names:
        results += check_plugin(name, tiers=tier, sample=sample, callback=None if as_json else _progress)
        if not as_json:
            click.echo(err=True)
    failed = [row for row in results if row.status == "failed"]
    if as_json:
        print_json([{key: getattr(row, key) for key in ("name", "subject", "status", "message")} for row in results])
    else:
        shown = results if verbose else [row for row in results if row.status not in ("passed", "skipped")]
        print_table([(row.status, row.subject, row.name, row.message) for row in shown])
        counts = {
            status: sum(row.status == status for row in results)
            for status in ("passed", "failed", "expected", "skipped")
        }
        click.echo(f"{plugin}: " + ", ".join(f"{count} {status}" for status, count in counts.items() if count))
    ctx.exit(1 if failed else 0)


def _progress(result: Any) -> None:
    click.echo(
        {"passed": ".", "failed": "F", "skipped": "s", "expected": "x"}.get(result.status, "?"), nl=False, err=True
    )

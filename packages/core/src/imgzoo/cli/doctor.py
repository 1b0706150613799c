"""`imgzoo doctor`: what is wrong with the installation, in one line each."""

from __future__ import annotations

import click

from imgzoo.errors import UsageError

from .output import print_json, print_table


@click.command("doctor")
@click.argument("names", nargs=-1, metavar="[NAME]...")
@click.option("--deep", is_flag=True, help="Import everything that plugins name (brings torch).")
@click.option("--strict", is_flag=True, help="Fail on warnings too.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.pass_context
def command(ctx: click.Context, names: tuple[str, ...], deep: bool, strict: bool, as_json: bool) -> None:
    """Look for trouble with plugins, their names, metadata and targets.

    NAME is a check or a plugin; without one everything is looked at. Exit code 1 when something is wrong.
    """
    from imgzoo.discovery.doctor import LEVELS, examine, known_names
    from imgzoo.discovery.manager import Manager, set_manager

    host = Manager(strict=False)  # it must run whatever the plugins do
    set_manager(host)
    found = examine(host, deep, names)
    unknown = set(names) - known_names(host)
    if unknown:
        raise UsageError(f"there is no check or plugin '{sorted(unknown)[0]}': {', '.join(sorted(known_names(host)))}")

    if as_json:
        print_json([row._asdict() for row in found])
    else:
        print_table([(row.level, row.check, row.subject, row.message) for row in found])
    worst = max((LEVELS.index(row.level) for row in found if row.level in LEVELS), default=0)
    ctx.exit(1 if worst >= LEVELS.index("warning" if strict else "error") else 0)

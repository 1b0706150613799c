"""`imgzoo list`."""

from __future__ import annotations

import click


@click.command("list")
@click.argument("pattern", nargs=-1)
def command(pattern: tuple[str, ...]) -> None:
    """List models that match any PATTERN."""
    from imgzoo.models import list_models

    for name in list_models(pattern):
        click.echo(name)

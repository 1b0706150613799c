"""`imgzoo plugins`."""

from __future__ import annotations

import click


@click.command("plugins")
def command() -> None:
    """Show installed plugins and their state."""
    from imgzoo.registry import plugins

    for plugin in plugins():
        click.echo(f"{plugin.name}  {plugin.dist} {plugin.version}  {plugin.state}  {plugin.reason}".rstrip())

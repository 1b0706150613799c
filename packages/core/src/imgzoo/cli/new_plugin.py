"""`imgzoo new-plugin`: start a third-party plugin."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("new-plugin")
@click.argument("name")
@click.option("--dir", "folder", type=click.Path(path_type=Path), default=".", help="Where to put it.")
def command(name: str, folder: Path) -> None:
    """Write the skeleton of a plugin NAME: package, one small network, its catalog, tests, README."""
    from imgzoo.scaffold import words, write_plugin

    root = write_plugin(name, folder)
    click.echo(f"{root} is a plugin with one network. Next:")
    click.echo(f"  pip install -e '{root}[test]'")
    click.echo(f"  imgzoo list --plugin {words(name)['plugin']}")
    click.echo(f"  pytest {root}")

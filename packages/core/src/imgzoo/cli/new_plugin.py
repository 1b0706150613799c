"""`imgzoo new-plugin`: start a third-party plugin."""

from __future__ import annotations

from pathlib import Path

import click

from .output import say


@click.command("new-plugin")
@click.argument("name")
@click.option("--dir", "folder", type=click.Path(path_type=Path), default=".", help="Where to put it.")
def command(name: str, folder: Path) -> None:
    """Write the skeleton of a plugin NAME: package, one small network, its catalog, tests, README."""
    from imgzoo.scaffold import words, write_plugin

    root = write_plugin(name, folder)
    say(f"{root} is a plugin with one network. Next:")
    say(f"  pip install -e '{root}[test]'")
    say(f"  imgzoo list --plugin {words(name)['plugin']}")
    say(f"  pytest {root}")

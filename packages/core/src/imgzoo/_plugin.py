"""What the core itself brings, through the same hooks as every plugin."""

from __future__ import annotations

from .plugin import CommandSpec, hookimpl

IMGZOO_API = (1, 0)

COMMANDS = (
    CommandSpec("list", "imgzoo.cli.listing:command", "List models, optimizers, losses and everything plugins bring."),
    CommandSpec("plugins", "imgzoo.cli.plugins:command", "Show installed plugins and their state."),
)


@hookimpl
def imgzoo_commands():
    return COMMANDS

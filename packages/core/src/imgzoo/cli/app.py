"""The lazy command group: help and completion come from specs, a command is imported when it is run."""

from __future__ import annotations

import os
import sys
import warnings
from typing import Any

import click


class LazyGroup(click.Group):
    """A click group whose rows are `CommandSpec`s."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        from imgzoo.registry import registry

        return registry("commands").names()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        from imgzoo.registry import registry

        commands = registry("commands")
        return commands.resolve(cmd_name).load() if cmd_name in commands else None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from imgzoo.registry import registry

        commands = registry("commands")
        with formatter.section("Commands"):
            formatter.write_dl([(name, spec.help) for name, spec in zip(commands.names(), commands.specs())])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        from imgzoo.registry import registry

        commands = registry("commands")
        return [
            CompletionItem(name, help=spec.help)
            for name, spec in zip(commands.names(), commands.specs())
            if name.startswith(incomplete)
        ]


@click.group(cls=LazyGroup)
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.option("--no-plugins", is_flag=True, help="Load imgzoo's own plugins only.")
def cli(debug: bool, no_plugins: bool) -> None:
    """Image models from plugins."""
    if no_plugins:
        os.environ["IMGZOO_NO_PLUGINS"] = "1"


def run() -> None:
    """Run the program; failures are one sentence on stderr."""
    from imgzoo.errors import ImgzooError

    def show(message: Any, *_: Any, **__: Any) -> None:
        print(f"imgzoo: {message}", file=sys.stderr)

    warnings.showwarning = show
    try:
        cli.main(prog_name="imgzoo")
    except ImgzooError as error:
        if "--debug" in sys.argv:
            raise
        print(f"imgzoo: {error}", file=sys.stderr)
        sys.exit(error.exit_code)

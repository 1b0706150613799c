"""The lazy command group: help and completion come from specs, a command is imported when it is run."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import Any, NoReturn

import click

from imgzoo.errors import ImgzooError, PluginError, PluginLoadError, UnknownNameError
from imgzoo.memory import is_short
from imgzoo.text import told

from .output import complain, show_warning


def _specs() -> dict[str, Any]:
    """Every command by name; the core's own when plugins may not be loaded because one is broken in strict mode."""
    from imgzoo.registry import registry

    try:
        return registry("commands").listed()
    except PluginError as error:
        complain(error)
        return _core()


def _core() -> dict[str, Any]:
    from imgzoo._plugin import COMMANDS

    return {spec.name: spec for spec in COMMANDS}


class LazyGroup(click.Group):
    """A click group whose commands are `CommandSpec`s; only the one that runs is imported."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_specs())

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        spec = _core().get(cmd_name)  # the core's commands work whatever the plugins do
        if spec is None:
            from imgzoo.registry import registry

            try:
                spec = registry("commands").resolve(cmd_name)
            except UnknownNameError as error:
                raise click.UsageError(str(error)) from error
        try:
            command = spec.load()
            if not isinstance(command, click.Command):
                raise PluginLoadError(f"plugin '{spec.plugin}': {spec.target} is no click command")
        except ImgzooError as error:
            return BrokenCommand(cmd_name, error)
        return _showing_defaults(command)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from imgzoo.text import safe

        with formatter.section("Commands"):
            formatter.write_dl([(name, safe(spec.help)) for name, spec in sorted(_specs().items())])

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        from click.shell_completion import CompletionItem

        from imgzoo.text import safe

        names = [(name, spec) for name, spec in sorted(_specs().items()) if name.startswith(incomplete)]
        items = [CompletionItem(name, help=safe(spec.help)) for name, spec in names]
        return items + click.Command.shell_complete(self, ctx, incomplete)


def _showing_defaults(command: click.Command) -> click.Command:
    """The command, whose help shows what each option is when it is not given; an empty text says nothing."""
    for part in command.commands.values() if isinstance(command, click.Group) else ():
        _showing_defaults(part)
    for parameter in command.params:
        if isinstance(parameter, click.Option) and parameter.show_default is None:
            parameter.show_default = parameter.default not in ("", None)
    return command


class BrokenCommand(click.Command):
    """Stands in for a command that cannot be imported: says why, whatever its arguments are."""

    def __init__(self, name: str, error: ImgzooError) -> None:
        super().__init__(name, help=f"Broken: {error}", add_help_option=False)
        self.error = error

    def make_context(self, *args: Any, **options: Any) -> NoReturn:
        raise self.error


def _set(variable: str) -> Any:
    """An option callback that sets an environment variable, before any command is looked up."""

    def callback(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        if value:
            os.environ[variable] = "1"

    return callback


def _version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from imgzoo import __version__

        click.echo(f"imgzoo {__version__}")
        ctx.exit()


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120, "show_default": True},
)
@click.option("--no-plugins", is_flag=True, is_eager=True, expose_value=False, callback=_set("IMGZOO_NO_PLUGINS"),
              help="Load imgzoo's own plugins only.")  # fmt: skip
@click.option("--debug", is_flag=True, is_eager=True, expose_value=False, callback=_set("IMGZOO_DEBUG"),
              help="Show the traceback of an error.")  # fmt: skip
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version,
              help="Show the version.")  # fmt: skip
def cli() -> None:
    """Image models from plugins: find, train, evaluate, export."""


def run(args: list[str] | None = None) -> NoReturn:
    """Run the program and exit: 0, 1 for a failure, 2 for what the user can mend; one sentence on stderr."""
    import warnings

    warnings.showwarning = show_warning
    atexit.register(gc.freeze)  # the process ends: to search a million objects of libraries for cycles takes long
    try:
        status = cli.main(args, prog_name="imgzoo", standalone_mode=False)
    except KeyboardInterrupt:
        sys.exit(130)
    except SystemExit:
        raise
    except BaseException as error:  # a command is a plugin's, too
        if os.environ.get("IMGZOO_DEBUG"):
            raise
        sys.exit(_fail(error))
    sys.exit(status if isinstance(status, int) else 0)


def _fail(error: BaseException) -> int:
    """Print the error as one sentence; returns the exit code."""
    match error:
        case click.exceptions.NoArgsIsHelpError():
            click.echo(error.format_message(), err=True)
            return 2
        case click.UsageError():
            command = error.ctx.command_path if error.ctx else "imgzoo"
            complain(f"{error.format_message().rstrip('.?')}. Try '{command} --help'.")
            return 2
        case click.ClickException():
            complain(error.format_message())
            return error.exit_code
        case click.Abort():
            complain("stopped")
            return 130 if isinstance(error.__cause__, KeyboardInterrupt) else 1
        case ImgzooError():
            complain(error)
            return error.exit_code
        case BrokenPipeError():
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        case _ if is_short(error):
            complain(f"there is not enough memory for it ({told(error)}); smaller images or batches need less")
            return 1
        case OSError():
            complain(error)
            return 1
    complain(f"{told(error)} (imgzoo --debug shows where)")
    return 1

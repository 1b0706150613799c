"""Every command with every option and its default, from the commands themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator

import click

from imgzoo.cli.app import cli

from .markdown import code, plain, table


def page() -> str:
    parts = ["# Commands", "What `imgzoo COMMAND --help` prints, for every installed command. Exit codes: see "
             "[errors](errors.md#exit-codes)."]  # fmt: skip
    root = click.Context(cli, info_name="imgzoo")
    parts.append(table(OPTION_HEAD, rows(cli, root)))
    for name in cli.list_commands(root):
        command = cli.get_command(root, name)
        assert command is not None
        parts += section(command, click.Context(command, info_name=name, parent=root), 2)
    return "\n\n".join(parts) + "\n"


OPTION_HEAD = ("option", "default", "what it does")


def section(command: click.Command, context: click.Context, level: int) -> Iterator[str]:
    """Heading, usage, text and options of a command; of a group, those of its commands too."""
    yield f"{'#' * level} {context.command_path.removeprefix('imgzoo ')}"
    usage = " ".join(command.collect_usage_pieces(context))
    yield f"```text\n{context.command_path} {usage}\n```"
    yield from (plain(" ".join(part.split())) for part in (command.help or "").split("\n\n") if part.strip())
    yield table(OPTION_HEAD, rows(command, context))
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from section(inner, click.Context(inner, info_name=name, parent=context), level + 1)


def rows(command: click.Command, context: click.Context) -> Iterator[tuple[str, str, str]]:
    for parameter in command.get_params(context):
        if not isinstance(parameter, click.Option) or parameter.hidden:
            continue
        spelled, told = parameter.get_help_record(context) or ("", "")
        help, default = split_default(told)
        yield code(spelled), code(default), plain(help)


def split_default(told: str) -> tuple[str, str]:
    """The help of an option without the brackets behind it, and the default that stands in them."""
    match = re.fullmatch(r"(.*?)(?:^|  )\[((?:default|required|\(|-?[\d.]|x)[^\[\]]*)\]", told)
    if match is None:
        return told, ""
    help, parts = match[1], match[2].split("; ", 1)
    default = next((part.removeprefix("default: ") for part in parts if part.startswith("default: ")), "")
    rest = [part for part in parts if not part.startswith("default: ")]
    return " ".join(part for part in (help, f"({', '.join(rest)})" if rest else "") if part), default

"""Every command says what it does, and what each of its options does."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from imgzoo.cli.app import cli


def commands(command: click.Command, context: click.Context) -> Iterator[tuple[str, click.Command]]:
    yield context.command_path, command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from commands(inner, click.Context(inner, parent=context, info_name=name))


COMMANDS = dict(commands(cli, click.Context(cli, info_name="imgzoo")))


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_has_a_line(path: str) -> None:
    command = COMMANDS[path]
    assert command.help
    shown = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    assert [option.opts[0] for option in shown if not (option.help or "").strip()] == []


def test_commands_are_found() -> None:
    assert {"imgzoo train", "imgzoo data check", "imgzoo weights bundle", "imgzoo validate"} <= COMMANDS.keys()

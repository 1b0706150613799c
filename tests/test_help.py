"""Every command says what it does, and what each of its options does."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

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


FLAG = re.compile(r"(?<![\w-])--[a-z][a-z-]*[a-z](?![\w-])")
COMMANDS = dict(commands(cli, click.Context(cli, info_name="imgzoo")))


@pytest.mark.parametrize("path", COMMANDS)
def test_every_option_has_a_line(path: str) -> None:
    command = COMMANDS[path]
    assert command.help
    shown = [each for each in command.params if isinstance(each, click.Option) and not each.hidden]
    assert [option.opts[0] for option in shown if not (option.help or "").strip()] == []


def test_commands_are_found() -> None:
    assert {"imgzoo train", "imgzoo data check", "imgzoo weights bundle", "imgzoo validate"} <= COMMANDS.keys()


def flags() -> set[str]:
    params = [parameter for command in COMMANDS.values() for parameter in command.params]
    return {"--help"}.union(*((*parameter.opts, *parameter.secondary_opts) for parameter in params))


FOREIGN = {"--force-reinstall"}
"""What messages advise of other programs: pip's."""
ELSEWHERE = ("packages/timm/", "ranks/launching.py")
"""Where options of other programs are written: of `python -m imgzoo_timm`, torchrun and Slurm."""


def test_every_flag_in_a_message_is_an_option_of_some_command() -> None:
    known, wrong = flags() | FOREIGN, []
    for path in sorted(Path(__file__).parents[1].glob("packages/*/src/**/*.py")):
        if any(part in path.as_posix() for part in ELSEWHERE):
            continue
        for node in ast.walk(ast.parse(path.read_bytes())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                wrong += [(path.name, flag) for flag in FLAG.findall(node.value) if flag not in known]
    assert wrong == []

"""How tests of imgzoo-train call commands, and what every sentence of a command must keep."""

import re

import click
from click.testing import CliRunner

from imgzoo.cli.app import cli
from imgzoo.errors import ImgzooError
from imgzoo.options import kinds_of
from imgzoo.registry import registry

TINY = ["--input-size", "16", "--batch-size", "120", "--lr", "0.01", "--device", "cpu", "--threads", "1", "--seed", "3"]
NAMED = re.compile(r"`imgzoo ([a-z -]+?) (?=[^a-z -]|-|\S+[/:.])([^`]*)`")
QUOTED = re.compile(r"'[^']*'")  # what was typed
FLAG, PYTHON = re.compile(r"(?<![\w-])--?[A-Za-z][a-z-]*"), re.compile(r"\b([a-z_]+)=(?=['\" A-Z])")


def invoke(module, *arguments, code=0):
    result = CliRunner().invoke(module.command, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def fails(module, *arguments) -> str:
    """The sentence a mistake is answered with; what it advises is there."""
    result = CliRunner().invoke(module.command, [str(argument) for argument in arguments])
    assert isinstance(result.exception, ImgzooError), (result.output, result.exception)
    text = str(result.exception)
    assert text
    assert "\n" not in text
    check_advice(text, module.command)
    return text


def check_advice(text: str, command: click.Command) -> None:
    """Every option in a sentence is one of the command, of a command that it names, or of a source of data."""
    for words, rest in NAMED.findall(text):
        named: click.Command = cli
        for word in words.split():
            assert isinstance(named, click.Group), text
            found = named.get_command(click.Context(named), word)
            assert found is not None, text
            named = found
        assert not set(FLAG.findall(rest)) - flags_of(named), text
    own = NAMED.sub("", text)
    assert not set(FLAG.findall(QUOTED.sub("", own))) - flags_of(command), text
    assert not set(PYTHON.findall(own)) - source_options(), text


def flags_of(command: click.Command) -> set[str]:
    return {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}


def source_options() -> set[str]:
    """Options that can stand after some source, as `?range=4095`."""
    return {"range"}.union(*(kinds_of(spec.load()) for spec in registry("datasets").specs()))

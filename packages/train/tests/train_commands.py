"""How tests of imgzoo-train call commands."""

from click.testing import CliRunner

from imgzoo.errors import ImgzooError

TINY = ["--input-size", "16", "--batch-size", "120", "--lr", "0.01", "--device", "cpu", "--threads", "1", "--seed", "3"]


def invoke(module, *arguments, code=0):
    result = CliRunner().invoke(module.command, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def fails(module, *arguments) -> str:
    """The sentence a mistake is answered with."""
    result = CliRunner().invoke(module.command, [str(argument) for argument in arguments])
    assert isinstance(result.exception, ImgzooError), (result.output, result.exception)
    text = str(result.exception)
    assert text
    assert "\n" not in text
    return text

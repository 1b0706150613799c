"""`imgzoo average`."""

from __future__ import annotations

from pathlib import Path

import click

from imgzoo.cli.output import say, without_gc


@click.command("average")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path), help="folder, or .safetensors file, to write")
@click.option("--last", default=0, type=click.IntRange(0), help="take the last checkpoints of each run folder")
@click.option("--best", default=0, type=click.IntRange(0), help="take the best checkpoints of each run folder")
@click.option("--shares", default="", help="weights of the mean, separated by commas")
def command(paths: tuple[Path, ...], output: Path, last: int, best: int, shares: str) -> None:
    """Average the weights at PATHS: run folders, checkpoints, saved folders or .safetensors files."""
    from imgzoo.errors import UsageError

    with without_gc():
        from imgzoo_train.models.averaging import (
            average_weights,
            checkpoints_of,
            load_weights,
            refuse_other_answers,
            write_weights,
        )

    if last and best:
        raise UsageError("--last and --best choose other checkpoints: give one of them")
    chosen = [inner for path in paths for inner in checkpoints_of(path, last, best)]
    loaded = [load_weights(path) for path in chosen]
    refuse_other_answers(loaded)
    try:
        parts = [float(part) for part in shares.split(",")] if shares else None
    except ValueError as error:
        raise UsageError(f"--shares takes numbers separated by commas, not '{shares}'") from error
    if parts is not None and (len(parts) != len(loaded) or not 0 < sum(parts) < float("inf")):
        raise UsageError(f"--shares needs {len(loaded)} numbers with a positive, finite sum")
    template = next((each.template for each in loaded if each.template), None)
    target = write_weights(average_weights([each.weights for each in loaded], parts), template, output)
    say(f"mean of {len(loaded)} in {target}: {', '.join(each.name for each in loaded)}")

"""`imgzoo sweep`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from imgzoo.cli.output import print_json, say
from imgzoo.errors import UsageError

from .options import Grouped, config_options, read_config, refuse_idle


@click.command("sweep", cls=Grouped)
@config_options
@click.option("--grid", multiple=True, metavar="KEY=[A, B]", help="values of a setting; several make a product")
@click.option("--random", "draws", multiple=True, metavar="KEY=LAW", help="log:LOW:HIGH, uniform:, int: or choice:A:B")
@click.option("--trials", default=10, type=click.IntRange(1), help="draws for each point of the grid")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def command(
    config_file: Path | None,
    settings: tuple[str, ...],
    grid: tuple[str, ...],
    draws: tuple[str, ...],
    trials: int,
    as_json: bool,
    **flags: Any,
) -> None:
    """Train MODEL with every combination of settings; run it again to go on with a sweep that was cut short.

    With --folds N every point is trained N times, on all but one part of the data each, and their mean is a row.

    A trial that fails is a row with its error; the others go on, and the exit code is 1.
    """
    from imgzoo_train.runs.sweeping import mean_of_folds, plan, sweep
    from imgzoo_train.scores.metrics import oriented, score_name
    from imgzoo_train.terminal.tables import show

    refuse_idle(trials="draws")
    config = read_config(config_file, settings, flags)
    if not config.run.output:
        raise UsageError("a sweep needs --output DIR")
    if config.data.folds and not any(text.startswith("data.fold=") for text in grid):
        grid = (*grid, f"data.fold={list(range(config.data.folds))}")
    points = plan(grid, draws, trials, config.run.seed)
    name, rows = score_name(config), []
    for row in sweep(config, points, Path(config.run.output)):
        rows.append(row)
        score = f"{name} {row[name]:.4g}" if name in row else row["error"]
        say(f"{len(rows)}/{len(points)}  {score}", err=True)
    rows.sort(key=lambda row: oriented(name, row[name]) if name in row else float("-inf"), reverse=True)
    rows += mean_of_folds(rows, points, name) if config.data.folds else []
    if as_json:
        print_json(rows)
    else:
        keys = list(dict.fromkeys(key for point in points for key in point))
        show(rows, ("trial", *keys, name, f"{name}_std", "loss", "seconds"))
    if any("error" in row for row in rows):
        sys.exit(1)

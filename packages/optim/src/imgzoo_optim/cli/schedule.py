"""`imgzoo schedule NAME`: the values of a schedule as a table, a drawing or JSON."""

from __future__ import annotations

import ast
import shutil
from typing import Any

import click

from imgzoo.cli.numbers import Number
from imgzoo.cli.output import say, say_text
from imgzoo.text import json_text
from imgzoo_optim.schedules import create_scheduler

BLOCKS = " ▁▂▃▄▅▆▇█"


def draw(values: list[float], width: int, height: int = 12) -> str:
    """A chart of `values` in block characters, with the range at the left."""
    width = max(1, min(width, len(values)))
    columns = [values[i * len(values) // width] for i in range(width)]
    top, bottom = max(columns), min(min(columns), 0.0)
    span = (top - bottom) or 1.0
    lines = []
    for row in reversed(range(height)):
        filled = [(value - bottom) / span * height - row for value in columns]
        cells = "".join(BLOCKS[min(8, max(0, round(part * 8)))] for part in filled)
        label = f"{bottom + span * (row + 1) / height:.3g}" if row % 4 == 3 or row == height - 1 else ""
        lines.append(f"{label:>9} |{cells}")
    lines.append(f"{bottom:9.3g} +{'-' * width}")
    return "\n".join(lines)


def _options(pairs: tuple[str, ...]) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise click.BadParameter(f"'{pair}' is not key=value")
        try:
            options[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            options[key] = text
    return options


@click.command("schedule")
@click.argument("name")
@click.argument("options", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--total",
    default=100.0,
    type=Number(0, 1e7, min_open=True),
    help="Length of the run, in updates or epochs.",
    show_default=True,
)
@click.option("--warmup", default=0.0, type=Number(0), help="Length of the warm-up.", show_default=True)
@click.option("--base", default=1.0, type=Number(0), help="The value to scale.", show_default=True)
@click.option("--points", default=21, type=click.IntRange(1), help="Rows of the table.", show_default=True)
@click.option("--plot", is_flag=True, help="Draw the curve.")
@click.option("--json", "as_json", is_flag=True, help="Every value, as JSON.")
def command(
    name: str,
    options: tuple[str, ...],
    total: float,
    warmup: float,
    base: float,
    points: int,
    plot: bool,
    as_json: bool,
) -> None:
    """Show the schedule NAME, with further options such as min_lr=1e-5 cycle_limit=2 decay_fn=cosine."""
    schedule = create_scheduler(name, total=total, warmup=warmup, base=base, **_options(options))
    length = max(1, schedule.length)
    values = [schedule(update) for update in range(length + 1)]
    if as_json:
        say(json_text({"name": name, "length": length, "values": values}, None))
    elif plot:
        say_text(draw(values, shutil.get_terminal_size().columns - 12))
        say(f"{'':>9}  0 to {length}")
    else:
        rows = sorted({round(i * length / max(1, points - 1)) for i in range(points)})
        for update in rows:
            say(f"{update:10d}  {values[update]:.6g}")

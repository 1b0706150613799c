"""`imgzoo benchmark`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from imgzoo.cli.numbers import Number
from imgzoo.cli.output import print_json, say, without_gc
from imgzoo.errors import ImgzooError

from .options import CHANNELS_LAST, DEVICE, ENGINE, IMG_SIZE, PRECISION, batch_size, refuse_idle


@click.command("benchmark")
@click.argument("models", nargs=-1, required=True)
@click.option("--mode", "modes", default="inference,profile", help="inference, training, profile, with commas")
@batch_size(1)
@IMG_SIZE
@DEVICE
@PRECISION
@CHANNELS_LAST
@click.option("--compile", is_flag=True, help="by torch.compile first")
@ENGINE
@click.option("--seconds", default=2.0, type=Number(0, 3600), help="time to measure each")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@click.option("--output", type=click.Path(path_type=Path), help="write a .csv, .json, .jsonl or .parquet file")
def command(
    models: tuple[str, ...], modes: str, device: str, as_json: bool, output: Path | None, **options: Any
) -> None:
    """Measure MODELS (names, patterns, folders, deployed files) on this machine with random weights."""
    from imgzoo.errors import UsageError

    with without_gc():
        from imgzoo_train.models.speed import MODES, Settings, benchmark
        from imgzoo_train.ranks.world import pick_device
        from imgzoo_train.scores.rows import check_name, write_rows
        from imgzoo_train.scores.validate import find_models
        from imgzoo_train.terminal.tables import show

    chosen = [mode.strip() for mode in modes.split(",")]
    unknown = [mode for mode in chosen if mode not in MODES]
    if unknown:
        raise UsageError(f"there is no mode '{unknown[0]}'; modes are {', '.join(MODES)}")
    refuse_idle(channels_last="not engine", compile="not engine")
    check_name(output)
    names, rows, failed = find_models(models), [], False
    for number, name in enumerate(names, start=1):
        if len(names) > 1:
            say(f"{number}/{len(names)} {name}", err=True)
        try:
            rows.append(benchmark(name, Settings(device=pick_device(device), **options), chosen))
        except Exception as error:  # whatever one dies of, the others are measured
            if len(names) == 1:
                raise
            text = str(error) if isinstance(error, ImgzooError) else f"{type(error).__name__}: {error}"
            rows.append({"model": name, "error": text.splitlines()[0]})
            failed = True
    if as_json:
        print_json(rows[0] if len(rows) == 1 else rows)
    else:
        show(rows)
    if output is not None:
        write_rows(rows, output)
    if failed:
        sys.exit(1)

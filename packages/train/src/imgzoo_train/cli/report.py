"""`imgzoo report`."""

from __future__ import annotations

from pathlib import Path

import click

from imgzoo.cli.output import say
from imgzoo.errors import UsageError


@click.command("report")
@click.argument("runs", nargs=-1, required=True, metavar="RUN [OTHER]", type=click.Path(path_type=Path))
@click.option("--output", type=click.Path(path_type=Path),
              help="the page to write  [default: report.html of RUN; comparison.html for two]")  # fmt: skip
def command(runs: tuple[Path, ...], output: Path | None) -> None:
    """Write the page of a run (finished, running or stopped), or of what sets OTHER apart from it."""
    from imgzoo_train.files.storage import check_file
    from imgzoo_train.reporting.comparing import write_comparison
    from imgzoo_train.reporting.page import write_report
    from imgzoo_train.reporting.reading import open_run

    if len(runs) > 2:
        raise UsageError(f"imgzoo report takes one run, or two to compare, not {len(runs)}")
    files = [open_run(run) for run in runs]
    path = output or (runs[0] / "report.html" if len(runs) == 1 else Path("comparison.html"))
    check_file(path, ".html")
    if len(files) == 1:
        write_report(files[0], path)
    else:
        write_comparison(files[0], files[1], path)
    say(f"{path}: {path.stat().st_size / 2**20:.1f} MiB")

"""`imgzoo explore`: a page to look through all models and weights, without a network."""

from __future__ import annotations

from pathlib import Path

import click

from .output import say


@click.command("explore")
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), default=Path("models.html"),
              show_default=True, help="The page to write.")  # fmt: skip
@click.option("--measured", type=click.Path(path_type=Path, dir_okay=False, exists=True),
              help="What `imgzoo benchmark --json` wrote: milliseconds become an axis.")  # fmt: skip
def command(output: Path, measured: Path | None) -> None:
    """Write one page with every model and weight: search, filters, a table, and accuracy against cost."""
    from imgzoo import __version__
    from imgzoo.explorer import all_rows, page, read_measured, table
    from imgzoo.loading.disk import check_end, write_text

    check_end(output, ".html")
    times = read_measured(measured.read_text(encoding="utf-8"), str(measured)) if measured else None
    rows = all_rows()
    write_text(output, page(table(rows, times), __version__))
    say(f"{output}: {len(rows)} models and weights")

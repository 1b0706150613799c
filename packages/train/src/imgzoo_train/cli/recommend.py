"""`imgzoo recommend`."""

from __future__ import annotations

import sys

import click

from imgzoo.cli.numbers import Number
from imgzoo.cli.output import print_json, say, without_gc

from .options import CHANNELS_LAST, DEVICE, ENGINE, PRECISION, batch_size, refuse_idle


@click.command("recommend")
@click.argument("patterns", nargs=-1)
@click.option("--max-ms", required=True, type=Number(0, min_open=True), help="latency of a batch")
@click.option("--min-top1", type=Number(0, 100), help="least published ImageNet accuracy in percent")
@click.option("--max-params", type=Number(0, min_open=True), help="most parameters in millions")
@click.option("--license", default="", help="SPDX id, or 'permissive'")
@batch_size(1)
@DEVICE
@PRECISION
@CHANNELS_LAST
@ENGINE
@click.option("--measure", "most", default=12, type=click.IntRange(1), help="most models to measure")
@click.option("--seconds", default=120.0, type=Number(1), help="most time to spend")
@click.option("--threads", default=0, type=click.IntRange(0), help="CPU threads")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def command(
    patterns: tuple[str, ...],
    max_ms: float,
    min_top1: float | None,
    max_params: float | None,
    license: str,
    batch_size: int,
    device: str,
    precision: str,
    channels_last: bool,
    engine: str | None,
    most: int,
    seconds: float,
    threads: int,
    as_json: bool,
) -> None:
    """Measure models matching PATTERNS here and name the most accurate one within --max-ms."""
    with without_gc():
        import torch

        from imgzoo_train.config.limits import check_threads
        from imgzoo_train.models.recommending import candidates, recommend
        from imgzoo_train.models.speed import Settings
        from imgzoo_train.ranks.world import pick_device
        from imgzoo_train.terminal.tables import show

    refuse_idle(channels_last="not engine")
    check_threads(threads)
    if threads:
        torch.set_num_threads(threads)
    settings = Settings(
        batch_size, None, pick_device(device), precision, channels_last, engine=engine, seconds=min(1.0, seconds / most)
    )
    rows = candidates(patterns, license, min_top1, max_params)
    best, table = recommend(max_ms, settings, rows, most=most, seconds=seconds, watch=lambda text: say(text, err=True))
    if as_json:
        print_json({"best": best, "measured": table})
    else:
        show(table, ("model", "top1", "ms_p50", "ms_p90", "fits", "gmacs", "params_m", "license"))
        if best:
            say(f"take {best['model']}: {best['ms_p50']:.1f} ms here, published top-1 {best['top1']:.1f}%")
        else:
            say(f"none of the measured models answers within {max_ms:g} ms")
    sys.exit(0 if best else 1)

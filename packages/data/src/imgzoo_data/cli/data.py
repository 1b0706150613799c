"""The commands `imgzoo data check|index|show`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click

from imgzoo.cli.output import say, say_text
from imgzoo.errors import UsageError


@click.group("data")
def command() -> None:
    """Look after image sources: check them, index them, show what a network will see."""


RANGE = click.option(
    "--range", "values", help="Values of black and white of images of more than 8 bits, e.g. 4095 or 0,255."
)
MAX_PIXELS = click.option("--max-pixels", type=click.IntRange(1), help="Pixels above which an image is refused unread.")


def _open(source: str, split: str, values: str | None = None) -> Any:
    from imgzoo_data.sources.base import StreamSource, create_dataset

    given: dict[str, Any] = {"range": values} if values else {}
    opened = create_dataset(source, split, **given)
    if isinstance(opened, StreamSource):
        raise UsageError("this needs a source with random access, not a stream")
    return opened


def _progress(label: str, quiet: bool) -> Any:
    def bar(records: Any, count: int) -> Any:
        with click.progressbar(records, length=count, label=label, file=sys.stderr) as shown:
            yield from shown

    return None if quiet else bar


@command.command()
@click.argument("source")
@click.option("--split", default="train", show_default=True, help="Part of SOURCE.")
@click.option("--against", metavar="SPLIT|SOURCE", help="Look for images that are also there.")
@click.option(
    "--near", default=3, show_default=True, type=click.IntRange(-1, 3), help="Bits two near duplicates may differ in."
)
@click.option("--limit", type=click.IntRange(1), help="Examine only the first samples.")
@click.option(
    "--workers", default=os.cpu_count() or 1, show_default="cores", type=click.IntRange(1), help="Threads that decode."
)
@RANGE
@MAX_PIXELS
@click.option("--report", type=click.Path(dir_okay=False, path_type=Path), help="Write an HTML page with thumbnails.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def check(
    source: str,
    split: str,
    against: str | None,
    near: int,
    limit: int | None,
    workers: int,
    values: str | None,
    max_pixels: int | None,
    report: Path | None,
    as_json: bool,
) -> None:
    """Say what the source is, and find corrupt, odd, repeated and leaked images. Exit code 1 when there are errors."""
    from imgzoo.cli.output import print_json, print_table
    from imgzoo.text import counted, escaped
    from imgzoo_data.decode import MAX_PIXELS
    from imgzoo_data.examine import KINDS, diagnose, examine_all
    from imgzoo_data.report import write_report

    if report is not None and report.suffix.lower() != ".html":
        raise UsageError(f"--report takes a page, a .html file, not '{report}'")
    opened = _open(source, split, values)
    described, most = opened.describe(), max_pixels or MAX_PIXELS
    records = examine_all(opened, workers, limit, _progress("examining", as_json), most)
    others = None
    if against:
        there = ":" in against or os.path.exists(against)
        other = _open(against, "train", values) if there else _open(source, against, values)
        others = examine_all(other, workers, limit, _progress(f"examining {escaped(against)}", as_json), most)
    health = diagnose(opened, records, others, near, against or "")
    if report:
        report.write_text(write_report(opened, health), encoding="utf-8")
    if as_json:
        print_json({**health.to_dict(), "description": described.to_dict()})
    else:
        say(f"{health.name.rstrip(':')}: {counted(health.count, 'sample')}, {counted(len(health.classes), 'class')}")
        say_text(described)
        rows = [(kind, count, KINDS[kind][1]) for kind, count in health.counts().items()]
        print_table(rows, ("finding", "samples", ""))
        for finding in health.findings[:20]:
            say(f"  {finding.kind}: {finding.key}: {finding.detail}")
        if len(health.findings) > 20:
            say(f"  and {len(health.findings) - 20} more; see --report or --json")
        if not health.findings:
            say("nothing to report")
    raise SystemExit(1 if health.errors or described.contradictions else 0)


@command.command()
@click.argument("source")
@click.option("--split", default="train", show_default=True, help="Part of SOURCE.")
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Where to write it; the cache folder otherwise."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def index(source: str, split: str, out: Path | None, as_json: bool) -> None:
    """Read the headers of tars once and keep where each image lies."""
    from imgzoo.cli.output import print_json
    from imgzoo.text import counted
    from imgzoo_data.sources.archive import find_archives
    from imgzoo_data.sources.base import parse_source
    from imgzoo_data.sources.folder import wanted_endings
    from imgzoo_data.sources.tarindex import build_table, cache_path, fingerprint, write_cache

    scheme, location, _ = parse_source(source)
    if scheme != "tar":
        raise UsageError(f"only tar: sources keep an index; '{scheme}:' is listed each time it is opened")
    tars = find_archives(location, split, ".tar").paths
    extensions = wanted_endings(None)
    path = out or cache_path(tars, extensions)
    table = build_table(tars, extensions)
    write_cache(path, table, [fingerprint(tar) for tar in tars])
    if not path.exists():
        raise UsageError(f"the index cannot be written to '{path}'; choose another place with --out")
    row = {"index": str(path), "tars": len(tars), "images": len(table.ends), "labels": len(table.label_names)}
    if as_json:
        print_json(row)
    else:
        say(
            f"{counted(len(table.ends), 'image')} with {counted(len(table.label_names), 'label')} in "
            f"{counted(len(tars), 'tar')}: {path}"
        )


@command.command()
@click.argument("source")
@click.option("--split", default="train", show_default=True, help="Part of SOURCE.")
@click.option("--transform", "row", metavar="ROW", help="As in 'rrc(scale=(0.3, 1)) | hflip | rand-m9-mstd0.5'.")
@click.option("--model", help="Take size, crop and normalization of this model.")
@click.option("--size", type=click.IntRange(1), help="Height and width in pixels.")
@click.option("--channels", type=click.IntRange(1), help="Channels of the images; 3 by default.")
@click.option("--eval", "evaluation", is_flag=True, help="The evaluation transform.")
@click.option("--auto-augment", metavar="POLICY", help="As in rand-m9-mstd0.5 or augmix-m5-w4.")
@click.option("--count", default=8, show_default=True, type=click.IntRange(1), help="Images on the sheet.")
@click.option("--views", default=6, show_default=True, type=click.IntRange(1), help="Draws of each image.")
@click.option("--seed", default=0, show_default=True, help="Of the random draws.")
@RANGE
@MAX_PIXELS
@click.option(
    "--out",
    default="sheet.png",
    show_default=True,
    type=click.Path(dir_okay=False, path_type=Path),
    help="Image file to write.",
)
def show(
    source: str,
    split: str,
    row: str | None,
    model: str | None,
    size: int | None,
    channels: int | None,
    evaluation: bool,
    auto_augment: str | None,
    count: int,
    views: int,
    seed: int,
    values: str | None,
    max_pixels: int | None,
    out: Path,
) -> None:
    """Draw a contact sheet of what a network will see; prints the transform as a row that can be given back."""
    from imgzoo_data.pictures import contact_sheet
    from imgzoo_data.transforms.create import create_transform

    config = None
    if model:
        from imgzoo.models import get_spec

        spec = get_spec(model)
        config = spec.weights[0]._asdict() if spec.weights else None
    transform = create_transform(
        config,
        training=not evaluation,
        row=row,
        auto_augment=auto_augment,
        img_size=size,
        in_chans=channels,
        max_pixels=max_pixels,
    )
    contact_sheet(_open(source, split, values), transform, count, views, seed).save(out)
    say(transform)
    say(out)

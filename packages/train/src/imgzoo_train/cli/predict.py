"""`imgzoo predict`."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import click

from imgzoo.errors import MissingDependencyError, UsageError

from .options import SEQUENCE, TTA

Row = dict[str, Any]


@click.command("predict")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", "name", required=True, help="model name, saved folder or run folder")
@click.option("--pretrained", default="true", help="weights of a model given by name")
@click.option("--topk", default=5, type=click.IntRange(1), help="answers an image")
@click.option("--embed", is_flag=True, help="add the vector that the classifier sees")
@click.option("--features", is_flag=True, help="add the last feature map or tokens")
@click.option("--batch-size", default=16, type=click.IntRange(1))
@click.option("--img-size", type=click.IntRange(1), help="another input size")
@SEQUENCE
@click.option("--tta", help=f"average the answers to views of an image: {TTA}")
@click.option("--range", "values", help="values of black and white of images of more than 8 bits, e.g. 4095 or 0,255")
@click.option("--max-pixels", type=click.IntRange(1), help="pixels above which an image is refused unread")
@click.option("--device", default="")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@click.option("--output", type=click.Path(path_type=Path), help="write a .json, .jsonl, .csv or .parquet file")
def command(
    paths: tuple[Path, ...],
    name: str,
    pretrained: str,
    topk: int,
    embed: bool,
    features: bool,
    batch_size: int,
    img_size: int | None,
    sequence: int | None,
    tta: str | None,
    values: str | None,
    max_pixels: int | None,
    device: str,
    as_json: bool,
    output: Path | None,
) -> None:
    """Name what the images at PATHS show; folders are searched."""
    from imgzoo_train.files.storage import check_file
    from imgzoo_train.models.prediction import Predictor, find_images
    from imgzoo_train.ranks.world import pick_device
    from imgzoo_train.terminal.progress import Watched, clean

    files = find_images(paths)
    if output is not None and output.suffix not in WRITERS:
        raise UsageError(f"--output takes {', '.join(WRITERS)}, not '{output.suffix}'")
    check_file(output)
    options: dict[str, Any] = {"img_size": img_size, "sequence": sequence, "max_pixels": max_pixels, "tta": tta}
    options["range"] = values
    predictor = Predictor.open(name, pretrained, device=pick_device(device), **options)
    found = predictor.rows(files, topk=topk, embed=embed, features=features, batch_size=batch_size)
    rows = list(Watched(found, len(files), "predict", least=32))
    if output is not None:
        WRITERS[output.suffix](rows, output)
        click.echo(f"{len(rows)} rows in {output}")
    elif as_json:
        click.echo(json.dumps(rows, indent=1))
    else:
        for row in rows:
            click.echo(clean(row["file"]))
            for answer in row.get("classes", ()):
                click.echo(f"  {answer['probability']:7.2%}  {clean(answer['class'])}")
            if "values" in row:
                click.echo("  " + "  ".join(f"{value:.6g}" for value in row["values"]))
            if "error" in row:
                click.echo(f"  error: {clean(row['error'])}")
    if any("error" in row for row in rows):
        sys.exit(1)


def flat(rows: list[Row]) -> list[Row]:
    """A line an image: `class_1`, `probability_1`, ...; lists stay lists of numbers."""
    table: list[Row] = []
    for row in rows:
        line: Row = {"file": row["file"], "error": row.get("error")}
        for place, answer in enumerate(row.get("classes", ()), start=1):
            line[f"class_{place}"], line[f"index_{place}"] = answer["class"], answer["index"]
            line[f"probability_{place}"] = answer["probability"]
        line |= {f"value_{place}": value for place, value in enumerate(row.get("values", ()), start=1)}
        table.append({**line, **{key: row[key] for key in ("embedding", "features") if key in row}})
    return table


def _write_json(rows: list[Row], path: Path) -> None:
    path.write_text(json.dumps(rows, indent=1), encoding="utf-8")


def _write_jsonl(rows: list[Row], path: Path) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def _write_csv(rows: list[Row], path: Path) -> None:
    from imgzoo_train.files.storage import safe_cell

    table = flat(rows)
    names = list(dict.fromkeys(name for line in table for name in line))
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        for line in table:
            writer.writerow({key: safe_cell(value) if isinstance(value, str) else value for key, value in line.items()})


def _write_parquet(rows: list[Row], path: Path) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingDependencyError("parquet needs pyarrow: pip install imgzoo-train[parquet]") from error
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(flat(rows)), path)


WRITERS = {".json": _write_json, ".jsonl": _write_jsonl, ".csv": _write_csv, ".parquet": _write_parquet}

"""`imgzoo predict`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from imgzoo.cli.output import print_json, say, without_gc

from .options import ANSWERS, DEVICE, ENGINE, IMG_SIZE, MAX_PIXELS, RANGE, SEQUENCE, TTA, batch_size, refuse_idle
from .options import pretrained as of_name

Row = dict[str, Any]


@click.command("predict")
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--model", "name", required=True, help="model name, saved folder, run folder or deployed file")
@of_name("weights of a model given by name")
@ANSWERS
@ENGINE
@click.option("--topk", default=5, type=click.IntRange(1), help="answers an image")
@click.option("--embed", is_flag=True, help="add the vector that the classifier sees")
@click.option("--features", is_flag=True, help="add the last feature map or tokens")
@batch_size(16)
@IMG_SIZE
@SEQUENCE
@click.option("--tta", help=f"average the answers to views of an image: {TTA}")
@RANGE
@MAX_PIXELS
@DEVICE
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@click.option("--output", type=click.Path(path_type=Path), help="write a .json, .jsonl, .csv or .parquet file")
def command(
    paths: tuple[Path, ...],
    name: str,
    pretrained: str,
    task: str | None,
    engine: str | None,
    topk: int,
    embed: bool,
    features: bool,
    batch_size: int,
    img_size: int | None,
    sequence: int | None,
    tta: str | None,
    range: str | None,
    max_pixels: int | None,
    device: str,
    as_json: bool,
    output: Path | None,
) -> None:
    """Name what the images at PATHS show; folders are searched."""
    with without_gc():
        from imgzoo_train.files.storage import StorageError
        from imgzoo_train.models.prediction import Predictor, find_images
        from imgzoo_train.ranks.world import pick_device
        from imgzoo_train.scores.rows import check_name, write_rows
        from imgzoo_train.terminal.progress import Watched

    refuse_idle(embed="not engine", features="not engine", sequence="not engine")
    files = find_images(paths)
    check_name(output)
    options: dict[str, Any] = {"img_size": img_size, "sequence": sequence, "max_pixels": max_pixels, "tta": tta}
    options |= {"range": range, "engine": engine, "batch": min(batch_size, len(files)), "task": task}
    with without_gc():
        predictor = Predictor.open(name, pretrained, device=pick_device(device), **options)
    found = predictor.rows(files, topk=topk, embed=embed, features=features, batch_size=batch_size)
    rows = list(Watched(found, len(files), "predict", least=32))
    if output is not None:
        try:
            write_rows(flat(rows) if output.suffix.lower() in (".csv", ".parquet") else rows, output)
        except StorageError:
            print_json(rows)  # they are not lost
            raise
        say(f"{len(rows)} rows in {output}")
    elif as_json:
        print_json(rows)
    else:
        for row in rows:
            say(row["file"])
            for answer in row.get("classes", ()):
                say(f"  {answer['probability']:7.2%}  {answer['class']}")
            if "values" in row:
                called = [f"{name} " for name in row.get("names", [])] or [""] * len(row["values"])
                say("  " + "  ".join(f"{name}{value:.6g}" for name, value in zip(called, row["values"])))
            if "error" in row:
                say(f"  error: {row['error']}")
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

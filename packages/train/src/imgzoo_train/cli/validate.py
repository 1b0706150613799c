"""`imgzoo validate`."""

from __future__ import annotations

import csv
import json
import sys
from pathlib import Path
from typing import Any

import click

from imgzoo.errors import ImgzooError

SHOWN = (
    "model",
    "n",
    "left_out",
    "top1",
    "top5",
    "map",
    "r2",
    "mae",
    "loss",
    "calibration_error",
    "params_m",
    "seconds",
)


@click.command("validate")
@click.argument("models", nargs=-1, required=True)
@click.option("--data", "source", required=True, help="digits: or folder:PATH")
@click.option("--split", default="validation")
@click.option("--task", type=click.Choice(["classification", "multilabel", "regression"]),
              help="what the models must answer; they say it themselves")  # fmt: skip
@click.option("--pretrained", default="true", help="weights of models given by name")
@click.option("--batch-size", default=64, type=click.IntRange(1))
@click.option("--workers", default=0, type=click.IntRange(0))
@click.option("--img-size", type=click.IntRange(1))
@click.option("--crop-pct", type=float)
@click.option("--precision", default="fp32", type=click.Choice(["fp32", "bf16", "pure-bf16"]))
@click.option("--channels-last", is_flag=True)
@click.option("--test-pool", is_flag=True, help="average answers over windows of the whole image")
@click.option("--subset", default="", help="ImageNet's derived sets: a, r, v2, sketch, real")
@click.option("--max-bad", default=0.0, type=click.FloatRange(0),
              help="share, or from 1 number, of unreadable images to leave out and count")  # fmt: skip
@click.option("--per-class", is_flag=True, help="add scores of each class")
@click.option("--confusion", is_flag=True, help="add the confusion matrix")
@click.option("--max-pixels", type=click.IntRange(1), help="pixels above which an image is refused unread")
@click.option("--device", default="")
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@click.option("--output", type=click.Path(path_type=Path), help="write a .json or .csv file")
def command(
    models: tuple[str, ...],
    device: str,
    per_class: bool,
    confusion: bool,
    as_json: bool,
    output: Path | None,
    **options: Any,
) -> None:
    """Score MODELS (names, patterns, saved folders, run folders, or files that list them) on --data."""
    from imgzoo_train.distributed import join_world
    from imgzoo_train.progress import Bar
    from imgzoo_train.validation import Settings, find_models, validate

    settings, rows, failed = Settings(**options), [], False
    names = find_models(models)
    with join_world(device) as world:
        for name in names:
            try:
                row, found = validate(name, settings, world)
            except Exception as error:  # whatever one dies of, the others are scored
                if len(names) == 1:
                    raise
                text = str(error) if isinstance(error, ImgzooError) else f"{type(error).__name__}: {error}"
                row, failed = {"model": name, "error": text.splitlines()[0]}, True
            else:
                if per_class and hasattr(found.scores, "per_class"):
                    row["per_class"] = found.scores.per_class()
                if confusion and hasattr(found.scores, "confusion"):
                    row["confusion"] = found.scores.confusion.long().tolist()
            rows.append(row)
            if len(names) > 1 and world.main:
                Bar(0, 0).say(f"{name}: {row.get('top1', row.get('error', 'scored'))}")
        if world.main:
            _show(rows, as_json, output)
    if failed:
        sys.exit(1)


def _show(rows: list[dict[str, Any]], as_json: bool, output: Path | None) -> None:
    if output is not None:
        if output.suffix == ".csv":
            _write_csv(rows, output)
        else:
            output.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    if as_json:
        click.echo(json.dumps(rows[0] if len(rows) == 1 else rows, indent=1))
        return
    from imgzoo_train.tables import show

    show(rows, SHOWN)


def _write_csv(rows: list[dict[str, Any]], path: Path) -> None:
    from imgzoo_train.folder import safe_cell

    names = [
        name for name in dict.fromkeys(name for row in rows for name in row) if name not in ("per_class", "confusion")
    ]
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(names), extrasaction="ignore")
        writer.writeheader()
        for row in rows:
            writer.writerow({key: safe_cell(value) if isinstance(value, str) else value for key, value in row.items()})

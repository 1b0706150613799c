"""`imgzoo validate`."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Any

import click

from imgzoo.cli.numbers import Number
from imgzoo.cli.output import print_json, say, without_gc
from imgzoo.errors import ImgzooError

from .options import (
    ANSWERS,
    CHANNELS_LAST,
    DEVICE,
    ENGINE,
    IMG_SIZE,
    MAX_PIXELS,
    PRECISION,
    RANGE,
    SEQUENCE,
    TTA,
    WORKERS,
    batch_size,
    pretrained,
    refuse_idle,
)

Row = dict[str, Any]
ROWS = (".parquet", ".jsonl")

SHOWN = (
    "model",
    "n",
    "left_out",
    "nonfinite",
    "top1",
    "top5",
    "map",
    "f1_samples",
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
@click.option("--split", default="validation", help="part of --data")
@ANSWERS
@pretrained("weights of models given by name")
@ENGINE
@batch_size(64)
@WORKERS
@IMG_SIZE
@click.option("--crop-pct", type=Number(0, 1, min_open=True),
              help="share of the resized image that the crop keeps; as trained by default")  # fmt: skip
@PRECISION
@CHANNELS_LAST
@click.option("--test-pool", is_flag=True, help="join the answers to every window of a larger --img-size")
@click.option("--threshold", type=Number(0, 1, min_open=True, max_open=True),
              help="probability above which a label holds, of several an image")  # fmt: skip
@click.option("--tta", help=f"average the answers to views of an image: {TTA}")
@SEQUENCE
@click.option("--subset", default="", help="ImageNet's derived sets: a, r, v2, sketch, real")
@click.option("--max-bad", default=0.0, type=Number(0),
              help="share, or from 1 number, of unreadable images to leave out and count")  # fmt: skip
@click.option("--per-class", is_flag=True, help="add scores of each class")
@click.option("--confusion", is_flag=True, help="add the confusion matrix")
@RANGE
@MAX_PIXELS
@DEVICE
@click.option("--json", "as_json", is_flag=True, help="print JSON")
@click.option("--output", type=click.Path(path_type=Path),
              help="the scores as .json or .csv, or a row an image as .parquet or .jsonl")  # fmt: skip
def command(
    models: tuple[str, ...],
    device: str,
    per_class: bool,
    confusion: bool,
    as_json: bool,
    output: Path | None,
    **options: Any,
) -> None:
    """Score MODELS (names, patterns, saved folders, run folders, deployed files, or lists of them) on --data."""
    with without_gc():
        from imgzoo_train.ranks.world import join_world
        from imgzoo_train.scores.rows import check_name
        from imgzoo_train.scores.validate import Settings, find_models, validate
        from imgzoo_train.terminal.progress import Bar

    check_name(output)
    refuse_idle(crop_pct="not test_pool", channels_last="not engine", sequence="not engine")
    each_image = output is not None and output.suffix.lower() in ROWS
    tables = {"per_class": per_class, "confusion": confusion}
    settings, rows, samples, failed = Settings(rows=each_image, **tables, **options), [], [], False
    names, say = find_models(models), functools.cache(Bar(0, 0).say)  # the same data is described once
    with join_world(device) as world:
        for name in names:
            try:
                row, found = validate(name, settings, world, say)
            except Exception as error:  # whatever one dies of, the others are scored
                if len(names) == 1:
                    raise
                text = str(error) if isinstance(error, ImgzooError) else f"{type(error).__name__}: {error}"
                row, failed = {"model": name, "error": text.splitlines()[0]}, True
            else:
                if broken := row.get("nonfinite"):
                    say(f"{name}: the outputs of {broken} of {row['n']} images are no finite number")
                    failed = True
                if per_class:
                    rates = zip(found.labels, found.scores.per_class())
                    row["per_class"] = [{"class": label, **rate} for label, rate in rates]
                if confusion:
                    row["confusion"] = {"classes": found.labels, "rows": found.scores.confusion.long().tolist()}
                samples += [{"model": name, **sample} for sample in found.rows]
            rows.append(row)
            if len(names) > 1 and world.main:
                Bar(0, 0).say(f"{name}: {row.get('top1', row.get('error', 'scored'))}")
        if world.main:
            _show(rows, as_json)
            _write(rows, samples, output)
    if failed:
        sys.exit(1)


def _write(rows: list[Row], samples: list[Row], path: Path | None) -> None:
    """Write scores, or a row an image; CSV has classes and confusion in files of their own beside it."""
    from imgzoo_train.scores.rows import write_rows

    if path is None:
        return
    if path.suffix.lower() in ROWS:
        write_rows(samples, path)
    elif path.suffix.lower() == ".json":
        write_rows(rows, path)
    else:
        for name, table in {"": _plain(rows), "per_class": classes_of(rows), "confusion": pairs_of(rows)}.items():
            if table or not name:
                write_rows(table, path.with_suffix(f".{name}.csv") if name else path)


def _plain(rows: list[Row]) -> list[Row]:
    return [{key: value for key, value in row.items() if key not in ("per_class", "confusion")} for row in rows]


def classes_of(rows: list[Row]) -> list[Row]:
    """A row for each model and class."""
    return [{"model": row["model"], **each} for row in rows for each in row.get("per_class", ())]


def pairs_of(rows: list[Row]) -> list[Row]:
    """A row for each model and true class: how often each class was answered."""
    return [
        {"model": row["model"], "true": true, **dict(zip(row["confusion"]["classes"], counts))}
        for row in rows
        if "confusion" in row
        for true, counts in zip(row["confusion"]["classes"], row["confusion"]["rows"])
    ]


def _show(rows: list[Row], as_json: bool) -> None:
    if as_json:
        print_json(rows[0] if len(rows) == 1 else rows)
        return
    from imgzoo_train.terminal.tables import show

    show(rows, SHOWN)
    occurring = [each for each in classes_of(rows) if each["n"]]  # files have all
    for table in (occurring, pairs_of(rows)):
        if table:
            say()
            show(table, list(dict.fromkeys(key for row in table for key in row)))

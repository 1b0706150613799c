"""`imgzoo embed`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from imgzoo.cli.output import say, without_gc

from .options import DEVICE, IMG_SIZE, MAX_PIXELS, PRECISION, RANGE, TASK, WORKERS, batch_size, pretrained


@click.command("embed")
@click.argument("source")
@click.option("--model", required=True, help="model name, saved folder or run folder")
@click.option("--output", required=True, type=click.Path(path_type=Path),
              help="a .npy (with a .json beside it), .parquet or .safetensors file")  # fmt: skip
@click.option("--kind", default="pooled", type=click.Choice(["pooled", "tokens", "levels"]),
              help="the vector before the classifier, the last tokens, or the map of each level")  # fmt: skip
@click.option("--task", default="classification", type=TASK,
              help="what the targets of SOURCE are")  # fmt: skip
@click.option("--split", default="validation", show_default=True, help="part of SOURCE")
@pretrained("weights of a model given by name")
@batch_size(64)
@WORKERS
@IMG_SIZE
@PRECISION
@RANGE
@MAX_PIXELS
@DEVICE
@click.option("--resume", is_flag=True, help="go on with the parts of a run that was cut short")
@click.option("--overwrite", is_flag=True, help="begin anew, whatever is there")
def command(output: Path, device: str, resume: bool, overwrite: bool, **options: Any) -> None:
    """Write the features of every image of SOURCE (digits: or folder:PATH), in its order, with keys and targets."""
    from imgzoo.errors import UsageError

    with without_gc():
        from imgzoo_train.features.embedding import Embedding, Settings
        from imgzoo_train.features.store import Parts, check_output
        from imgzoo_train.ranks.world import pick_device
        from imgzoo_train.terminal.progress import Bar, Watched

    if resume and overwrite:
        raise UsageError("--resume goes on, --overwrite begins anew; use one of them")
    check_output(output, options["kind"], overwrite)
    settings = Settings(**options)
    embedding = Embedding(settings, pick_device(device))
    for line in embedding.described.lines():
        Bar(0, 0).say(line)
    parts = Parts(output, embedding.record(), embedding.keys)
    with parts.opened(resume, overwrite) as done:
        start, total = time.perf_counter(), len(embedding.keys)
        steps = -(-(total - done) // settings.batch_size)
        for part in embedding.parts(done, lambda loader: Watched(loader, steps, "embed")):
            parts.add(part)
        speed = (total - done) / (time.perf_counter() - start)
        parts.finish()
    before = f", {done} of them before" if done else ""
    say(f"{total} images in {output}{before}; {speed:.1f} images/s")

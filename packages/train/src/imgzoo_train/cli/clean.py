"""`imgzoo clean`."""

from __future__ import annotations

from pathlib import Path

import click

from imgzoo.cli.output import say, without_gc


@click.command("clean")
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path), help="folder, or .safetensors file, to write")
@click.option("--average", default="", help="take this average of the checkpoint, such as ema")
@click.option("--dtype", type=click.Choice(["float32", "float16", "bfloat16"]), help="precision of the written weights")
def command(path: Path, output: Path, average: str, dtype: str | None) -> None:
    """Reduce the checkpoint at PATH to weights that can be shared: no optimizer, no run state."""
    with without_gc():
        import torch

        from imgzoo_train.models.averaging import load_weights, write_weights

    loaded = load_weights(path, average)
    target = write_weights(loaded.weights, loaded.template, output, getattr(torch, dtype) if dtype else None)
    file = target if target.is_file() else target / "model.safetensors"
    say(f"{file}: {file.stat().st_size / 2**20:.1f} MiB")

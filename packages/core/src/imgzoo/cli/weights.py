"""`imgzoo weights`: pin weights by hash, bundle them for machines without network, verify and convert them."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .output import say, say_text

PATH = click.Path(path_type=Path)


@click.group("weights")
def command() -> None:
    """Lock, bundle, verify and convert weights."""


@command.command("lock")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("-o", "--output", type=PATH, default="weights.lock.json", show_default=True, help="Where to write it.")
def lock_command(names: tuple[str, ...], output: Path) -> None:
    """Write where the weights of each NAME[.TAG] are, with sha256, size and license."""
    from imgzoo.loading.bundle import lock
    from imgzoo.loading.disk import check_end, write_text

    check_end(output, ".json")
    index = lock(names)
    write_text(output, json.dumps(index, indent=1) + "\n")
    say(f"{output}: {len(index['weights'])} weight files")


@command.command("bundle")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@click.option("-o", "--output", type=PATH, required=True, help="The folder to make.")
def bundle_command(names: tuple[str, ...], output: Path) -> None:
    """Copy the weights of each NAME[.TAG] into a folder; IMGZOO_BUNDLE=FOLDER then needs no network.

    NAME may be a lock file: its weights are bundled if their hashes are still those recorded.
    """
    from imgzoo.loading.bundle import bundle, locked_names

    index = bundle([name for each in names for name in locked_names(each)], output)
    size = sum(row["size"] for row in index["weights"].values())
    say(f"{output}: {len(index['weights'])} weight files, {size / 1e6:.1f} MB")


@command.command("verify")
@click.argument("folder", type=PATH)
@click.pass_context
def verify_command(ctx: click.Context, folder: Path) -> None:
    """Check every file of a bundle against its recorded hash; exit code 1 if one is missing or damaged."""
    from imgzoo.loading.bundle import verify

    problems = verify(folder)
    for problem in problems:
        say(problem)
    if not problems:
        say(f"{folder}: every file is as it was recorded")
    ctx.exit(1 if problems else 0)


@command.command("convert")
@click.argument("source", type=PATH)
@click.option("--model", "name", required=True, help="The architecture the weights are for.")
@click.option("-o", "--output", type=PATH, required=True, help="The folder to write: config.json, model.safetensors.")
@click.option("--num-classes", type=int, help="Outputs of the stored classifier, if not the architecture's own.")
def convert_command(source: Path, name: str, output: Path, num_classes: int | None) -> None:
    """Turn a weight file of another project or format into a folder that any imgzoo command takes."""
    from imgzoo import create_model, save_model

    model = create_model(name, pretrained=source, num_classes=num_classes)
    save_model(model, output)
    say_text(model.load_report)
    say(f"{output} is ready: imgzoo predict PHOTO --model {output}")

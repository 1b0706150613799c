"""`imgzoo explain`."""

from __future__ import annotations

from pathlib import Path

import click

from imgzoo.cli.output import say, without_gc

from .options import DEVICE, IMG_SIZE, MAX_PIXELS, RANGE, Text
from .options import pretrained as of_name

METHODS = ("gradcam", "rollout", "integrated-gradients", "occlusion")
"""The names of `explaining.METHODS`, which need torch."""


@click.command("explain")
@click.argument("image", type=click.Path(path_type=Path))
@click.option("--model", "name", required=True, help="model name, saved folder, run folder or deployed file")
@of_name("weights of a model given by name")
@click.option("--method", required=True, type=click.Choice(METHODS), help="how; occlusion needs nothing of the model")
@click.option("--class", "wanted", type=Text(), help="class to explain, by name or number  [default: the answer]")
@IMG_SIZE
@RANGE
@MAX_PIXELS
@DEVICE
@click.option(
    "--output", default=".", type=click.Path(path_type=Path), help="a .png or .html, each beside the other, or a folder"
)
def command(
    image: Path,
    name: str,
    pretrained: str,
    method: str,
    wanted: str | None,
    img_size: int | None,
    range: str | None,
    max_pixels: int | None,
    device: str,
    output: Path,
) -> None:
    """Show which pixels of IMAGE speak for a class: an overlay as PNG, and a page with the answer."""
    from imgzoo.errors import UsageError

    with without_gc():
        from imgzoo_train.explaining.explanation import explain, files_for, write
        from imgzoo_train.models.prediction import Predictor
        from imgzoo_train.ranks.world import pick_device

    if not image.is_file():
        raise UsageError(f"{image} is a folder: give an image in it" if image.is_dir() else f"there is no file {image}")
    if wanted is not None and method == "rollout":
        raise UsageError("rollout is the same for every class: leave --class out, or use --method gradcam")
    files = files_for(output, image, method)
    options = {"img_size": img_size, "range": range, "max_pixels": max_pixels}
    predictor = Predictor.open(name, pretrained, device=pick_device(device), sequence=0, **options)
    explanation = explain(predictor, image, method, wanted)
    write(explanation, files)
    if not explanation.relevance.any():
        say(f"no pixel speaks for '{explanation.label}' by {method}", err=True)
    say(f"'{explanation.label}' by {method} in {files[0]} and {files[1]}")

"""`imgzoo search`."""

from __future__ import annotations

from pathlib import Path

import click

from imgzoo.cli.output import print_json, without_gc
from imgzoo.errors import UsageError

from .options import DEVICE, MAX_PIXELS, RANGE, pretrained


@click.command("search")
@click.argument("query", type=click.Path(path_type=Path))
@click.option("--features", required=True, type=click.Path(path_type=Path), help="a file of imgzoo embed --kind pooled")
@click.option("--model", required=True, help="the model of that file: name, saved folder or run folder")
@pretrained("weights of a model given by name")
@click.option("-k", "k", default=10, type=click.IntRange(1), show_default=True, help="images to find")
@click.option("--engine", default="exact", type=click.Choice(["exact", "faiss"]), show_default=True,
              help="exact: all are compared; faiss: its index, where it is installed")  # fmt: skip
@click.option("--sheet", type=click.Path(path_type=Path), help="write a contact sheet: the query and what was found")
@RANGE
@MAX_PIXELS
@DEVICE
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def command(
    query: Path,
    features: Path,
    model: str,
    pretrained: str,
    k: int,
    engine: str,
    sheet: Path | None,
    range: str | None,
    max_pixels: int | None,
    device: str,
    as_json: bool,
) -> None:
    """Find the images most like the image QUERY, by the cosine of their features."""
    with without_gc():
        from imgzoo_train.features.embedding import Embedder
        from imgzoo_train.features.searching import draw, query_vector, search
        from imgzoo_train.features.store import read_features
        from imgzoo_train.files.storage import check_file
        from imgzoo_train.ranks.world import pick_device
        from imgzoo_train.terminal.tables import show

    check_file(sheet, ".png", ".jpg", ".jpeg", ".webp", option="--sheet")
    if not query.is_file():
        raise UsageError(f"there is no image {query}")
    if sheet is not None and sheet.exists() and sheet.samefile(query):
        raise UsageError(f"--sheet {sheet} is the image that is looked for; choose another file")
    found = read_features(features)
    found.vectors()
    embedder = Embedder(model, pretrained, device=pick_device(device))
    vector = query_vector(query, found, embedder, features, range=range, max_pixels=max_pixels)
    rows = search(vector, found, k, engine)
    if sheet is not None:
        draw(query, found, rows, sheet)
    if as_json:
        print_json(rows)
    else:
        show(rows, ("key", "cosine", "class"))

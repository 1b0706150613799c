"""`imgzoo probe`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from imgzoo.cli.output import print_json, without_gc
from imgzoo.errors import UsageError

from .options import DEVICE, IMG_SIZE, MAX_PIXELS, PRECISION, RANGE, WORKERS, Listed, batch_size, pretrained


@click.command("probe")
@click.argument("source", required=False)
@click.option("--model", help="model name, saved folder or run folder")
@click.option("--features", nargs=2, type=click.Path(path_type=Path), metavar="TRAIN VALIDATION",
              help="two files of imgzoo embed, in place of SOURCE and --model")  # fmt: skip
@click.option("--train-split", default="train", show_default=True, help="what is learned from")
@click.option("--split", default="validation", show_default=True, help="what is scored")
@pretrained("weights of a model given by name")
@click.option("-k", "k", type=Listed(int),
              help="neighbors that vote  [default: 10,20, as far as there are so many images]")  # fmt: skip
@click.option("-C", "regularization", default="0.0001,0.001,0.01,0.1,1,10,100", type=Listed(float), show_default=True,
              help="inverse strengths of the linear probe's regularization, chosen on a fifth held back")  # fmt: skip
@batch_size(64)
@WORKERS
@IMG_SIZE
@PRECISION
@RANGE
@MAX_PIXELS
@DEVICE
@click.option("--json", "as_json", is_flag=True, help="print JSON")
def command(
    source: str | None,
    model: str | None,
    features: tuple[Path, Path] | None,
    train_split: str,
    split: str,
    k: list[int] | None,
    regularization: list[float],
    device: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Score frozen features by nearest neighbors and by a linear classifier, trained on a split of SOURCE."""
    with without_gc():
        from imgzoo_train.ranks.world import pick_device

    if bool(features) == bool(source) or bool(model) != bool(source):
        raise UsageError("give SOURCE with --model, or --features with two files of imgzoo embed")
    if k is not None and (not k or min(k) < 1):
        raise UsageError("-k takes numbers of neighbors from 1 up, as in -k 10,20")
    if not regularization or not all(0 < c < float("inf") for c in regularization):
        raise UsageError("-C takes numbers above 0, as in -C 0.01,1")
    with without_gc():
        from imgzoo_train.features.embedding import Embedder, Embedding, Settings
        from imgzoo_train.features.probing import check_labels, probe
        from imgzoo_train.features.store import in_memory, read_features
        from imgzoo_train.terminal.tables import show

    place = pick_device(device)
    if features:
        pair = [read_features(path) for path in features]
    else:
        base = Settings(str(source), str(model), **options)
        embedder = Embedder(base.model, base.pretrained, img_size=base.img_size, precision=base.precision, device=place)
        opened = [Embedding(replace(base, split=name), embedder=embedder) for name in (train_split, split)]
        for each in opened:
            check_labels(each.record(), f"{source} {each.settings.split}")
        pair = [in_memory(each, f"embed {each.settings.split}") for each in opened]
    rows = probe(pair[0], pair[1], k and list(dict.fromkeys(k)), regularization, place)
    if as_json:
        print_json(rows)
    else:
        show(rows, ("probe", "k", "C", "top1", "top5"))

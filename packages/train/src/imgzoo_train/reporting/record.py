"""What a run writes down for its report: how the best weights answered, and what the network was given.

Both are files below `report/` of the run folder, bounded whatever the data: so many classes, pairs and pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from imgzoo.errors import ImgzooError
from imgzoo.text import escaped, json_text
from imgzoo_train.files.storage import make_folder, replace_text
from imgzoo_train.scores.evaluation import Evaluation, Seen

FOLDER, EVALUATION, SEEN = "report", "evaluation.json", "seen.json"
CLASSES, PAIRS, LETTERS, NAMED, OUTPUTS = 1000, 20_000, 60, 6, 4
"""Most classes, confused pairs, letters of a name, labels of an image, and values of an image that are kept."""
SIDE, TILE = 224, 128
"""Pixels of a mistake, and of what the network was given."""


def write_evaluation(folder: Path, found: Evaluation, sources: Any, loss: Any, **facts: Any) -> None:
    """Write how the images of validation were answered; `facts` say at which step, by which weights.

    `loss` has the task and the threshold of several labels, as the configuration of the run does.
    """
    told = evaluation(found, sources, loss.task, loss.threshold)
    replace_text(make_folder(folder / FOLDER) / EVALUATION, json_text(told | facts, None))


def write_seen(folder: Path, loader: Any, names: Sequence[str]) -> None:
    """Write a sheet of what the network is given of the first samples."""
    replace_text(make_folder(folder / FOLDER) / SEEN, json_text(pictures(loader, names), None))


def shortened(name: Any) -> str:
    """A name of at most so many letters, of which each can be printed."""
    text = escaped(name, "")
    return text if len(text) <= LETTERS else f"{text[: LETTERS - 1]}…"


def evaluation(found: Evaluation, sources: Any, task: str, threshold: float = 0.5) -> dict[str, Any]:
    """The scores of every class, confusion, calibration, mistakes and points of an evaluation as plain values."""
    labels = labels_of(sources)
    told: dict[str, Any] = {"task": task, "metrics": found.metrics, "outputs": len(labels)}
    if task != "regression":
        rates = found.scores.per_class()
        told |= classes_of(found.scores, rates, labels, "recall" if task == "classification" else "ap")
    if task == "classification":
        told["bins"] = found.scores.bins.tolist()
    for name in ("worst", "sure"):
        told[name] = [sample(each, sources, labels, task, threshold) for each in getattr(found, name)]
    if found.some:
        pairs = [list(zip(each.target, each.output)) for each in found.some]
        told["points"] = [
            {"name": label, "true": [each[i][0] for each in pairs], "answer": [each[i][1] for each in pairs]}
            for i, label in enumerate(labels[:OUTPUTS])
        ]
    return told


def labels_of(sources: Any) -> list[str]:
    """A short text for each output that is scored."""
    names, align = [shortened(name) for name in sources.names], sources.align
    if align.columns is not None and names:
        names = [names[place] for place in align.columns.tolist()]
    return names if len(names) == align.classes else [str(number) for number in range(align.classes)]


def classes_of(scores: Any, rates: list[dict[str, float]], labels: Sequence[str], key: str) -> dict[str, Any]:
    """Names and rates of classes; of too many those with the lowest scores, and how they are confused."""
    order = sorted(range(len(rates)), key=lambda place: (rates[place]["n"] == 0, _low(rates[place][key])))
    kept = sorted(order[:CLASSES])
    told: dict[str, Any] = {
        "labels": [labels[place] for place in kept],
        "rates": {name: [round(rates[place][name], 2) for place in kept] for name in rates[0]},
    }
    if hasattr(scores, "confusion"):
        matrix = scores.confusion.cpu()[kept][:, kept].long()
        rows, columns = matrix.nonzero(as_tuple=True)
        counts = matrix[rows, columns]
        weight = torch.where(rows == columns, counts.max() + 1 if len(counts) else 0, counts)
        first = weight.argsort(descending=True, stable=True)[: PAIRS + len(kept)]
        told["confusion"] = [part[first].tolist() for part in (rows, columns, counts)]
    return told


def _low(value: float) -> float:
    return value if value == value else 101.0  # average precision of a class without an image


def sample(each: Seen, sources: Any, labels: Sequence[str], task: str, threshold: float) -> dict[str, Any]:
    """An image, its name, what is right and what was answered: pairs of a label and a probability, or of values."""
    right, given = answers(each, labels, task, threshold)
    return {
        "name": name_of(sources.validation, each.index),
        "image": picture(sources.validation, each.index),
        "loss": each.loss,
        "right": right,
        "given": given,
    }


def answers(each: Seen, labels: Sequence[str], task: str, threshold: float) -> tuple[list[Any], list[Any]]:
    """What is right, and what was answered, as pairs (text, probability or None), the most probable first."""
    if task == "regression":
        right, given = ([[f"{value:.4g}", None] for value in row[:OUTPUTS]] for row in (each.target, each.output))
        return right, given
    output = torch.tensor(each.output, device="cpu")
    if task == "classification":
        chances, right, said = output.softmax(0).tolist(), [int(each.target[0])], [int(output.argmax())]
    else:
        chances = output.sigmoid().tolist()
        right = [place for place, yes in enumerate(each.target) if yes > 0.5]
        said = [place for place, chance in enumerate(chances) if chance > threshold]

    def named(places: list[int]) -> list[Any]:
        first = sorted(places, key=lambda place: -chances[place])[:NAMED]
        return [[labels[place] if place < len(labels) else str(place), round(chances[place], 4)] for place in first]

    return named(right), named(said)


def name_of(source: Any, index: int) -> str:
    """What a source calls a sample, the end of it where it is long."""
    try:
        name = escaped(source.key(index), "")
    except (ImgzooError, OSError):
        return f"sample {index}"
    return name if len(name) <= LETTERS else f"…{name[1 - LETTERS :]}"


def picture(source: Any, index: int, side: int = SIDE) -> str:
    """A sample for a page; empty when it cannot be read."""
    from imgzoo_data.pictures import data_uri, thumbnail

    image = thumbnail(source, index, side)
    return data_uri(image) if image is not None else ""


def pictures(loader: Any, names: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of what the network is given of a sample in successive epochs, side by side in one picture."""
    from PIL import Image

    from imgzoo_data.pictures import as_picture, data_uri, seen

    rows = []
    for index, views in seen(loader):
        tiles = [as_picture(view) for view in views]
        for tile in tiles:
            tile.thumbnail((TILE, TILE))
        height = max(tile.height for tile in tiles)
        strip = Image.new("RGBA", (sum(tile.width for tile in tiles) + 4 * (len(tiles) - 1), height))
        left = 0
        for tile in tiles:
            strip.paste(tile, (left, 0))
            left += tile.width + 4
        texts = _texts(loader.source[index].target, names, getattr(loader.source, "numeric", False))
        rows.append({"name": name_of(loader.source, index), "target": ", ".join(texts),
                     "image": data_uri(strip, 48 * 1024)})  # fmt: skip
    return rows


def _texts(target: Any, names: Sequence[str], numeric: bool) -> list[str]:
    """The labels of a sample: its classes, or its `numeric` values."""
    import numpy as np

    if numeric:
        values = np.atleast_1d(target).tolist()
        called = [f"{shortened(name)} " for name in names] if len(names) == len(values) else [""] * len(values)
        return [f"{name}{value:.4g}" for name, value in zip(called, values[:NAMED])]
    placed = np.flatnonzero(target).tolist()[:NAMED] if isinstance(target, np.ndarray) else [target]
    return [shortened(names[at]) if names and 0 <= at < len(names) else f"{at:g}" for at in placed]

"""Published costs and scores of models, read from beside the catalog. No torch."""

from __future__ import annotations

import os
from typing import Any

from .read import package_folders, read_json, tell


def read_results(package: str, family: str) -> dict[str, Any]:
    """Published costs and scores of a family, by model name; empty when the package has none.

    A row is `{"params": n, "cost": [[size, GMACs, million activations]], "weights": {tag: {"imagenet":
    [top1, top5, size, crop, interpolation], "real": ..., "v2": ..., "a": ..., "r": ..., "sketch": ...}}}`.
    """
    try:
        paths = [os.path.join(each, "catalog", "results", f"{family}.json") for each in package_folders(package)]
    except (ImportError, ValueError):  # a plugin object that was registered by hand has no package
        return {}
    path = next(filter(os.path.exists, paths), None)
    if path is None:
        return {}
    try:
        return {name: row for name, row in read_json(path).items() if _are_results(row)}
    except (AttributeError, ValueError) as error:
        tell("imgzoo: published results cannot be read (%s). Run 'imgzoo doctor'.", error)
        return {}


def _are_results(row: Any) -> bool:
    """Whether figures have the shape that `read_results` describes."""
    try:
        figures = [row.get("params", 0)]
        for size, gmacs, macts in row.get("cost", ()):
            figures += [size, gmacs, macts]
        for scores in row.get("weights", {}).values():
            for score in scores.values():
                top1, top5 = score[:2]
                figures += [top1, top5]
    except (AttributeError, TypeError, ValueError):
        return False
    return all(isinstance(figure, int | float) for figure in figures)

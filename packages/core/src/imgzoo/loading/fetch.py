"""Bring the weight file of a source to this machine."""

from __future__ import annotations

import os
from pathlib import Path

from imgzoo.discovery.manager import manager
from imgzoo.errors import WeightsError
from imgzoo.native import cache_dir

from .index import bundled_file
from .places import download, folder_file, hub_weights, package_file
from .source import Source


def fetch_weights(source: Source) -> Path:
    """The local path of a source's weight file, downloaded when it must be."""
    where = source.weights_from
    if where == "tag":
        return _fetch_tag(source)
    return fetch_location(where, source)


def fetch_location(where: str, source: Source) -> Path:
    """The weight file at a location outside the catalog."""
    if where.startswith("package:"):
        return package_file(where.removeprefix("package:"))
    if where.startswith("hf-hub:"):
        return hub_weights(where.removeprefix("hf-hub:"))
    path = Path(where.removeprefix("local-dir:"))
    if path.is_dir():
        if (path / "bundle.json").is_file():
            return bundled_file(path, source)
        return folder_file(path)
    if path.is_file():
        return path
    if "://" in where:
        found = manager().hooks.hook.imgzoo_fetch(uri=where, cache_dir=cache_dir())
        return Path(found) if found is not None else download(where)
    raise WeightsError(f"there is no weight file or folder '{where}'")


def _fetch_tag(source: Source) -> Path:
    """The file of a catalog row: from the bundle that `IMGZOO_BUNDLE` names, the hub, or the row's URL."""
    weights, name = source.weights, source.spec.name
    if weights is None:
        raise WeightsError(f"{name} has no published weights")
    bundle = os.environ.get("IMGZOO_BUNDLE")
    if bundle:
        return bundled_file(Path(bundle), source)
    if weights.hf_hub_id:
        return hub_weights(weights.hf_hub_id, weights.hf_hub_filename)
    if weights.url:
        return download(weights.url, weights.sha256)
    raise WeightsError(f"the weights '{name}.{weights.tag}' are published nowhere")

"""Bring the weight file of a source to this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

from imgzoo.discovery.manager import manager
from imgzoo.errors import WeightsError
from imgzoo.native import cache_dir
from imgzoo.text import safe, told

from .disk import write_text
from .index import bundled_file, verified
from .places import download, folder_file, hub_weights, offline, package_file, place_of
from .source import ModelSource


def fetch_weights(source: ModelSource) -> Path:
    """The local path of a source's weight file, downloaded when it must be."""
    where = source.weights_from
    if where == "tag":
        return _fetch_tag(source)
    return fetch_location(where, source)


def fetch_location(where: str, source: ModelSource) -> Path:
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
        return fetch_url(where)
    raise WeightsError(f"there is no weight file or folder '{where}'")


def _fetch_tag(source: ModelSource) -> Path:
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
        return fetch_url(weights.url, weights.sha256)
    raise WeightsError(f"the weights '{name}.{weights.tag}' are published nowhere")


def _file(found: Any) -> str:
    """The path of a file that a plugin names; empty where there is none."""
    path: str = cast(Any, os).fspath(found) if isinstance(found, str | os.PathLike) else ""
    return os.path.abspath(path) if os.path.isfile(path) else ""


def fetch_url(url: str, sha256: str = "") -> Path:
    """The file at an address, from the plugin that fetches such addresses, else downloaded; a given hash is verified.

    Raises `OfflineError` when downloads are off and nothing brought it before, and `WeightsError` naming the plugin
    that fails.
    """
    note = place_of(url).with_name("fetched.txt")
    if offline():
        before = Path(note.read_text("utf-8")) if note.is_file() else None
        return verified(before, sha256) if before is not None and before.is_file() else download(url, sha256)
    for plugin, found, error in manager().each("imgzoo_fetch", uri=url, cache_dir=cache_dir()):
        if error is not None:
            raise WeightsError(f"plugin {plugin.title} could not fetch '{url}': {safe(told(error))}") from error
        if found is None:
            continue
        place = _file(found)
        if not place:
            raise WeightsError(f"plugin {plugin.title} says that '{url}' is at {found!r}, where there is no file")
        note.parent.mkdir(parents=True, exist_ok=True)
        write_text(note, place)
        return verified(Path(place), sha256)
    return download(url, sha256)

"""Make lock files and bundles: weights pinned by hash, and a folder that holds them for machines without network."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from imgzoo.errors import WeightsError

from .disk import replacing, sha256_of, write_text
from .fetch import fetch_weights
from .index import INDEX, VERSION, read_index, verified
from .policy import check_license
from .source import locate


def lock(names: Iterable[str]) -> dict[str, Any]:
    """Rows of a lock file by `plugin/name.tag`: where the weights of each name are, their sha256, size and license."""
    rows = {}
    for name in names:
        source = locate(name, True)
        weights = source.weights
        if weights is None:
            raise WeightsError(f"{name} has no published weights to lock")
        check_license(source.license, name)
        path = fetch_weights(source)
        where = [f"hf-hub:{weights.hf_hub_id}"] if weights.hf_hub_id else []
        where += [weights.url] if weights.url else []
        rows[source.full_name] = {
            "sources": where,
            "file": path.name,
            "sha256": sha256_of(path),
            "size": path.stat().st_size,
            "license": source.license,
        }
    return {"version": VERSION, "weights": rows}


def locked_names(name: str) -> list[str]:
    """The `name.tag`s of a lock file, their hashes checked; any other name stands for itself."""
    if not name.endswith(".json"):
        return [name]
    rows = read_index(Path(name).parent, Path(name).name)
    for each, row in rows.items():
        verified(fetch_weights(locate(each, True)), row["sha256"])
    return list(rows)


def bundle(names: Iterable[str], folder: Path) -> dict[str, Any]:
    """Copy the weights of each `name[.tag]` into `folder` with an index of hashes; returns the index."""
    index = lock(names)
    folder.mkdir(parents=True, exist_ok=True)
    for name, row in index["weights"].items():
        path = fetch_weights(locate(name, True))
        row["file"] = f"{name.replace('/', '--')}{path.suffix}"
        with replacing(folder / row["file"]) as part:
            shutil.copyfile(path, part)
    write_text(folder / INDEX, json.dumps(index, indent=1) + "\n")
    return index


def verify(folder: Path) -> list[str]:
    """Check every file of a bundle; returns a sentence for each that is missing or damaged."""
    problems: list[str] = []
    for row in read_index(folder).values():
        try:
            verified(folder / row["file"], row["sha256"])
        except WeightsError as error:
            problems.append(str(error))
    return problems

"""Nearest images of a query among embedded ones, by cosine."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from imgzoo.errors import DataError, MissingDependencyError, UsageError
from imgzoo_train.files.storage import replace_file

from .embedding import Embedder, same_model
from .store import Features

Row = dict[str, Any]


def query_vector(
    path: Path,
    found: Features,
    embedder: Embedder,
    name: Path,
    *,
    range: Any = None,
    max_pixels: int | None = None,
) -> np.ndarray:
    """(D,) vector of an image, prepared as those of the file `name` were, but for a `range` of values of its own.

    Raises `UsageError` for another model's, `DataError` for an image that cannot be read.
    """
    from imgzoo_data import create_transform, resolve_data_config

    same_model(found.record, embedder, name)
    config = resolve_data_config(found.record["preprocessing"], range=range)
    transform = create_transform(config, training=False, max_pixels=max_pixels)
    return embedder(transform(path.read_bytes())[None])["features"][0]


def search(query: np.ndarray, found: Features, k: int, engine: str = "exact") -> list[Row]:
    """`{"key", "row", "cosine"}`, with `class` where there is one, of the k nearest, the nearest first."""
    cosines, places = nearest_rows(found.vectors(), query[None], k, engine)
    classes = found.record["classes"]
    rows: list[Row] = []
    for cosine, place in zip(cosines[0].tolist(), places[0].tolist()):
        row: Row = {"key": found.keys[place], "row": place, "cosine": cosine}
        if classes and found.targets.ndim == 1 and found.targets[place] >= 0:
            row["class"] = classes[int(found.targets[place])]
        rows.append(row)
    return rows


def nearest_rows(vectors: np.ndarray, queries: np.ndarray, k: int, engine: str = "exact") -> tuple[Any, Any]:
    """(Q, k) cosines, largest first, and the rows of `vectors` (N, D) they are of; of equal ones the first row.

    Raises `UsageError` for a k above N, `MissingDependencyError` where faiss is asked for and not there.
    """
    if k > len(vectors):
        raise UsageError(f"-k {k} asks for more images than the {len(vectors)} there are")
    bank, queries = normalized(vectors), normalized(queries)
    if engine == "faiss":
        try:
            import faiss  # type: ignore[import-not-found]
        except ImportError as error:
            raise MissingDependencyError("--engine faiss needs faiss: pip install faiss-cpu") from error
        index = faiss.IndexFlatIP(bank.shape[1])
        index.add(bank)
        return index.search(queries, k)
    cosines = queries @ bank.T
    places = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(cosines, places, 1), places


def normalized(vectors: np.ndarray) -> np.ndarray:
    """(N, D) of length 1; a vector of zeros stays."""
    vectors = np.ascontiguousarray(vectors, np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def draw(query: Path, found: Features, rows: list[Row], path: Path, side: int = 160) -> None:
    """Write the query and the images found, with their cosines, as a picture.

    Raises `DataError` where their source is another than it was, `StorageError` where the file cannot be written.
    """
    from PIL import Image, ImageDraw

    from imgzoo_data import create_dataset, create_transform, resolve_data_config
    from imgzoo_data.pictures import as_picture

    record = found.record
    source = create_dataset(record["source"], record["split"], task=record["task"])
    config = resolve_data_config(record["preprocessing"], img_size=side, crop_pct=1.0)
    show = create_transform(config, training=False)
    for row in rows:
        if row["row"] >= len(source) or source.key(row["row"]) != row["key"]:
            raise DataError(
                f"{record['source']} is not what was embedded: its image {row['row']} is not '{row['key']}'"
            )
    tiles = [("query", query.read_bytes())]
    tiles += [(f"{row['cosine']:.3f} {row['key']}", source[row["row"]].data) for row in rows]
    columns, step, text = min(len(tiles), 6), side + 4, 14
    picture = Image.new("RGB", (columns * step + 4, -(-len(tiles) // columns) * (step + text) + 4), "white")
    pen = ImageDraw.Draw(picture)
    for place, (caption, data) in enumerate(tiles):
        left, top = 4 + place % columns * step, 4 + place // columns * (step + text)
        picture.paste(as_picture(show.pixels(data).numpy()), (left, top + text))
        pen.text((left, top), caption.encode("ascii", "replace").decode()[: side // 6], "black")
    data = io.BytesIO()
    picture.save(data, Image.registered_extensions()[path.suffix.lower()])
    replace_file(path, data.getvalue())

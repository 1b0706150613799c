"""What a network's published weights pin down: its keys, their order and shapes, its counts, its levels."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class Facts(NamedTuple):
    """One row of `tests/facts/FAMILY.json`."""

    params: int
    buffers: int
    """Elements of all buffers, persistent or not."""
    state_digest: str
    """Of the names and shapes of the state dict, sorted."""
    order_digest: str
    """Of the same in their order."""
    state_tensors: int
    num_features: int
    head_hidden_size: int
    features: list[list[Any]]
    """Channels, reduction and module of each level."""


def facts_of(model: Any) -> Facts:
    """The facts of an `ImageModel`; on the meta device they cost no memory."""
    shapes = [[key, list(value.shape)] for key, value in model.state_dict().items()]
    return Facts(
        sum(p.numel() for p in model.parameters()),
        sum(b.numel() for b in model.buffers()),
        _digest(sorted(shapes)),
        _digest(shapes),
        len(shapes),
        model.num_features,
        model.head_hidden_size,
        [list(level) for level in model.feature_info.levels],
    )


def format_facts(rows: Mapping[str, Iterable[Any]]) -> str:
    """The text of `tests/facts/FAMILY.json`, one model a line."""
    lines = [f"{json.dumps(name)}: {json.dumps([*row])}" for name, row in rows.items()]
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]

"""What a catalog file consists of: its keys, the cells of a weight row, the rows that are like others. No torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from imgzoo.specs import WeightSpec

Row = Mapping[str, Any]
Cells = dict[str, Any]

NORMALIZE: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "inception": ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    "zero": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "dpn": (
        (124 / 255, 117 / 255, 104 / 255),
        (1 / (0.0167 * 255), 1 / (0.0167 * 255), 1 / (0.0167 * 255)),
    ),
}
"""Named pairs of channel mean and standard deviation."""

FAMILY_KEYS = ("family", "target", "paper", "capabilities", "defaults", "spelling", "field", "aliases", "models")
MODEL_KEYS = ("like", "target", "paper", "capabilities", "aliases", "defaults", "weights")
OWN_KEYS = frozenset(MODEL_KEYS) - {"like", "weights"}
CELLS = frozenset(WeightSpec._fields) - {"tag", "arch", "plugin"}
DEFAULTS: Cells = WeightSpec._field_defaults
SIZES = ("input_size", "test_input_size", "min_input_size")


def expanded(models: Mapping[str, Row]) -> Iterator[tuple[str, Row]]:
    """Each row with the options of the row before it that it is `like`; its other keys are its own."""
    options: dict[str, Row] = {}
    for name, row in models.items():
        if "like" in row:
            if row["like"] not in options:
                raise ValueError(f"{name} is like '{row['like']}', which is no row before it")
            row = {**options[row["like"]], **{key: value for key, value in row.items() if key != "like"}}
        options[name] = {key: value for key, value in row.items() if key not in MODEL_KEYS}
        yield name, row

"""The input of networks that take images of any shape as a sequence of patches (NaFlex)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from imgzoo.errors import UsageError

FIELD = ("patches", "patch_coord", "patch_valid")
"""What the field calls the three parts in a dict."""


class Patches(NamedTuple):
    """A batch of images as patches, each row padded to the longest.

    `patches` are (B, N, p * p * C), pixels row by row with channels last, or (B, N, p, p, C); `coordinates` (B, N, 2)
    are row and column in the image's own grid; `valid` (B, N) is False where a row was filled up.
    """

    patches: Tensor
    coordinates: Tensor
    valid: Tensor

    @classmethod
    def of(cls, record: Any) -> Patches:
        """`Patches` from themselves, from three tensors, or from a dict with the field's names."""
        if isinstance(record, Mapping):
            missing = [key for key in FIELD if key not in record]
            if missing:
                raise UsageError(f"a record of patches has the tensors {', '.join(FIELD)}; {missing[0]} is missing")
            record = [record[key] for key in FIELD]
        if not isinstance(record, (list, tuple)) or len(record) != 3:
            raise UsageError("patches come as three tensors: patches, coordinates and which of them are valid")
        patches, coordinates, valid = record
        if not patches.shape[:2] == coordinates.shape[:2] == valid.shape or coordinates.shape[2:] != (2,):
            shapes = ", ".join(str(tuple(part.shape)) for part in record)
            raise UsageError(f"patches (B, N, ...), coordinates (B, N, 2) and valid (B, N) do not agree: {shapes}")
        return cls(patches, coordinates, valid)

"""Swin weights of the original repository: a stage ends with its merging, tables are stored, one flat classifier."""

import re
from typing import Any

from imgzoo.loading.convert import Format, State

RULES = [(r".*\.(?:attn_mask|relative_position_index)$", ""), (r"^head\.(weight|bias)$", r"head.fc.\1")]


def shift_merging(state: State, model: Any) -> State:
    """`layers.0.downsample` -> `layers.1.downsample`: merging opens our next stage."""
    return {re.sub(r"^layers\.(\d+)\.downsample", _next, key): value for key, value in state.items()}


def _next(found: re.Match[str]) -> str:
    return f"layers.{int(found[1]) + 1}.downsample"


FORMATS = [Format("original", r"^layers\.0\.downsample\.|\.relative_position_index$", RULES, shift_merging)]

"""Layer groups: which depth each parameter has, for layer-wise learning-rate decay."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

Matcher = Mapping[str, Any]
"""`{"stem": regex, "blocks": regex | [(regex, suffix | None), ...]}`; the regexes' numbers order the blocks.

A suffix is put behind the numbers; `(99999,)` joins the group before it, as a final norm joins the last block.
"""

LAST = (float("inf"),)
JOINS = 99999


def _rules(matcher: Matcher) -> list[tuple[int, re.Pattern[str], tuple[int, ...] | None]]:
    rules: list[tuple[int, re.Pattern[str], tuple[int, ...] | None]] = []
    for rank, (_, patterns) in enumerate(matcher.items()):
        rows: Sequence[Any] = [(patterns, None)] if isinstance(patterns, str) else patterns
        rules += [(rank, re.compile(pattern), suffix) for pattern, suffix in rows]
    return rules


def layer_ids(model: nn.Module, matcher: Matcher) -> dict[str, int]:
    """Number the layers from 0 (stem) upward: parameter name -> layer; what no rule matches is the head, last."""
    rules = _rules(matcher)
    keys: dict[str, tuple[float, ...]] = {}
    for name, _ in model.named_parameters():
        keys[name] = LAST
        for rank, pattern, suffix in rules:
            found = pattern.match(name)
            if found:
                numbers = tuple(float(g) for g in found.groups() if g is not None)
                keys[name] = (float(rank), *numbers, *(suffix or ()))
                break
    numbering: dict[tuple[float, ...], int] = {}
    current = -1
    for key in sorted(set(keys.values())):
        if key[-1] != JOINS or current < 0:
            current += 1
        numbering[key] = current
    return {name: numbering[key] for name, key in keys.items()}

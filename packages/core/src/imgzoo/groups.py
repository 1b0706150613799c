"""Layer groups: which depth each parameter has, for layer-wise learning-rate decay."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from torch import nn

Matcher = Mapping[str, Any] | Callable[[str], int]
"""`{"stem": regex, "blocks": regex | [(regex, suffix | None), ...]}`; the regexes' numbers order the blocks.

A suffix is put behind the numbers; `(99999,)` joins the group before it, as a final norm joins the last block. A
function from a parameter's name to its depth serves too.
"""

LAST = (float("inf"),)
JOINS = 99999


def _depth_by(matcher: Matcher) -> Callable[[str], tuple[float, ...]]:
    """A matcher as a function from a name to numbers that sort by depth."""
    if callable(matcher):
        return lambda name: (float(matcher(name)),)
    rules: list[tuple[int, re.Pattern[str], tuple[int, ...]]] = []
    for rank, patterns in enumerate(matcher.values()):
        rows: Sequence[Any] = [patterns] if isinstance(patterns, str) else patterns
        for row in rows:
            pattern, suffix = (row, None) if isinstance(row, str) else row
            rules.append((rank, re.compile(pattern), tuple(suffix or ())))

    def depth(name: str) -> tuple[float, ...]:
        for rank, pattern, suffix in rules:
            found = pattern.match(name)
            if found:
                return (float(rank), *(float(g) for g in found.groups() if g is not None), *suffix)
        return LAST

    return depth


def layer_ids(model: nn.Module | Iterable[str], matcher: Matcher) -> dict[str, int]:
    """Number the layers of a model, or of names, from 0 (stem) upward: parameter name -> layer.

    What no rule matches is the head, last.
    """
    names = (name for name, _ in model.named_parameters()) if isinstance(model, nn.Module) else model
    depth = _depth_by(matcher)
    keys = {name: depth(name) for name in names}
    numbering: dict[tuple[float, ...], int] = {}
    current = -1
    for key in sorted(set(keys.values())):
        if key[-1] != JOINS or current < 0:
            current += 1
        numbering[key] = current
    return {name: numbering[key] for name, key in keys.items()}

"""RegNet weights as torchvision publishes them: `trunk_output.block1.block1-0.f.a.0.weight`."""

import re
from typing import Any

from imgzoo.loading.convert import Format, State

RULES = [
    (r"^stem\.0\.", "stem.conv."),
    (r"^stem\.1\.", "stem.bn."),
    (r"^fc\.", "head.fc."),
    (r"^trunk_output\.block\d+\.block(\d+)-(\d+)\.", r"s\1.b\2."),
    (r"\.proj\.0\.", ".downsample.conv."),
    (r"\.proj\.1\.", ".downsample.bn."),
    (r"\.f\.se\.", ".se."),
    (r"\.f\.a\.", ".conv1."),
    (r"\.f\.b\.", ".conv2."),
    (r"\.f\.c\.", ".conv3."),
    (r"\.(conv\d)\.0\.", r".\1.conv."),
    (r"\.(conv\d)\.1\.", r".\1.bn."),
]


def count_from_one(state: State, model: Any) -> State:
    """`s1.b0` -> `s1.b1`: our blocks count from one."""
    return {re.sub(r"^(s\d+)\.b(\d+)", _next, key): value for key, value in state.items()}


def _next(found: re.Match[str]) -> str:
    return f"{found[1]}.b{int(found[2]) + 1}"


FORMATS = [Format("torchvision", r"^trunk_output\.", RULES, count_from_one)]

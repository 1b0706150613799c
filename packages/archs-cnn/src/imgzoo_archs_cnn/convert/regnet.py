"""RegNet weights as torchvision publishes them: `trunk_output.block1.block1-0.f.a.0.weight`."""

import re

from imgzoo.loading.convert import Format, Rule


def _from_one(found: re.Match[str]) -> str:
    """Our blocks count from one: `s1.b0` -> `s1.b1`."""
    return f"{found[1]}.b{int(found[2]) + 1}"


RULES: list[Rule] = [
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
    (r"^(s\d+)\.b(\d+)", _from_one),
]
FORMATS = [Format("torchvision", r"^trunk_output\.", RULES)]

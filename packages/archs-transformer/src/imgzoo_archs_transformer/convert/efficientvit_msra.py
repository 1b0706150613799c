"""EfficientViT weights of the original repository: three stages by name, each but the first with its merging in front
of the blocks."""

import re
from typing import Any

from imgzoo.loading.convert import Format, State

RULES = [
    *((rf"^patch_embed\.{2 * i}\.", f"patch_embed.conv{i + 1}.") for i in range(4)),
    (r"\.c\.weight$", ".conv.weight"),
    (r"^head\.l\.", "head.linear."),
]
MERGING = ("res1", "patchmerge", "res2")


def to_stages(state: State, model: Any) -> State:
    """`blocks2.1` -> `stages.1.downsample.patchmerge`, `blocks2.3` -> `stages.1.blocks.0`."""
    return {re.sub(r"^blocks(\d)\.(\d+)\.", _place, key): value for key, value in state.items()}


def _place(found: re.Match[str]) -> str:
    stage, index = int(found[1]) - 1, int(found[2])
    if stage == 0:
        return f"stages.0.blocks.{index}."
    return f"stages.{stage}." + (f"downsample.{MERGING[index]}." if index < 3 else f"blocks.{index - 3}.")


FORMATS = [Format("original", r"^blocks1\.", RULES, to_stages)]

"""BiT weights as google-research/big_transfer publishes them: `resnet/block1/unit01/a/standardized_conv2d/kernel`."""

import re
from typing import Any

from imgzoo.loading.convert import Format, State

RULES = [
    (r"^resnet/", ""),
    (r"standardized_conv2d/", "conv2d/"),
    (r"^root_block/conv2d/", "stem.conv."),
    (r"^head/conv2d/", "head.fc."),
    (r"^group_norm/", "norm."),
    (r"^block(\d+)/unit(\d+)/", r"stages.\1.blocks.\2."),
    (r"\.[abc]/proj/conv2d/", ".downsample.conv."),
    (r"\.a/", ".1/"),
    (r"\.b/", ".2/"),
    (r"\.c/", ".3/"),
    (r"\.(\d)/conv2d/", r".conv\1."),
    (r"\.(\d)/group_norm/", r".norm\1."),
    (r"\.(kernel|gamma)$", ".weight"),
    (r"\.beta$", ".bias"),
]


def finish(state: State, model: Any) -> State:
    """Kernels come (h, w, in, out); stages and blocks count from one, ours from zero."""
    ours: State = {}
    for key, value in state.items():
        key = re.sub(r"^stages\.(\d+)\.blocks\.(\d+)", _before, key)
        ours[key] = value.permute(3, 2, 0, 1).contiguous() if value.ndim == 4 else value
    return ours


def _before(found: re.Match[str]) -> str:
    return f"stages.{int(found[1]) - 1}.blocks.{int(found[2]) - 1}"


FORMATS = [Format("big-transfer", r"standardized_conv2d/", RULES, finish)]

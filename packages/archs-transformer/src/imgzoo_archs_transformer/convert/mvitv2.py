"""MViTv2 weights of the original repository: blocks in one row, shortcuts and the classifier called `proj`."""

import re
from typing import Any

from imgzoo.loading.convert import Format, State

RULES = [(r"^head\.projection\.", "head.fc.")]


def by_stage(state: State, model: Any) -> State:
    """`blocks.3` -> `stages.2.blocks.0`, and `proj` beside it -> the shortcut that the block has."""
    blocks = [(f"stages.{i}.blocks.{j}", block) for i, stage in enumerate(model.stages)
              for j, block in enumerate(stage.blocks)]  # fmt: skip
    renamed: State = {}
    for key, value in state.items():
        if (found := re.match(r"blocks\.(\d+)\.(.*)", key)) and int(found[1]) < len(blocks):
            path, block = blocks[int(found[1])]
            shortcut = "shortcut_proj_mlp" if block.shortcut_proj_attn is None else "shortcut_proj_attn"
            key = f"{path}.{re.sub(r'^proj', shortcut, found[2])}"
        renamed[key] = value
    return renamed


FORMATS = [Format("original", r"^blocks\.\d+\.attn\.rel_pos_|^head\.projection\.", RULES, by_stage)]

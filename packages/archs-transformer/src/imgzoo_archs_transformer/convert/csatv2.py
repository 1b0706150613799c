"""CSATv2 in the names of its authors: stages are numbered from one, and end in the change of size to the next."""

import re
from typing import Any

from imgzoo.loading.convert import Format, State

RULES = [
    (r"^dct\.", "stem_dct."),
    (r"\.Y_Conv\.", ".conv_y."),
    (r"\.Cb_Conv\.", ".conv_cb."),
    (r"\.Cr_Conv\.", ".conv_cr."),
    (r"\.grn\.gamma$", ".grn.weight"),
    (r"\.grn\.beta$", ".grn.bias"),
    (r"\.attention\b", ".attn"),
    (r"\.attn\.attn\.attn\.", ".attn.attn."),
    (r"(\d)\.attn\.pos_embed\.", r"\1.pos_embed."),
    (r"\.attn_norm\.", ".norm1."),
    (r"\.ff_norm\.", ".norm2."),
    (r"\.ff\.net\.0\.", ".mlp.fc1."),
    (r"\.ff\.net\.3\.", ".mlp.fc2."),
    (r"\.to_qkv\.", ".qkv."),
    (r"\.to_out\.0\.", ".proj."),
    (r"^norm\.", "head.norm."),
    (r"^head\.(weight|bias)$", r"head.fc.\1"),
]


def to_stages(state: State, model: Any) -> State:
    """The last layer of `stages1` becomes the first of `stages.1`; gains (1, 1, 1, C) become (C)."""
    lengths = [len(stage) for stage in model.stages]

    def place(found: re.Match[str]) -> str:
        stage = int(found[1]) - 1
        index = int(found[2]) + (stage > 0)
        return f"stages.{stage + 1}.0." if index == lengths[stage] else f"stages.{stage}.{index}."

    state = {re.sub(r"^stages(\d)\.(\d+)\.", place, key): value for key, value in state.items()}
    return {key: value.flatten() if ".grn." in key else value for key, value in state.items()}


FORMATS = [Format("original", r"^stages1\.", RULES, to_stages)]

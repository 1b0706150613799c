"""LeViT weights of the original repository: one list of blocks, attention and MLP each one of them."""

import re
from typing import Any

from imgzoo.loading.convert import Format, State

RULES = [
    (r".*\.attention_bias_idxs$", ""),
    *((rf"^patch_embed\.{2 * i}\.", f"stem.conv{i + 1}.") for i in range(4)),
    (r"\.(proj|q)\.1\.", r".\1.ln."),
    (r"\.m\.0\.", ".m.ln1."),
    (r"\.m\.2\.", ".m.ln2."),
    (r"\.[cl]\.(weight|bias)$", r".linear.\1"),
]


def to_stages(state: State, model: Any) -> State:
    """A stage opens where attention thins its queries out; every block of ours is an attention and an MLP."""
    found = (re.match(r"blocks\.(\d+)\.(kv|m\.qkv|m\.ln1)\.", key) for key in state)
    kinds = dict(sorted((int(match[1]), match[2]) for match in found if match))
    places, stage, block, owner = {}, 0, -1, ""
    for index, kind in kinds.items():
        if kind == "kv":
            stage, block, owner = stage + 1, -1, f"stages.{stage + 1}.downsample"
        elif kind == "m.qkv":
            block, owner = block + 1, f"stages.{stage}.blocks.{block + 1}"
        part = {"kv": "attn_downsample", "m.qkv": "attn", "m.ln1": "mlp"}[kind]
        places[f"blocks.{index}."] = f"{owner}.{part}."

    def place(found: re.Match[str]) -> str:
        return places.get(found[1], found[0])

    return {re.sub(r"^(blocks\.\d+\.)(?:m\.)?", place, key): value for key, value in state.items()}


FORMATS = [Format("original", r"^blocks\.\d+\.m\.qkv\.", RULES, to_stages)]

"""XCiT weights of the original repository, whose class attention has one layer for query, key and value."""

from typing import Any

from imgzoo.loading.convert import Format, State

RULES = [(r"^pos_embeder\.", "pos_embed.")]


def apart(state: State, model: Any) -> State:
    """`cls_attn_blocks.0.attn.qkv` -> `q`, `k` and `v`."""
    split: State = {}
    for key, value in state.items():
        if key.startswith("cls_attn_blocks.") and ".attn.qkv." in key:
            split |= {key.replace(".qkv.", f".{name}."): part for name, part in zip("qkv", value.chunk(3), strict=True)}
        else:
            split[key] = value
    return split


FORMATS = [Format("original", r"^pos_embeder\.|^cls_attn_blocks\.\d+\.attn\.qkv\.", RULES, apart)]

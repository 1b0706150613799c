"""BEiT and BEiT v2 weights of the original repository, pretrained or fine-tuned, and of transformers."""

from typing import Any

from imgzoo.loading.convert import Format, State

from .hugging import MARKER, NAMES
from .vision_transformer import join

TABLE = "relative_position_bias_table"
SHARED = ("rel_pos_bias", "encoder.relative_position_bias", "shared_position_bias")
"""Where a pretrained network keeps one table for all blocks: the authors' and the two of transformers."""
ORIGINAL = [
    (r".*relative_position_index$", ""),
    (r"^(?:mask_token$|lm_head\.|cls_pt_layers\.|cls_pt_lm_head\.).*", ""),  # of the pretraining
]
TRANSFORMERS = [
    *NAMES,
    (r"^lm_head\..*", ""),
    (r"\.lambda_([12])$", r".gamma_\1"),
    (r"^(blocks\.\d+)\.relative_position_bias\.", r"\1.attn."),
    (r"^pooler\.layernorm\.", "fc_norm."),
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head."),
]


def from_original(state: State, model: Any) -> State:
    """Every block gets the table that all share; the last norm of a pretrained network follows the pooling here."""
    own, named = model.state_dict(), {}
    for key, value in state.items():
        if key.removesuffix(f".{TABLE}") in SHARED:
            named |= {each: value.clone() for each in own if each.endswith(f".attn.{TABLE}")}
        else:
            named[f"fc_{key}" if key.startswith("norm.") and key not in own else key] = value
    return named


def from_transformers(state: State, model: Any) -> State:
    """Query, key and value become one layer, the biases of queries and values stand alone."""
    for key in [key for key in state if key.endswith((".q_proj.bias", ".v_proj.bias"))]:
        state[key.replace("_proj.bias", "_bias")] = state.pop(key)
    join(state, "attn", {"qkv": ("q_proj", "k_proj", "v_proj")})
    return from_original(state, model)


FORMATS = [
    Format("transformers", MARKER, TRANSFORMERS, from_transformers),
    Format("original", r"relative_position_index$|^(?:mask_token$|lm_head\.|rel_pos_bias\.)", ORIGINAL, from_original),
]

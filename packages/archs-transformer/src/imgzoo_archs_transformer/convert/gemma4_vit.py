"""The vision tower of Gemma 4's language models."""

from math import isqrt
from typing import Any

from imgzoo.loading.convert import Format, State

from .deepseek_vit import ENCODER, in_encoder

TOWER = [
    (r"^patch_embedder\.", "patch_embed."),
    (r"^encoder\.layers\.", "blocks."),
    (r"\.self_attn\.", ".attn."),
    (r"\.input_layernorm\.", ".norm1."),
    (r"\.post_attention_layernorm\.", ".norm2."),
    (r"\.pre_feedforward_layernorm\.", ".norm3."),
    (r"\.post_feedforward_layernorm\.", ".norm4."),
]
RULES = [(r"^(?!(?:model\.)?vision_tower\.).*", ""), (r"^(?:model\.)?vision_tower\.", ""), *TOWER]


def into_place(state: State, model: Any) -> State:
    """There a patch's pixels lie (p, p, C), as the images' processor cuts them; here they lie (C, p, p)."""
    kernel = state["patch_embed.input_proj.weight"]
    side = isqrt(kernel.shape[1] // 3)
    state["patch_embed.input_proj.weight"] = kernel.unflatten(1, (side, side, 3)).permute(0, 3, 1, 2).flatten(1)
    return in_encoder(state, model)


FORMATS = [
    Format("language-model", r"^(?:model\.)?vision_tower\.patch_embedder\.", RULES, into_place),
    Format("tower", r"^patch_embedder\.", TOWER, into_place),
    ENCODER,
]

"""The vision tower of DeepSeek's language models; without the layers that align it where the network has none."""

from math import isqrt
from typing import Any

from imgzoo.loading.convert import Format, State

RULES = [
    (r"^(?!vision\.|aligner\.).*", ""),
    (r"^vision\.", ""),
    (r"\.attn\.wqkv\.", ".attn.qkv."),
    (r"\.attn\.wo\.", ".attn.proj."),
    (r"\.mlp\.w([12])\.", r".mlp.fc\1."),
    (r"^aligner\.w([12])\.", r"aligner.fc\1."),
]


def into_place(state: State, model: Any) -> State:
    """Below `encoder` in a network with a head of its own; the patches' layer is a convolution here."""
    if state["patch_embed.proj.weight"].ndim == 2:
        kernel = state["patch_embed.proj.weight"]
        side = isqrt(kernel.shape[1] // 3)
        state["patch_embed.proj.weight"] = kernel.unflatten(1, (3, side, side))
    return in_encoder(state, model)


def in_encoder(state: State, model: Any) -> State:
    """The same names below `encoder` where the network has its layers there; without what merges where it has none."""
    own = model.state_dict()
    for part in ("aligner.", "merger."):
        if not any(part in key for key in own):
            state = {key: value for key, value in state.items() if not key.startswith(part)}
    prefix = "encoder." if any(key.startswith("encoder.") for key in own) else ""
    return {prefix + key: value for key, value in state.items()}


ENCODER = Format("encoder", r"^patch_embed\.(?:input_)?proj\.", (), in_encoder)
"""The encoder of such a family alone, for a classifier that has it below `encoder`."""
FORMATS = [Format("language-model", r"^vision\.patch_embed\.", RULES, into_place), ENCODER]

"""The vision tower of Qwen's language models; without the merger where the network has none, and no deep stack."""

from typing import Any

from imgzoo.loading.convert import Format, State

from .deepseek_vit import ENCODER, in_encoder

TOWER = [
    (r"^deepstack_merger_list\..*", ""),
    (r"^pos_embed\.weight$", "pos_embed"),
    (r"\.linear_fc([12])\.", r".fc\1."),
]
RULES = [(r"^(?!(?:model\.)?visual\.).*", ""), (r"^(?:model\.)?visual\.", ""), *TOWER]


def into_place(state: State, model: Any) -> State:
    """Two frames of a video are two pictures the same here, so their kernels add up; positions gain a dimension."""
    state["pos_embed"] = state["pos_embed"].unsqueeze(0)
    if state["patch_embed.proj.weight"].ndim == 5:
        state["patch_embed.proj.weight"] = state["patch_embed.proj.weight"].double().sum(2)
    return in_encoder(state, model)


FORMATS = [
    Format("language-model", r"^(?:model\.)?visual\.patch_embed\.", RULES, into_place),
    Format("tower", r"\.linear_fc1\.", TOWER, into_place),
    ENCODER,
]

"""Swin weights of the original repository, where merging closes a stage, of torchvision and of transformers."""

import re
from typing import Any

from imgzoo.loading.convert import Format, State

from .hugging import BLOCK, EMBEDDINGS, MARKER
from .vision_transformer import join

STORED = (r".*\.(?:attn_mask|relative_position_index|relative_coords_table)$", "")
RULES = [STORED, (r"^head\.(weight|bias)$", r"head.fc.\1")]
TORCHVISION = [
    *RULES,
    (r"^features\.0\.0\.", "patch_embed.proj."),
    (r"^features\.0\.2\.", "patch_embed.norm."),
    (r"\.mlp\.0\.", ".mlp.fc1."),
    (r"\.mlp\.3\.", ".mlp.fc2."),
]
TRANSFORMERS = [
    *EMBEDDINGS,
    (r"^encoder\.layers\.", "layers."),
    *BLOCK,
    (r"^layernorm\.", "norm."),
    (r"^classifier\.", "head.fc."),
]


def shift_merging(state: State, model: Any) -> State:
    """`layers.0.downsample` -> `layers.1.downsample`: merging opens our next stage."""
    return {re.sub(r"^layers\.(\d+)\.downsample", _next, key): value for key, value in state.items()}


def _next(found: re.Match[str]) -> str:
    return f"layers.{int(found[1]) + 1}.downsample"


def from_torchvision(state: State, model: Any) -> State:
    """Odd members of the list are stages, even ones the merging before the next: `features.3.0` -> `layers.1.blocks.0`.

    The second version has one bias of queries, keys and values, whose middle it sets to zero.
    """
    state = {re.sub(r"^features\.(\d+)\.", _stage, key): value for key, value in state.items()}
    for key in [key for key in state if key.endswith(".qkv.bias") and key not in model.state_dict()]:
        path = key.removesuffix("qkv.bias")
        state[f"{path}q_bias"], _, state[f"{path}v_bias"] = state.pop(key).chunk(3)
    return state


def _stage(found: re.Match[str]) -> str:
    number = int(found[1])
    return f"layers.{number // 2}." + ("blocks." if number % 2 else "downsample.")


def from_transformers(state: State, model: Any) -> State:
    """A layer each for query, key and value becomes one; the second version's keys have no bias."""
    for key in [key for key in state if key.endswith(".attn.logit_scale")]:
        path = key.removesuffix("logit_scale")
        for part in ("q", "v"):
            if f"{path}{part}_proj.bias" in state:
                state[f"{path}{part}_bias"] = state.pop(f"{path}{part}_proj.bias")
    join(state, "attn", {"qkv": ("q_proj", "k_proj", "v_proj")})
    return shift_merging(state, model)


FORMATS = [
    Format("original", r"^layers\.0\.downsample\.|^layers\..*\.relative_position_index$", RULES, shift_merging),
    Format("torchvision", r"^features\.0\.0\.", TORCHVISION, from_torchvision),
    Format("transformers", MARKER, TRANSFORMERS, from_transformers),
]

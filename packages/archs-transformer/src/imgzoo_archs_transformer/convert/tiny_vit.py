"""TinyViT weights of the original repository: a stage ends with its merging, and a flat head."""

from typing import Any

from imgzoo.loading.convert import Format, State

from .swin_transformer import shift_merging

RULES = [
    (r"^patch_embed\.seq\.0\.", "patch_embed.conv1."),
    (r"^patch_embed\.seq\.2\.", "patch_embed.conv2."),
    (r"\.c\.weight$", ".conv.weight"),
    (r"^norm_head\.", "head.norm."),
    (r"^head\.(weight|bias)$", r"head.fc.\1"),
]


def to_stages(state: State, model: Any) -> State:
    """`layers` -> `stages`, the merging of each in the next."""
    return {key.replace("layers.", "stages.", 1): value for key, value in shift_merging(state, model).items()}


FORMATS = [Format("original", r"^patch_embed\.seq\.", RULES, to_stages)]

"""Weights of OpenAI's CLIP ResNets (and open_clip's), and of the authors' RepVGG and MobileOne."""

import re
from typing import Any

from imgzoo.loading.convert import Format, State

CLIP = [
    (r"^(?!visual\.).*", ""),
    (r"^visual\.conv(\d)\.", r"stem.conv\1.conv."),
    (r"^visual\.bn(\d)\.", r"stem.conv\1.bn."),
    (r"^visual\.layer(\d)\.", r"stage\1."),
    (r"^(stage.*)\.conv1\.", r"\1.conv1_1x1.conv."),
    (r"^(stage.*)\.conv2\.", r"\1.conv2_kxk.conv."),
    (r"^(stage.*)\.conv3\.", r"\1.conv3_1x1.conv."),
    (r"^(stage.*)\.bn1\.", r"\1.conv1_1x1.bn."),
    (r"^(stage.*)\.bn2\.", r"\1.conv2_kxk.bn."),
    (r"^(stage.*)\.bn3\.", r"\1.conv3_1x1.bn."),
    (r"\.downsample\.0\.", ".shortcut.conv.conv."),
    (r"\.downsample\.1\.", ".shortcut.conv.bn."),
    (r"^visual\.attnpool\.positional_embedding$", "head.pos_embed"),
    (r"^visual\.attnpool\.([qkv])_proj\.", r"head.\1."),
    (r"^visual\.attnpool\.c_proj\.", "head.proj."),
]
PARALLEL = [
    (r"^stage0\.", "stem."),
    (r"^linear\.", "head.fc."),
    (r"\.rbr_dense\.", ".conv_kxk."),
    (r"\.rbr_conv\.", ".conv_kxk."),
    (r"\.rbr_1x1\.", ".conv_1x1."),
    (r"\.rbr_scale\.", ".conv_scale."),
    (r"\.rbr_(?:identity|skip)\.", ".identity."),
    (r"\.rbr_reparam\.", ".reparam_conv."),
    (r"\.se\.(?:down|reduce)\.", ".attn.fc1."),
    (r"\.se\.(?:up|expand)\.", ".attn.fc2."),
]


def count_from_zero(state: State, model: Any) -> State:
    """`stage1.` -> `stages.0.`; a head that the model does not have goes."""
    pooled = any(key == "head.pos_embed" for key, _ in model.named_parameters())
    counted = {re.sub(r"^stage(\d)\.", _next, key): value for key, value in state.items()}
    gone = "head.pos_embed" in counted and not pooled
    return {key: value for key, value in counted.items() if not (gone and key.startswith("head."))}


def _next(found: re.Match[str]) -> str:
    return f"stages.{int(found[1]) - 1}."


FORMATS = [
    Format("clip", r"^visual\.(?:attnpool|layer1)\.", CLIP, count_from_zero),
    Format("original", r"\.rbr_(?:dense|conv|reparam)\.", PARALLEL, count_from_zero),
]

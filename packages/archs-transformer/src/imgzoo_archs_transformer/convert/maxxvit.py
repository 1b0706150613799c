"""MaxViT weights of torchvision."""

from typing import Any

import torch
from torch import nn

from imgzoo.errors import WeightsError
from imgzoo.loading.convert import Format, State
from imgzoo_archs_transformer.multi_axis import HEAD_DIM
from imgzoo_layers.conv import Conv2dSame

TORCHVISION = [
    (r".*\.relative_position_index$", ""),
    (r"^stem\.0\.0\.", "stem.conv1."),
    (r"^stem\.0\.1\.", "stem.norm1."),
    (r"^stem\.1\.0\.", "stem.conv2."),
    (r"^blocks\.(\d+)\.layers\.(\d+)\.layers\.", r"stages.\1.blocks.\2."),
    (r"\.MBconv\.proj\.1\.", ".conv.shortcut.expand."),
    (r"\.MBconv\.layers\.", ".conv."),
    (r"\.conv_a\.0\.", ".conv1_1x1."),
    (r"\.conv_a\.1\.", ".norm1."),
    (r"\.conv_b\.0\.", ".conv2_kxk."),
    (r"\.conv_b\.1\.", ".norm2."),
    (r"\.conv_c\.", ".conv3_1x1."),
    (r"\.squeeze_excitation\.", ".se."),
    (r"\.window_attention\.", ".attn_block."),
    (r"\.grid_attention\.", ".attn_grid."),
    (r"\.attn_layer\.0\.", ".norm1."),
    (r"\.attn_layer\.1\.to_qkv\.", ".attn.qkv."),
    (r"\.attn_layer\.1\.merge\.", ".attn.proj."),
    (r"\.attn_layer\.1\.", ".attn.rel_pos."),
    (r"\.mlp_layer\.0\.", ".norm2."),
    (r"\.mlp_layer\.1\.", ".mlp.fc1."),
    (r"\.mlp_layer\.3\.", ".mlp.fc2."),
    (r"^classifier\.2\.", "head.norm."),
    (r"^classifier\.3\.", "head.pre_logits.fc."),
    (r"^classifier\.5\.", "head.fc."),
]
OPTIONS = {"padding": "", "act": "gelu", "attn_act": "gelu", "pool": "avg3"}
"""What torchvision computes otherwise than TensorFlow's networks do."""
TABLE = "relative_position_bias_table"


def from_torchvision(state: State, model: Any) -> State:
    """Attention is scaled by the width there and not by that of a head, which queries make up; two biases are zero.

    Raises `WeightsError` for a network that computes otherwise.
    """
    if not computes_alike(model):
        said = ", ".join(f"{key}={value!r}" for key, value in OPTIONS.items())
        raise WeightsError(f"torchvision's MaxViT computes otherwise than this network: give {said}")
    own = model.state_dict()
    for key, value in [*state.items()]:
        if ".attn.qkv." in key:
            q, *others = value.chunk(3)
            state[key] = torch.cat([q / (len(q) // HEAD_DIM) ** 0.5, *others])
        elif key.endswith(TABLE) and key in own and own[key].ndim == 3:  # (offsets, heads), from key to query
            state[key] = value.T.reshape(own[key].shape).flip(1, 2)
        elif key in ("stem.conv1.weight", "head.fc.weight"):
            state[key.replace("weight", "bias")] = value.new_zeros(len(value))
    return state


def computes_alike(model: Any) -> bool:
    modules = dict(model.named_modules())
    acts = [module for name, module in modules.items() if name.endswith(("norm1.act", "norm2.act", "mlp.act"))]
    exact = all(isinstance(act, nn.GELU) and act.approximate == "none" for act in acts)
    pool = modules.get("stages.0.blocks.0.conv.shortcut.pool")
    wide = isinstance(pool, nn.AvgPool2d) and pool.kernel_size == 3
    return exact and wide and not any(isinstance(module, Conv2dSame) for module in modules.values())


FORMATS = [Format("torchvision", r"\.MBconv\.layers\.", TORCHVISION, from_torchvision)]

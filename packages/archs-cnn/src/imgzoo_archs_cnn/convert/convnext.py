"""ConvNeXt weights of the original repositories (V1, V2, DINOv3), torchvision, transformers and open_clip's tower."""

import re
from typing import Any

from imgzoo.loading.convert import TRUNK, Format, Rule, State, project


def _stage(found: re.Match[str]) -> str:
    """Odd members of torchvision's list are stages, even ones the halving before the next: `block3` -> `stages.1`."""
    return f"stages.{int(found[2]) // 2}.{'blocks' if found[1] == 'block' else 'downsample'}."


ORIGINAL = [
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
    (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv([12])\.", r".mlp.fc\1."),
    (r"\.grn\.gamma$", ".mlp.grn.weight"),
    (r"\.grn\.beta$", ".mlp.grn.bias"),
    (r"^norm\.", "head.norm."),
    (r"^norms\..*", ""),  # the last of them is `norm`
    (r"^head\.(weight|bias)$", r"head.fc.\1"),
]
TORCHVISION: list[Rule] = [
    (r"^features\.0\.", "stem."),
    (r"^features\.(\d+)\.(\d+)\.(?:layer_scale$|block\.)", r"block\1.\2."),
    (r"^features\.(\d+)\.", r"down\1."),
    (r"^(block\d+\.\d+\.)$", r"\1gamma"),
    (r"^(block\d+\.\d+\.)0\.", r"\1conv_dw."),
    (r"^(block\d+\.\d+\.)2\.", r"\1norm."),
    (r"^(block\d+\.\d+\.)3\.", r"\1mlp.fc1."),
    (r"^(block\d+\.\d+\.)5\.", r"\1mlp.fc2."),
    (r"^classifier\.0\.", "head.norm."),
    (r"^classifier\.2\.", "head.fc."),
    (r"^(block|down)(\d+)\.", _stage),
]
TRANSFORMERS = [
    (r"^convnext(?:v2)?\.", ""),
    (r"^model\.stages\.", "stages."),
    (r"^embeddings\.patch_embeddings\.", "stem.0."),
    (r"^embeddings\.layernorm\.", "stem.1."),
    (r"^(?:encoder\.)?stages\.0\.downsample_layers\.", "stem."),
    (r"^(?:encoder\.)?stages\.(\d+)\.downsampl(?:ing_layer|e_layers)\.", r"stages.\1.downsample."),
    (r"^(?:encoder\.)?stages\.(\d+)\.layers\.", r"stages.\1.blocks."),
    (r"\.layer_scale_parameter$", ".gamma"),
    (r"\.(?:dwconv|depthwise_conv)\.", ".conv_dw."),
    (r"\.(?:pwconv|pointwise_conv)([12])\.", r".mlp.fc\1."),
    (r"\.grn\.", ".mlp.grn."),
    (r"^layer_?norm\.", "head.norm."),
    (r"\.layer_?norm\.", ".norm."),
    (r"^classifier\.", "head.fc."),
]
TOWER = [
    *TRUNK,
    (r"^visual\.head\.mlp\.fc1\.", "head.pre_logits.fc."),
    (r"^visual\.head\.mlp\.fc2\.", "head.fc."),
]


def reshape(state: State, model: Any) -> State:
    """Pointwise layers become convolutions where ours are, the response norm's vectors flat."""
    own = model.state_dict()
    for key, value in state.items():
        if key in own and value.numel() == own[key].numel():
            state[key] = value.reshape(own[key].shape)
    return state


FORMATS = [
    Format("original", r"^downsample_layers\.", ORIGINAL, reshape),
    Format("torchvision", r"^features\.0\.0\.", TORCHVISION, reshape),
    Format(
        "transformers", r"^(?:convnext(?:v2)?\.)?(?:encoder|embeddings)\.|\.depthwise_conv\.", TRANSFORMERS, reshape
    ),
    Format("open-clip-trunk", r"^visual\.trunk\.", TOWER, project),
]

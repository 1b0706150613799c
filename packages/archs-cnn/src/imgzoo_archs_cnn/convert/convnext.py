"""ConvNeXt weights of the original repositories (V1 and V2), and of open_clip's visual tower."""

from typing import Any

from imgzoo.loading.convert import TRUNK, Format, State, project

ORIGINAL = [
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
    (r"^stages\.(\d+)\.(\d+)\.", r"stages.\1.blocks.\2."),
    (r"\.dwconv\.", ".conv_dw."),
    (r"\.pwconv([12])\.", r".mlp.fc\1."),
    (r"\.grn\.gamma$", ".mlp.grn.weight"),
    (r"\.grn\.beta$", ".mlp.grn.bias"),
    (r"^norm\.", "head.norm."),
    (r"^head\.(weight|bias)$", r"head.fc.\1"),
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
    Format("open-clip-trunk", r"^visual\.trunk\.", TOWER, project),
]

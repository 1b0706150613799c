"""ConvNeXt weights of the original repositories (V1 and V2), and of open_clip's visual tower."""

from typing import Any

from imgzoo.loading.convert import Format, State

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
TRUNK = [
    (r"^(?!visual\.).*", ""),
    (r"^visual\.trunk\.", ""),
    (r"^visual\.head\.mlp\.fc1\.", "head.pre_logits.fc."),
    (r"^visual\.head\.(?:proj|mlp\.fc2)\.", "head.fc."),
]


def reshape(state: State, model: Any) -> State:
    """Pointwise layers become convolutions where ours are, the response norm's vectors flat."""
    own = model.state_dict()
    for key, value in state.items():
        if key in own and value.numel() == own[key].numel():
            state[key] = value.reshape(own[key].shape)
    return state


def with_bias(state: State, model: Any) -> State:
    """A zero bias for a projection that was trained without one."""
    if "head.fc.weight" in state and "head.fc.bias" not in state:
        state["head.fc.bias"] = state["head.fc.weight"].new_zeros(state["head.fc.weight"].shape[0])
    return state


FORMATS = [
    Format("original", r"^downsample_layers\.", ORIGINAL, reshape),
    Format("open-clip-trunk", r"^visual\.trunk\.", TRUNK, with_bias),
]

"""FastViT and MobileCLIP in their authors' names, and weights whose branches were fused for inference."""

import re
from typing import Any

import torch

from imgzoo.loading.convert import Format, State, project

RULES = [
    (r"^patch_embed\.", "stem."),
    (r"^conv_exp\.se\.reduce\.", "final_conv.se.fc1."),
    (r"^conv_exp\.se\.expand\.", "final_conv.se.fc2."),
    (r"^conv_exp\.", "final_conv."),
    (r"\.rbr_conv\.", ".conv_kxk."),
    (r"\.rbr_scale\.", ".conv_scale."),
    (r"\.rbr_skip\.", ".identity."),
    (r"\.lkb_origin\.", ".large_conv."),
    (r"\.lkb_reparam\.", ".reparam_conv."),
    (r"\.convffn\.", ".mlp."),
    (r"\.pe\.", ".pos_enc."),
    (r"\.(layer_scale(?:_\d)?)$", r".\1.gamma"),
    (r"^head\.(weight|bias)$", r"head.fc.\1"),
]
CLIP = [(r"^(?!image_encoder\.model\.).*", ""), (r"^image_encoder\.model\.", "")]
BRANCHES = ("conv_kxk.", "conv_scale.", "identity.", "large_conv.", "small_conv.", "mixer.", "norm.", "layer_scale.")
MAIN = ("conv_kxk.0.", "large_conv.", "mixer.conv_kxk.0.")


def to_stages(state: State, model: Any) -> State:
    """One list holds downsampling, position and blocks of every stage, in this order where they are there."""
    found = (re.match(r"network\.(\d+)\.(proj|pos_enc|reparam_conv|\d)", key) for key in state)
    parts = {int(match[1]): match[2] for match in found if match}
    places, stage = {}, 0
    for index, part in sorted(parts.items()):
        owner = {"proj": "downsample", "pos_enc": "pos_emb", "reparam_conv": "pos_emb"}.get(part, "blocks")
        stage += part == "proj"
        places[f"network.{index}."] = f"stages.{stage}.{owner}."

    def place(found: re.Match[str]) -> str:
        return places.get(found[0], found[0])

    state = {re.sub(r"^network\.\d+\.", place, key): value for key, value in state.items()}
    if "head.proj" in state:
        state["head.fc.weight"] = state.pop("head.proj").T.contiguous()
    return split_fused(project(state, model), model)


def split_fused(state: State, model: Any) -> State:
    """A fused kernel becomes the main branch of ours, and the others say nothing, so that the block can be trained."""
    own = model.state_dict()
    for path in [key.removesuffix("reparam_conv.weight") for key in state if key.endswith("reparam_conv.weight")]:
        kernel, bias = (state.pop(f"{path}reparam_conv.{leaf}") for leaf in ("weight", "bias"))
        if f"{path}pos_enc.weight" in own:
            added = torch.nn.init.dirac_(torch.empty_like(kernel), groups=len(kernel))  # its input is added again
            state |= {f"{path}pos_enc.weight": kernel - added, f"{path}pos_enc.bias": bias}
            continue
        for key in (key for key in own if key.startswith(tuple(path + branch for branch in BRANCHES))):
            state[key] = torch.full(own[key].shape, float(key.endswith("running_var")), dtype=own[key].dtype)
        for main in (f"{path}{name}" for name in MAIN if f"{path}{name}conv.weight" in own):
            same(state, model, f"{main}bn.")
            state |= {f"{main}conv.weight": kernel, f"{main}bn.bias": bias}
        if f"{path}layer_scale.gamma" in own:  # a mixer adds what it makes less what it was given
            same(state, model, f"{path}norm.identity.")
            state[f"{path}layer_scale.gamma"] = torch.ones(own[f"{path}layer_scale.gamma"].shape)
    return state


def same(state: State, model: Any, norm: str) -> None:
    """A norm that changes nothing, in place."""
    state[f"{norm}weight"] = torch.full_like(state[f"{norm}weight"], (1 + model.get_submodule(norm[:-1]).eps) ** 0.5)


FORMATS = [
    Format("mobileclip", r"^image_encoder\.model\.patch_embed\.", [*CLIP, *RULES], to_stages),
    Format("original", r"^network\.\d+\.", RULES, to_stages),
    Format("fused", r"\.reparam_conv\.weight$", finish=split_fused),
]

"""torchvision's EfficientNets (V1, V2), MobileNets (V2, V3) and MNASNets, whose layers stand in the order of ours."""

import re
from typing import Any

from imgzoo.errors import WeightsError
from imgzoo.loading.convert import Format, State
from imgzoo_layers.conv import Conv2dSame

TRUNK = r"^(?:features|layers)\."
HEADS = [(r"^classifier\.[13]\.", "classifier."), (r"^classifier\.0\.", "conv_head.")]
WIDE = 2048
"""Channels at the end of torchvision's EfficientNet from B5 on."""


def by_order(state: State, model: Any) -> State:
    """`features.2.0.block.1.0.weight` -> `blocks.1.0.conv_dw.weight`: the numbers tell the order, the model the name.

    Raises `WeightsError` where the numbers of layers differ, or the network computes with another epsilon or padding.
    """
    named = {key: value for key, value in state.items() if not re.match(TRUNK, key)}
    taken = {*(key.rpartition(".")[0] for key in named), *model._heads()}
    theirs = sorted({key.rpartition(".")[0] for key in state.keys() - named.keys()}, key=_place)
    own = [path for path in dict.fromkeys(key.rpartition(".")[0] for key in model.state_dict()) if path not in taken]
    if len(theirs) != len(own):
        raise WeightsError(f"the file of torchvision has {len(theirs)} layers with weights where this network has "
                           f"{len(own)}: they are different networks")  # fmt: skip
    check_numbers(state, model)
    names = dict(zip(theirs, own))
    for key in state.keys() - named.keys():
        path, _, leaf = key.rpartition(".")
        named[f"{names[path]}.{leaf}"] = state[key]
    return named


def _place(path: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in path.split(".")]


def check_numbers(state: State, model: Any) -> None:
    """What no tensor tells: torchvision pads symmetrically, and some of its networks have a large epsilon."""
    if any(isinstance(module, Conv2dSame) for module in model.modules()):
        raise WeightsError('torchvision pads symmetrically and this network as TensorFlow does: give padding=""')
    wanted = epsilon(state)
    found = {module.eps for module in model.modules() if hasattr(module, "running_var")}
    if found != {wanted}:
        raise WeightsError(f"torchvision trained these weights with an epsilon of {wanted}: give eps={wanted}")


def epsilon(state: State) -> float:
    """Of the batch norms: 1e-3 in MobileNetV3, EfficientNetV2 and EfficientNet from B5 on, else torch's."""
    first = state.get("features.1.0.block.0.0.weight")  # fused, so not depthwise, in V2
    if first is None:
        return 1e-3 if any(key.startswith("features.1.block.") for key in state) else 1e-5
    wide = "features.8.0.weight" in state and len(state["features.8.0.weight"]) >= WIDE
    return 1e-3 if wide or first.shape[1] > 1 else 1e-5


FORMAT = Format("torchvision", r"^(?:features|layers)\.0\.(?:0\.)?weight$", HEADS, by_order)

"""EfficientNet weights of torchvision, and of the TensorFlow port: a flat list of blocks, `_depthwise_conv`, `_bn0`."""

from typing import Any

from imgzoo.loading.convert import Format, State
from imgzoo_archs_efficientnet.blocks import DepthwiseSeparable

from . import torchvision

PARTS = {"_depthwise_conv": "conv_dw", "_se_reduce": "se.conv_reduce", "_se_expand": "se.conv_expand"}
SEPARABLE = {**PARTS, "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
INVERTED = {
    **PARTS,
    "_expand_conv": "conv_pw",
    "_bn0": "bn1",
    "_bn1": "bn2",
    "_project_conv": "conv_pwl",
    "_bn2": "bn3",
}
STEM = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}


def nest_blocks(state: State, model: Any) -> State:
    """`_blocks.7._bn0.weight` -> `blocks.3.1.bn1.weight`: the stage of a block is known from the model."""
    places = [(f"blocks.{i}.{j}", block) for i, stage in enumerate(model.blocks) for j, block in enumerate(stage)]
    nested = {}
    for key, value in state.items():
        first, _, rest = key.partition(".")
        if first == "_blocks":
            number, part, leaf = rest.split(".", 2)
            path, block = places[int(number)]
            table = SEPARABLE if isinstance(block, DepthwiseSeparable) else INVERTED
            nested[f"{path}.{table[part]}.{leaf}"] = value
        else:
            nested[f"{STEM[first]}.{rest}"] = value
    return nested


FORMATS = [Format("tensorflow-port", r"^_conv_stem\.", finish=nest_blocks), torchvision.FORMAT]

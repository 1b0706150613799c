"""ResNet weights of transformers; torchvision's have our names."""

import re
from typing import Any

from imgzoo.loading.convert import Format, State

TRANSFORMERS = [
    (r"^resnet\.", ""),
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
    (r"^encoder\.stages\.(\d+)\.layers\.", r"stage\1."),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    (r"\.layer\.(\d)\.convolution\.", r".conv\1."),
    (r"\.layer\.(\d)\.normalization\.", r".bn\1."),
    (r"^classifier\.1\.", "fc."),
]


def count_from_one(state: State, model: Any) -> State:
    """`stage0.0.conv0` -> `layer1.0.conv1`."""
    return {re.sub(r"^stage(\d)\.(\d+)\.", _stage, re.sub(r"\.(conv|bn)(\d)\.", _layer, key)): value
            for key, value in state.items()}  # fmt: skip


def _stage(found: re.Match[str]) -> str:
    return f"layer{int(found[1]) + 1}.{found[2]}."


def _layer(found: re.Match[str]) -> str:
    return f".{found[1]}{int(found[2]) + 1}."


FORMATS = [Format("transformers", r"^(?:resnet\.)?embedder\.embedder\.convolution\.", TRANSFORMERS, count_from_one)]

"""ResNet weights of transformers; torchvision's have our names."""

import re

from imgzoo.loading.convert import Format, Rule


def _stage(found: re.Match[str]) -> str:
    return f"layer{int(found[1]) + 1}."


def _layer(found: re.Match[str]) -> str:
    return f".{found[1]}{int(found[2]) + 1}."


TRANSFORMERS: list[Rule] = [
    (r"^resnet\.", ""),
    (r"^embedder\.embedder\.convolution\.", "conv1."),
    (r"^embedder\.embedder\.normalization\.", "bn1."),
    (r"^encoder\.stages\.(\d+)\.layers\.", _stage),
    (r"\.shortcut\.convolution\.", ".downsample.0."),
    (r"\.shortcut\.normalization\.", ".downsample.1."),
    (r"\.layer\.(\d)\.convolution\.", r".conv\1."),
    (r"\.layer\.(\d)\.normalization\.", r".bn\1."),
    (r"^classifier\.1\.", "fc."),
    (r"\.(conv|bn)(\d)\.", _layer),
]
FORMATS = [Format("transformers", r"^(?:resnet\.)?embedder\.embedder\.convolution\.", TRANSFORMERS)]

"""EfficientFormer weights of the original repository: stages and changes of size in one list."""

import re

from imgzoo.loading.convert import Format, Rule


def _place(found: re.Match[str]) -> str:
    """`network.2` -> `stages.1.blocks`, `network.3` -> `stages.2.downsample`."""
    stage, odd = divmod(int(found[1]), 2)
    return f"stages.{stage + 1}.downsample." if odd else f"stages.{stage}.blocks."


RULES: list[Rule] = [
    (r"^patch_embed\.0\.", "stem.conv1."),
    (r"^patch_embed\.1\.", "stem.norm1."),
    (r"^patch_embed\.3\.", "stem.conv2."),
    (r"^patch_embed\.4\.", "stem.norm2."),
    (r"^network\.([135])\.proj\.", r"network.\1.conv."),
    (r"\.layer_scale_([12])$", r".ls\1.gamma"),
    (r"^dist_head\.", "head_dist."),
    (r"^network\.(\d)\.", _place),
]
FORMATS = [Format("original", r"^network\.0\.", RULES)]

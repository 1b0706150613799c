"""A network of a client's own, and small networks of which clients hook the blocks."""

import pytest
from torch import nn

from imgzoo.registry import registry

SMALL = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=7)
"""Options of a small vision transformer."""
HOOKED = {
    "beit_base_patch16_224": dict(depth=2, embed_dim=48, num_heads=4), "eva02_tiny_patch14_224": dict(depth=2),
    "hiera_tiny_224": {}, "xcit_nano_12_p16_224": {}, "test_vit_relpos": {}, "convit_tiny": {},
    "naflexvit_base_patch16_gap": dict(depth=2, embed_dim=48, num_heads=4),
}  # fmt: skip
"""Names, and the options that make them small."""
GRIDDED = {
    "pvt_v2_b0": (dict(depths=(1, 2, 1, 1)), 64, "stages.1.blocks.1"),
    "pvt_v2_b2_li": (dict(depths=(1, 2, 1, 1)), 64, "stages.1.blocks.1"),
    "twins_svt_small": (dict(depths=(2, 2, 2, 2)), 96, "blocks.1.0"),
    "twins_pcpvt_small": (dict(depths=(1, 2, 1, 1)), 64, "blocks.1.1"),
    "davit_tiny": (dict(depths=(1, 1, 1, 1)), 96, "stages.1.blocks.0.1"),
    "tiny_vit_5m_224": (dict(depths=(1, 2, 1, 1)), 96, "stages.1.blocks.1"),
    "test_maxvit": ({}, 64, "stages.1.blocks.0"),
}
"""Options that make them small, the side of an image, and a block of which clients see more than a map."""


class Steps(nn.Module):
    """A network of a client's own, its stages rows of a sequence."""

    def __init__(self, num_classes=1000, in_chans=3, **kwargs):
        super().__init__()
        self.stem = nn.Conv2d(in_chans, 4, 3, 2, 1)
        self.stages = nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 2, 1))
        self.head = nn.Linear(8, num_classes) if num_classes else nn.Identity()
        rows = [(4, 2, "stem"), (8, 4, "stages.0"), (8, 8, "stages.1")]
        self.feature_info = [dict(num_chs=chs, reduction=step, module=path) for chs, step, path in rows]

    def reset_classifier(self, num_classes):
        self.head = nn.Identity()

    def forward(self, x):
        return self.head(self.stages(self.stem(x)).mean((2, 3)))


def families():
    """A name of every family; those of large networks are slow."""
    found = {}
    for spec in registry("models").specs():
        if spec.name.startswith("test_") or spec.family not in found:
            found[spec.family] = spec.name
    slow = pytest.mark.slow
    return [name if name.startswith("test_") else pytest.param(name, marks=slow) for name in sorted(found.values())]


def scripting():
    """The small test networks that script."""
    specs = registry("models").specs()
    return [spec.name for spec in specs if spec.name.startswith("test_") and "script" in spec.capabilities]

"""A small network and a plugin that brings it, for tests that need no architecture package."""

from types import SimpleNamespace

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo.plugin import ModelSpec, WeightSpec, hookimpl


class Pool(nn.Module):
    def __init__(self, kind: str = "avg"):
        super().__init__()
        self.width = 1
        self.set(kind)

    def set(self, kind: str) -> None:
        if kind not in ("avg", "max", ""):
            raise ValueError(f"cannot pool by '{kind}'")
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "":
            return x
        return x.mean((2, 3)) if self.kind == "avg" else x.amax((2, 3))


class TinyNet(ImageModel):
    """Three strided convolutions; a non-persistent buffer stands for tables that files do not hold."""

    parts = Parts(stem=("stem",), stages=("stages",), norm=("norm",), pool="global_pool", head="fc")
    layer_groups = {"stem": r"^stem", "blocks": [(r"^stages\.(\d+)", None), (r"^norm", (99999,))]}

    def __init__(self, width: int = 8, num_classes: int = 10, in_chans: int = 3, global_pool: str = "avg",
                 drop_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.stem = nn.Conv2d(in_chans, width, 3, 2, 1)
        self.stages = nn.Sequential(*(nn.Conv2d(width * 2**i, width * 2 ** (i + 1), 3, 2, 1) for i in range(2)))
        self.norm = nn.BatchNorm2d(width * 4)
        self.register_buffer("table", torch.empty(width * 4), persistent=False)
        self.init_non_persistent_buffers()
        self.global_pool = Pool(global_pool)
        self.drop = nn.Dropout(drop_rate)
        self.num_features = self.head_hidden_size = width * 4
        self.fc = nn.Linear(width * 4, num_classes) if num_classes else nn.Identity()
        self.feature_info = FeatureInfo(Feature(width * 2 ** (i + 1), 2 ** (i + 2), f"stages.{i}") for i in range(2))

    def init_non_persistent_buffers(self) -> None:
        self.table.copy_(torch.linspace(0.5, 1.5, len(self.table)))

    def forward_features(self, x: Tensor) -> Tensor:
        return self.norm(self.stages(self.stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(self.global_pool(x * self.table[:, None, None]))
        return x if pre_logits else self.fc(x)


def plugin(cls: type = TinyNet, **row: object) -> SimpleNamespace:
    """A plugin object with one model, `tiny`."""
    weights = (
        WeightSpec("a_in10", arch="tiny", url="https://example.invalid/tiny.pth", license="Apache-2.0", num_classes=10),
        WeightSpec("b_in10", arch="tiny", url="https://example.invalid/b.pth", license="CC-BY-NC-4.0", num_classes=10),
    )
    spec = ModelSpec("tiny", f"{cls.__module__}:{cls.__qualname__}", weights=weights, family="tiny", **row)

    @hookimpl
    def imgzoo_models():
        return [spec]

    return SimpleNamespace(IMGZOO_API=(1, 0), imgzoo_models=imgzoo_models, __name__="tiny_plugin")

"""MobileNetV5, the vision encoder of Gemma 3n: blocks of MobileNetV4 (arXiv:2404.10518) with RMS norms, whose last two
stages are fused into a map of 16x16 for the language model."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import FeatureInfo, ImageModel, Parts, Shortened
from imgzoo.model.tables import Size, pair
from imgzoo_layers.conv import ConvNormAct, Pointwise2d
from imgzoo_layers.drop import DropPath
from imgzoo_layers.exchange import Acts, Norms
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.hidden_head import HiddenPool
from imgzoo_layers.norm import RmsNorm2d
from imgzoo_layers.norm_act import get_norm_act
from imgzoo_layers.pool import GlobalPool

from .blocks import Common, UniversalInvertedResidual, init_mobile_
from .builder import Rounding, build_stages, decode_stages

ACT = "gelu_tanh"


class MultiScaleFusionAdapter(nn.Module):
    """Two maps, the coarser enlarged, through a wide layer: (B, C, H, W), (B, C', h, w) -> (B, D, *size)."""

    def __init__(self, common: Common, dim: int, dim_out: int, size: Size):
        super().__init__()
        self.size = size
        self.ffn = UniversalInvertedResidual(
            common._replace(layer_scale=None), dim, dim_out, kernel=0, stride=1, dilation=1, act=ACT, drop_path=0.0,
            skip=False, group_size=1, expansion=2.0, gate=0.0, kernel_in=0, kernel_out=0,
        )  # fmt: skip
        self.norm = RmsNorm2d(dim_out)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        return self.norm(fitted(self.ffn(torch.cat([fine, enlarged(coarse, fine)], 1)), self.size))


class MobileNetV5(ImageModel):
    """`forward_features` gives the fused map (B, 2048, 16, 16) for images of any size; pooling by "" keeps it. Without
    a `global_pool` it is pooled where there is a classifier, as encoders do.

    Args:
        stages: blocks of each stage in the notation of the builder
        num_features: channels of the layer that joins scales, or of the head's hidden one
        stem_bias: bias of the stem
        fuse: join the last two stages; without it the head is MobileNetV4's
        fused_size: height and width of the fused map
    """

    exchanged = (Acts("gelu_tanh"), Norms("rmsnorm2d"))
    norms_act = None
    flat_levels = False
    parts = Parts(stem=("conv_stem",), stages=("blocks",), norm=("msfa",), pool="global_pool", head="classifier",
                  tail=("conv_head", "norm_head"))  # fmt: skip
    layer_groups = {
        "stem": r"^conv_stem|bn1",
        "blocks": r"^blocks\.(\d+)\.(\d+)",
        "coarse": r"^blocks\.(\d+)",
    }
    shortened = Shortened
    layout = "nhwc"

    def __init__(self, stages: Sequence[Sequence[str]], stem_size: int = 64, stem_bias: bool = True, width: float = 1.0,
                 num_features: int = 2048, fuse: bool = True, fused_size: int | Size = 16,
                 padding: Literal["", "same"] = "", layer_scale: float | None = 1e-5, in_chans: int = 3,
                 num_classes: int = 1000, global_pool: str | None = "avg", drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        norm = get_norm_act("rmsnorm2d", ACT)
        common = Common(norm, ACT, padding, None, None, None, False, layer_scale)
        self.conv_stem = ConvNormAct(in_chans, stem_size, 3, 2, padding, norm=norm, bias=stem_bias)
        rows, rounding = decode_stages(stages), Rounding(width)
        self.blocks, levels = build_stages(rows, stem_size, rounding, common, 32, drop_path_rate)
        self._refuse_idle(DropPath, drop_path_rate=drop_path_rate)
        self.feature_info = FeatureInfo([levels[0]._replace(module="conv_stem"), *levels[1:]])
        pool = "avg" if global_pool is None and num_classes else global_pool or ""
        fine, coarse = levels[-2].channels, levels[-1].channels
        if fuse:
            self.msfa = MultiScaleFusionAdapter(common, fine + coarse, num_features, pair(fused_size, "fused_size"))
            self.num_features, self.global_pool = num_features, GlobalPool(pool)
            self.conv_head, self.norm_head = nn.Identity(), nn.Identity()
        else:
            self.msfa = None
            self.num_features, self.global_pool = coarse, HiddenPool(pool)
            self.conv_head, self.norm_head = Pointwise2d(coarse, num_features, False), norm(num_features)
        self.head_hidden_size = num_features * self.global_pool.width
        self.drop = nn.Dropout(drop_rate)
        self.classifier = linear_or_none(self.head_hidden_size, num_classes)
        init_mobile_(self)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, num_features, 16, 16)
        x = self.conv_stem(x)
        fine = x
        for stage in self.blocks:
            fine, x = x, stage(x)
        return x if self.msfa is None else self.msfa(fine, x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.global_pool(x)
        if self.msfa is None:
            whole = getattr(self.global_pool, "kind", "own") == ""
            x = self.norm_head(self.conv_head(x if whole else x.flatten(1)[:, :, None, None]))
            x = x if whole else x.flatten(1)
        x = self.drop(x)
        return x if pre_logits else self.classifier(x)

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """As everywhere; the first classifier of an encoder reads the mean of its map unless told otherwise."""
        grows = global_pool is None and num_classes and not self.num_classes
        super().reset_classifier(num_classes, "avg" if grows else global_pool)

    def _advance(self, path: str, step: Any, x: Any) -> tuple[Any, dict[str, Any]]:
        """The state behind the stem is a map and the one before it."""
        before = x[0] if isinstance(x, tuple) else x
        after = step(before)
        return (after, before), {path: after}

    def _final_norm(self, x: Any) -> Tensor:
        return x[0] if self.msfa is None else self.msfa(x[1], x[0])


def enlarged(x: Tensor, like: Tensor) -> Tensor:
    """The map in the size of another, each value repeated."""
    return F.interpolate(x, size=(like.shape[2], like.shape[3]), mode="nearest")


def fitted(x: Tensor, size: Size) -> Tensor:
    """The map in that size: means of whole regions where it divides, else interpolated."""
    height, width = x.shape[2], x.shape[3]
    if height == size[0] and width == size[1]:
        return x
    if height % size[0] or width % size[1]:
        return F.interpolate(x, size=size, mode="bilinear")
    return F.avg_pool2d(x, (height // size[0], width // size[1]))


torch.fx.wrap("enlarged")
torch.fx.wrap("fitted")

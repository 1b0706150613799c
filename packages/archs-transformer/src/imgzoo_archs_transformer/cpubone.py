"""CPUBone: LowFormer (arXiv:2409.03460) for processors that run little in parallel, of grouped and 2x2 convolutions.

Named after its report and weights (timm/cpubone_*, the hub), of which we know no arXiv number.
"""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Literal

from torch import Tensor, nn

from imgzoo.model import ImageModel
from imgzoo_layers.act import create_act
from imgzoo_layers.exchange import Acts, Norms
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.hidden_head import HiddenHead, HiddenPool
from imgzoo_layers.norm import GroupNorm1

from .lowformer import FUSED, ConvAttention, attended_width, build_stages, conv_mlp, transposed
from .mobile_blocks import Residual, Style, conv_act, fused, inverted


class Block(nn.Module):
    """Attention, mlp and a mobile convolution, each on a residual: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, style: Style, dim: int, expand: float, stride: int, drop_path: float, norms: str, small: bool,
                 upsample: str, mlp_ratio: float, mlp_drop: float):  # fmt: skip
        super().__init__()
        kernel = 2 if small else 3 if stride == 1 else 5
        back = nearest(style, dim, stride) if upsample == "nearest" else transposed(style, dim, stride)
        attention = nn.Sequential(GroupNorm1(dim), ConvAttention(style, dim, kernel, stride, back))
        style = style._replace(small=small)
        if dim < FUSED and style.fused:
            local = fused(style, dim, dim, expand, bias=True)
        else:
            local = inverted(style, dim, dim, expand, norms=norms, groups=style.groups)
        first = nn.Sequential(Residual(attention, drop_path=drop_path),
                              Residual(conv_mlp(dim, mlp_ratio, mlp_drop), drop_path=drop_path))  # fmt: skip
        self.total = nn.Sequential(first, Residual(local, drop_path=drop_path))

    def forward(self, x: Tensor) -> Tensor:
        return self.total(x)


def nearest(style: Style, dim: int, stride: int) -> nn.Module:
    """Values as large and wide as what asked, each repeated."""
    up = nn.Upsample(scale_factor=2.0, mode="nearest") if stride > 1 else nn.Identity()
    return nn.Sequential(nn.Conv2d(attended_width(dim), dim, 1), up) if style.fused else up


class Head(nn.Module):
    """1x1, pool, a hidden layer, dropout, linear: (B, C, H, W) -> (B, classes)."""

    def __init__(self, style: Style, dim: int, widths: Sequence[int], num_classes: int, pool: str, drop_rate: float):
        super().__init__()
        wide, hidden = widths
        self.in_conv = conv_act(style, dim, wide)
        self.global_pool = HiddenPool(pool)
        linear = nn.Linear(wide, hidden, bias=False)
        layers = OrderedDict(linear=linear, norm=nn.LayerNorm(hidden), act=create_act(style.act))
        self.pre_classifier = nn.Sequential(layers)
        self.drop = nn.Dropout(drop_rate)
        self.classifier = nn.Sequential(OrderedDict(linear=linear_or_none(hidden, num_classes)))

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.global_pool(self.in_conv(x))
        if getattr(self.global_pool, "kind", "own") == "":  # the classifier looks at every position
            x = self.drop(self.pre_classifier(x.permute(0, 2, 3, 1)))
            return (x if pre_logits else self.classifier(x)).permute(0, 3, 1, 2)
        x = self.drop(self.pre_classifier(x))
        return x if pre_logits else self.classifier(x)


class CPUBone(HiddenHead, ImageModel):
    """`norms` says which layers of the mobile blocks have one: "all", the last two ("depth") or the "last".

    Args:
        expand: widening of the mobile blocks that halve the map; none for that of the others
        block_expand: widening of the other mobile blocks
        stem_expand: widening of those of the stem
        norms: which layers of a mobile block have one: "all", the last two ("depth") or the "last"
        fused_conv: narrow blocks, and those that halve large maps, convolve fully; else depthwise
        fused_down: so do those that halve the map before attention
        expand_groups: groups of the convolutions that widen
        small_kernels: 2x2 kernels in the blocks that attend
        upsample: "nearest" or "transpose", how attention brings its values back to their size
    """

    exchanged = (Acts("hard_swish"), Norms("batchnorm", ("!*.conv_proj.norm",)))
    parts = ImageModel.parts._replace(head="head.classifier.linear")
    hidden = ("head.in_conv", "head.pre_classifier")
    layer_groups = {"stem": r"^stem", "blocks": r"^stages\.(\d+)"}

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 128, 256), depths: Sequence[int] = (0, 1, 1, 3, 4),
                 head_widths: Sequence[int] = (1536, 1600), norms: Literal["all", "depth", "last"] = "last",
                 mlp_ratio: float = 4, expand: float | None = None, block_expand: float = 4, stem_expand: float = 2,
                 fused_conv: bool = True, fused_down: bool = True, expand_groups: int = 2, small_kernels: bool = True,
                 upsample: Literal["nearest", "transpose"] = "nearest", num_classes: int = 1000, in_chans: int = 3,
                 global_pool: str = "avg", drop_rate: float = 0.0, proj_drop_rate: float = 0.1,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        style = Style(groups=expand_groups, fused=fused_conv)
        make = partial(Block, norms=norms, small=small_kernels, upsample=upsample, mlp_ratio=mlp_ratio,
                       mlp_drop=proj_drop_rate)  # fmt: skip
        stages = build_stages(style, in_chans, widths, depths, block_expand, expand or block_expand, stem_expand,
                              drop_path_rate, make, fused_down)  # fmt: skip
        self.stem, self.stages, self.feature_info = stages
        self.num_features, self.head_hidden_size = widths[-1], head_widths[1]
        self.head = Head(style, widths[-1], head_widths, num_classes, global_pool, drop_rate)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.stages(self.stem(x))

"""LowFormer: attention at half the resolution and width, chosen by what hardware runs fast (arXiv:2409.03460)."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.errors import CapabilityError
from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.act import create_act
from imgzoo_layers.attention import Attending
from imgzoo_layers.drop import drop_path_rates
from imgzoo_layers.exchange import Acts, Norms
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.hidden_head import HiddenHead, HiddenPool
from imgzoo_layers.init import init_linear_
from imgzoo_layers.norm import GroupNorm1
from imgzoo_layers.util import Layer

from .mobile_blocks import Residual, Style, conv_act, fused, inverted, mobile

FUSED = 256
"""Narrower blocks convolve fully, others depthwise."""


class ConvAttention(Attending):
    """Subsample by a depthwise convolution, attend with half the width, bring back: (B, C, H, W) -> (B, C, H, W).

    `upsampling` widens, too, where the style is fused; else a projection before it does.
    """

    def __init__(self, style: Style, dim: int, kernel: int, stride: int, upsampling: nn.Module):
        heads = max(1, dim // 2 // 30)
        super().__init__(heads, dim // 2 // heads)
        self.pad = kernel == stride  # windows side by side need an even number of rows and columns
        self.conv_proj = conv_act(style, dim, dim, kernel, stride, dim, act=False)
        self.pwise = nn.Conv2d(dim, 3 * heads * self.head_dim, 1, bias=False)
        self.o_proj = nn.Identity() if style.fused else nn.Conv2d(heads * self.head_dim, dim, 1)
        self.upsampling = upsampling

    def forward(self, x: Tensor) -> Tensor:
        high, wide = x.shape[2], x.shape[3]
        y = self.conv_proj(F.pad(x, (0, wide % 2, 0, high % 2)) if self.pad else x)
        qkv = self.pwise(y).flatten(2).unflatten(1, (self.num_heads, 3, self.head_dim))
        q, k, v = qkv.transpose(-1, -2).unbind(2)  # (B, heads, N, D)
        z = self.attend(q, k, v).transpose(-1, -2).flatten(1, 2)
        return self.upsampling(self.o_proj(z.unflatten(2, (y.shape[2], y.shape[3]))))[:, :, :high, :wide]


def attended_width(dim: int) -> int:
    """Width of the values: half, as whole heads."""
    heads = max(1, dim // 2 // 30)
    return dim // 2 // heads * heads


def transposed(style: Style, dim: int, stride: int) -> nn.Module:
    """Values as large and wide as what asked, by a transposed convolution: of all channels where the style is fused."""
    width, groups = (attended_width(dim), 1) if style.fused else (dim, dim)
    return nn.ConvTranspose2d(width, dim, 2 * stride if stride > 1 else 3, stride, 1, groups=groups)


def conv_mlp(dim: int, ratio: float, drop: float) -> nn.Sequential:
    """Norm and two pointwise layers."""
    hidden = int(dim * ratio)
    return nn.Sequential(GroupNorm1(dim), nn.Conv2d(dim, hidden, 1), nn.GELU(), nn.Conv2d(hidden, dim, 1),
                         nn.Dropout(drop))  # fmt: skip


class Block(nn.Module):
    """Attention, mlp and a mobile convolution, each on a residual: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, style: Style, dim: int, expand: float, stride: int, drop_path: float, attn: bool,
                 mlp_ratio: float, mlp_drop: float):  # fmt: skip
        super().__init__()
        self.attn: nn.Module = nn.Identity()
        self.mlp: nn.Module = nn.Identity()
        if attn:
            attention = ConvAttention(style, dim, 5 if stride > 1 else 3, stride, transposed(style, dim, stride))
            main = nn.Sequential(GroupNorm1(dim), attention) if mlp_ratio else attention
            self.attn = Residual(main, drop_path=drop_path)
        if mlp_ratio:
            self.mlp = Residual(conv_mlp(dim, mlp_ratio, mlp_drop), drop_path=drop_path)
        if dim < FUSED and style.fused:
            local = fused(style, dim, dim, expand, bias=True)
        else:
            local = inverted(style, dim, dim, expand, norms="last", groups=style.groups, groups_out=style.groups)
        self.local = Residual(local, drop_path=drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return self.local(self.mlp(self.attn(x)))


def build_stages(style: Style, in_chans: int, widths: Sequence[int], depths: Sequence[int], expand: float,
                 expand_down: float, expand_stem: float, drop_path_rate: float, make_block: Layer,
                 fused_down: bool, grouped: bool = False):  # fmt: skip
    """Stem and four stages, the last two of attention; the first block of each halves the map, before attention fused
    or not by `fused_down`. Blocks that are not fused narrow in groups where they are `grouped`."""
    groups = style.groups if grouped else 1
    dim, *dims = widths
    first, *rates = drop_path_rates(drop_path_rate, list(depths))
    residuals = [Residual(mobile(style, dim, dim, expand_stem, 1, groups), drop_path=drop) for drop in first]
    stem = nn.Sequential(conv_act(style, in_chans, dim, 3, 2), *residuals)
    stages, levels = [], []
    for i, (out, drops) in enumerate(zip(dims, rates, strict=True)):
        halving = style if i < 2 else style._replace(fused=fused_down)
        blocks: list[nn.Module] = [Residual(mobile(halving, dim, out, expand_down, 2, groups), shortcut=False)]
        if i < 2:
            blocks += [Residual(mobile(style, out, out, expand, 1, groups), drop_path=drop) for drop in drops[1:]]
        else:
            blocks += [make_block(style, out, expand, stride=2 if i == 2 else 1, drop_path=drop) for drop in drops]
        stages.append(nn.Sequential(*blocks))
        levels.append(Feature(out, 4 * 2**i, f"stages.{i}"))
        dim = out
    return stem, nn.Sequential(*stages), FeatureInfo(levels)


class LowFormer(HiddenHead, ImageModel):
    """Without `attn_mlp` the attention has neither norm nor mlp.

    Args:
        attn: attention in the last stages
        attn_mlp: norm and mlp behind the attention
        expand: widening of the mobile blocks that halve the map; none for that of the others
        block_expand: widening of the other mobile blocks
        stem_expand: widening of those of the stem
        fused_conv: narrow blocks, and those that halve the map, convolve fully; else all of them depthwise
        expand_groups: groups of the convolutions that widen, and of those that narrow behind a depthwise one
    """

    exchanged = (Acts("hard_swish"), Norms("batchnorm", ("!*.conv_proj.norm",)))
    layout_from = 4
    reads_maps = True
    parts = Parts(pool="global_pool", head="classifier")
    hidden = ("in_conv", "pre_classifier")
    layer_groups = {
        "stem": r"^stem\.\d+",
        "blocks": r"^stages\.(\d+)\.(\d+)",
        "coarse": r"^stages\.(\d+)",
    }

    def __init__(self, widths: Sequence[int] = (16, 32, 64, 128, 256), depths: Sequence[int] = (0, 1, 1, 3, 4),
                 head_widths: Sequence[int] = (1536, 1600), attn: bool = True, attn_mlp: bool = True,
                 mlp_ratio: float = 4, expand: float | None = None, block_expand: float = 4, stem_expand: float = 2,
                 fused_conv: bool = True, expand_groups: int = 1, num_classes: int = 1000, in_chans: int = 3,
                 global_pool: str = "avg", drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        if proj_drop_rate and not attn_mlp:
            raise CapabilityError("these blocks have nothing that proj_drop_rate drops; leave it out")
        style, ratio = Style(groups=expand_groups, fused=fused_conv), mlp_ratio if attn_mlp else 0.0
        make = partial(Block, attn=attn, mlp_ratio=ratio, mlp_drop=proj_drop_rate)
        stages = build_stages(style, in_chans, widths, depths, block_expand, expand or block_expand, stem_expand,
                              drop_path_rate, make, fused_conv, grouped=True)  # fmt: skip
        self.stem, self.stages, self.feature_info = stages
        wide, hidden = head_widths
        self.num_features, self.head_hidden_size = widths[-1], hidden
        self.global_pool = HiddenPool(global_pool)
        self.in_conv = conv_act(style, widths[-1], wide)
        self.pre_classifier = nn.Sequential(nn.Linear(wide, hidden, bias=False), nn.LayerNorm(hidden),
                                            create_act(style.act))  # fmt: skip
        self.head_drop = nn.Dropout(drop_rate)
        self.classifier = linear_or_none(hidden, num_classes)
        init_linear_(self)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.stages(self.stem(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.global_pool(self.in_conv(x))
        if getattr(self.global_pool, "kind", "own") == "":  # the classifier looks at every position
            x = self.head_drop(self.pre_classifier(x.permute(0, 2, 3, 1)))
            return (x if pre_logits else self.classifier(x)).permute(0, 3, 1, 2)
        x = self.head_drop(self.pre_classifier(x))
        return x if pre_logits else self.classifier(x)

"""EfficientViT of MIT: linear attention by ReLU at several scales between mobile convolutions (arXiv:2205.14756)."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.errors import UsageError
from imgzoo.model import Feature, FeatureInfo, ImageModel
from imgzoo_layers.act import create_act
from imgzoo_layers.exchange import Norms
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.hidden_head import HiddenHead, HiddenPool

from .mobile_blocks import Residual, Style, conv_act, fused, inverted, separable, two_convs

LARGE = ((16, 4), (16, 4), (16, 4), (24, 6))
"""How much the first and the other blocks of a stage widen in a large network."""


class LiteMLA(nn.Module):
    """Attention by ReLU of queries and keys, and of their 5x5 neighborhoods: (B, C, H, W) -> (B, C, H, W).

    Without a softmax keys and values can be multiplied first, so the cost is linear in the positions.
    """

    def __init__(self, style: Style, dim: int, head_dim: int):
        super().__init__()
        self.head_dim, self.eps = head_dim, 1e-5
        heads = dim // head_dim
        wide = heads * head_dim
        self.qkv = conv_act(style, dim, 3 * wide, norm=False, act=False)
        depthwise = nn.Conv2d(3 * wide, 3 * wide, 5, padding=2, groups=3 * wide, bias=False)
        pointwise = nn.Conv2d(3 * wide, 3 * wide, 1, groups=3 * heads, bias=False)
        self.aggreg = nn.ModuleList([nn.Sequential(depthwise, pointwise)])
        self.proj = conv_act(style, 2 * wide, dim, act=False)

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.qkv(x)
        qkv = torch.cat([qkv, self.aggreg[0](qkv)], dim=1)
        q, k, v = qkv.flatten(2).unflatten(1, (-1, 3, self.head_dim)).transpose(-1, -2).unbind(2)  # (B, heads, N, D)
        q, k = q.relu(), k.relu()
        v = F.pad(v, (0, 1), value=1.0)  # the last column becomes the sum of weights
        y = q @ (k.transpose(-1, -2) @ v)
        y = y[..., :-1] / (y[..., -1:] + self.eps)
        return self.proj(y.transpose(-1, -2).flatten(1, 2).unflatten(2, (x.shape[2], x.shape[3])))


class Block(nn.Module):
    """Attention, then a mobile convolution, each on a residual: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, style: Style, dim: int, head_dim: int, expand: float):
        super().__init__()
        self.context_module = Residual(LiteMLA(style, dim, head_dim))
        self.local_module = Residual(inverted(style, dim, dim, expand, norms="last"))

    def forward(self, x: Tensor) -> Tensor:
        return self.local_module(self.context_module(x))


class Head(nn.Module):
    """1x1, pool, a hidden layer, dropout, linear: (B, C, H, W) -> (B, classes)."""

    def __init__(self, style: Style, dim: int, widths: Sequence[int], num_classes: int, pool: str, drop_rate: float):
        super().__init__()
        wide, hidden = widths
        self.in_conv = conv_act(style._replace(eps=1e-5), dim, wide)
        self.global_pool = HiddenPool(pool)
        self.classifier = nn.Sequential(
            nn.Linear(wide, hidden, bias=False), nn.LayerNorm(hidden, eps=style.eps), create_act(style.act),
            nn.Dropout(drop_rate), linear_or_none(hidden, num_classes),
        )  # fmt: skip

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.global_pool(self.in_conv(x))
        if getattr(self.global_pool, "kind", "own") == "":  # the classifier looks at every position
            x = self.hidden(x.permute(0, 2, 3, 1))
            return (x if pre_logits else self.classifier[4](x)).permute(0, 3, 1, 2)
        x = self.hidden(x)
        return x if pre_logits else self.classifier[4](x)

    def hidden(self, x: Tensor) -> Tensor:
        return self.classifier[3](self.classifier[2](self.classifier[1](self.classifier[0](x))))


class EfficientVit(HiddenHead, ImageModel):
    """`large` makes the first two stages of fused blocks and keeps attention to the last.

    Args:
        expand_ratio: widening of the mobile blocks of a small network
        large: fused blocks first, attention only in the last stages
        act: activation of the blocks, in large networks of the head too; GELU's approximation there, else hard swish
    """

    exchanged = (Norms("batchnorm", ("!head.*",)),)
    parts = ImageModel.parts._replace(head="head.classifier.4")
    hidden = ("head.in_conv", "head.classifier.0", "head.classifier.1", "head.classifier.2")
    flat_parts = ("stem",)
    layer_groups = {
        "stem": r"^stem",
        "blocks": r"^stages\.(\d+)\.\w+\.(\d+)",
        "coarse": r"^stages\.(\d+)",
    }

    def __init__(self, widths: Sequence[int] = (8, 16, 32, 64, 128), depths: Sequence[int] = (1, 2, 2, 2, 2),
                 head_dim: int = 16, expand_ratio: float = 4, head_widths: Sequence[int] = (1024, 1280),
                 large: bool = False, act: str | None = None, num_classes: int = 1000, in_chans: int = 3,
                 global_pool: str = "avg", drop_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        if large and expand_ratio != 4:
            raise UsageError(f"large networks widen as their paper says: expand_ratio is 4, not {expand_ratio}")
        style = Style(act or "gelu_tanh", 1e-7) if large else Style(act or "hard_swish")
        dim, *dims = widths
        stem: OrderedDict[str, nn.Module] = OrderedDict(in_conv=conv_act(style, in_chans, dim, 3, 2))
        for i in range(depths[0]):
            stem[f"res{i}"] = Residual((two_convs if large else separable)(style, dim, dim))
        self.stem = nn.Sequential(stem)
        stages, levels = [], []
        for i, (out, depth) in enumerate(zip(dims, depths[1:], strict=True)):
            blocks = make_stage(
                style, dim, out, depth, i, head_dim, LARGE[i] if large else (expand_ratio, expand_ratio), large
            )
            stages.append(nn.Sequential(OrderedDict(blocks=nn.Sequential(*blocks))))
            levels.append(Feature(out, 4 * 2**i, f"stages.{i}"))
            dim = out
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features, self.head_hidden_size = dim, head_widths[1]
        self.head = Head(style if large else Style(), dim, head_widths, num_classes, global_pool, drop_rate)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self._through_stages(self.stem(x))


def make_stage(style: Style, dim: int, dim_out: int, depth: int, index: int, head_dim: int,
               expands: tuple[float, float], large: bool):  # fmt: skip
    """The blocks of a stage; the first halves the map, and in a small network counts where there is no attention."""
    expand, more = expands
    attend, norms = index > (2 if large else 1), "last" if index > 1 else "all"
    make = fused if large and index < 2 else partial(inverted, norms=norms)
    blocks: list[nn.Module] = [Residual(make(style, dim, dim_out, expand, stride=2), False)]
    if attend:
        return blocks + [Block(style, dim_out, head_dim, more) for _ in range(depth)]
    return blocks + [Residual(make(style, dim_out, dim_out, more)) for _ in range(depth if large else depth - 1)]

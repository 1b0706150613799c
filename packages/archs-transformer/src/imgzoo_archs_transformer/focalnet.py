"""FocalNet: every position is modulated by contexts of growing size instead of attending (arXiv:2203.11926)."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel
from imgzoo_layers.attention import LayerScale2d
from imgzoo_layers.drop import drop_path_of, drop_path_rates, dropout_of
from imgzoo_layers.exchange import HeadScale, Norms
from imgzoo_layers.head import ClassifierHead, NormMlpHead
from imgzoo_layers.init import trunc_normal_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import LayerNorm2d
from imgzoo_layers.stage import Stage


class FocalModulation(nn.Module):
    """query * h(gated sum of contexts), projected; the last context is global: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, levels: int, window: int, norm: bool, mean: bool, drop: float):
        super().__init__()
        self.share = 1 / (levels + 1) if mean else 1.0
        self.splits = [dim, dim, levels + 1]
        self.f = nn.Conv2d(dim, 2 * dim + levels + 1, 1)
        self.h = nn.Conv2d(dim, dim, 1)
        self.act = nn.GELU()
        self.proj = nn.Conv2d(dim, dim, 1)
        self.proj_drop = dropout_of(drop)
        kernels = [window + 2 * i for i in range(levels)]
        self.focal_layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(dim, dim, k, padding=k // 2, groups=dim, bias=False), nn.GELU()) for k in kernels
        )
        self.norm = LayerNorm2d(dim, eps=1e-5) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        query, context, gates = torch.split(self.f(x), self.splits, 1)
        total = torch.zeros_like(context)
        for i, layer in enumerate(self.focal_layers):
            context = layer(context)
            total = total + context * gates[:, i : i + 1]
        total = total + self.act(context.mean((2, 3), keepdim=True)) * gates[:, -1:]
        if self.share != 1.0:
            total = total * self.share
        return self.proj_drop(self.proj(self.norm(query * self.h(total))))


class Block(nn.Module):
    """Modulation, then an mlp, each on a residual, with the norm before or (`post`) behind: (B, C, H, W) -> same."""

    def __init__(self, dim: int, levels: int, window: int, mlp_ratio: float, post: bool, inner_norm: bool,
                 mean: bool, layer_scale: float | None, drop: float, drop_path: float):  # fmt: skip
        super().__init__()
        norms = [LayerNorm2d(dim, eps=1e-5) for _ in range(2)]
        scales = [LayerScale2d(dim, layer_scale) if layer_scale else nn.Identity() for _ in range(2)]
        self.norm1 = nn.Identity() if post else norms[0]
        self.modulation = FocalModulation(dim, levels, window, inner_norm, mean, drop)
        self.norm1_post = norms[0] if post else nn.Identity()
        self.ls1 = scales[0]
        self.drop_path1 = drop_path_of(drop_path)
        self.norm2 = nn.Identity() if post else norms[1]
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=drop, conv=True)
        self.norm2_post = norms[1] if post else nn.Identity()
        self.ls2 = scales[1]
        self.drop_path2 = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.ls1(self.norm1_post(self.modulation(self.norm1(x)))))
        return x + self.drop_path2(self.ls2(self.norm2_post(self.mlp(self.norm2(x)))))


class FocalNet(ImageModel):
    """`overlap` lets the strided convolutions overlap; `post_norm` puts norms behind, `modulation_norm` one inside.

    Args:
        focal_level: rings of context
        focal_window: side of the first ring's kernel
        modulation_norm: a norm behind the modulator
        modulation_mean: the mean of the contexts in place of their sum
    """

    exchanged = (Norms("layernorm2d"), HeadScale())
    parts = ImageModel.parts._replace(stages=("layers",), norm=("norm",))
    layer_groups = {
        "stem": r"^stem",
        "blocks": [
            (r"^layers\.(\d+)\.downsample", (0,)),
            (r"^layers\.(\d+)\.\w+\.(\d+)", None),
            (r"^norm", (99999,)),
        ],
        "coarse": [(r"^layers\.(\d+)", None), (r"^norm", (99999,))],
    }

    def __init__(self, depths: Sequence[int] = (2, 2, 6, 2), embed_dim: int = 96, focal_level: int = 2,
                 focal_window: int = 3, mlp_ratio: float = 4.0, overlap: bool = False, post_norm: bool = False,
                 modulation_norm: bool = False, modulation_mean: bool = False, layer_scale: float | None = None,
                 head_hidden: int = 0, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg",
                 drop_rate: float = 0.0, proj_drop_rate: float = 0.0, drop_path_rate: float = 0.1):  # fmt: skip
        super().__init__(num_classes, in_chans)
        dim = embed_dim
        self.stem = downsample(in_chans, dim, *((7, 4, 2) if overlap else (4, 4, 0)))
        stages, levels = [], []
        for i, drops in enumerate(drop_path_rates(drop_path_rate, depths)):
            down: nn.Module = nn.Identity()
            if i:
                down, dim = downsample(dim, 2 * dim, *((3, 2, 1) if overlap else (2, 2, 0))), 2 * dim
            options = (dim, focal_level, focal_window, mlp_ratio, post_norm, modulation_norm,
                       modulation_mean, layer_scale, proj_drop_rate)  # fmt: skip
            stages.append(Stage(down, *(Block(*options, drop) for drop in drops)))
            levels.append(Feature(dim, 4 * 2**i, f"layers.{i}"))
        self.layers = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim
        norm = partial(LayerNorm2d, eps=1e-5)
        self.norm: nn.Module = nn.Identity() if head_hidden else norm(dim)
        if head_hidden:
            self.head: Any = NormMlpHead(dim, num_classes, global_pool, drop_rate, norm, head_hidden)
        else:
            self.head = ClassifierHead(dim, num_classes, global_pool, drop_rate)
        self.head_hidden_size = head_hidden or dim * self.head.global_pool.width
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.norm(self.layers(self.stem(x)))


def downsample(dim: int, dim_out: int, kernel: int, stride: int, padding: int) -> nn.Sequential:
    """A strided convolution and a norm."""
    conv = nn.Conv2d(dim, dim_out, kernel, stride, padding)
    return nn.Sequential(OrderedDict(proj=conv, norm=LayerNorm2d(dim_out, eps=1e-5)))

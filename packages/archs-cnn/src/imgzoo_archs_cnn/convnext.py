"""ConvNeXt, a ResNet redrawn after Swin (arXiv:2201.03545), and V2 with global response norm (arXiv:2301.00808)."""

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel
from imgzoo_layers.act import create_act
from imgzoo_layers.conv import create_conv
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Biases
from imgzoo_layers.head import norm_and_head
from imgzoo_layers.init import trunc_normal_
from imgzoo_layers.mlp import GlobalResponseNormMlp, Mlp
from imgzoo_layers.norm import Norm, get_norm
from imgzoo_layers.stage import Stage
from imgzoo_layers.util import Layer, dilate, make_divisible, per_stage

NORMS = ("layernorm", "rmsnorm", "simplenorm")
"""Norms of maps in either order of axes."""


class Block(nn.Module):
    """Mix space depthwise, then channels pointwise, on one scaled residual: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, kernel: int, dilation: int, norm: Norm, mlp: Layer, layer_scale: float | None,
                 drop_path: float):  # fmt: skip
        super().__init__()
        self.conv_dw = create_conv(dim, dim, kernel, dilation=dilation, groups=dim, bias=True)
        self.norm = norm(dim)
        self.mlp = mlp(dim, 4 * dim)
        self.gamma = nn.Parameter(torch.full((dim,), float(layer_scale))) if layer_scale is not None else None
        self.drop_path = drop_path_of(drop_path)
        self.conv_mlp = isinstance(self.mlp.fc1, nn.Conv2d)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_dw(x)
        if self.conv_mlp:
            y = self.mlp(self.norm(y))
            if self.gamma is not None:
                y = y * self.gamma[:, None, None]
        else:  # the same maths by linear layers over (B, H, W, C): faster for wide models
            y = self.mlp(self.norm(y.permute(0, 2, 3, 1)))
            if self.gamma is not None:
                y = y * self.gamma
            y = y.permute(0, 3, 1, 2)
        return x + self.drop_path(y)


class ConvNeXt(ImageModel):
    """Args:
    stem: "patch", "overlap", "overlap_tiered" or "overlap_act"
    patch_size: side of a patch of the stem "patch" in pixels
    conv_mlp: mlps of 1x1 convolutions on maps (B, C, H, W)
    grn: global response norm in the mlps
    head_norm_first: norm before the pool
    head_init_scale: factor of the classifier's initial values
    """

    exchanged = (Biases(("stem.*", "stages.*.downsample.*", "stages.*.conv_dw"), ("conv_bias",)),)
    layer_groups = {
        "stem": r"^stem",
        "blocks": [
            (r"^stages\.(\d+)\.downsample", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^norm_pre", (99999,)),
        ],
        "coarse": r"^stages\.(\d+)",
    }
    parts = ImageModel.parts._replace(norm=("norm_pre",))

    def __init__(self, depths: Sequence[int] = (3, 3, 9, 3), dims: Sequence[int] = (96, 192, 384, 768),
                 kernels: int | Sequence[int] = (7, 7, 7, 7),
                 stem: Literal["patch", "overlap", "overlap_tiered", "overlap_act"] = "patch", patch_size: int = 4,
                 conv_mlp: bool = False, grn: bool = False, norm: str = "layernorm", eps: float = 1e-6,
                 act: str = "gelu", layer_scale: float | None = 1e-6, head_norm_first: bool = False,
                 head_hidden: int | None = None, head_init_scale: float = 1.0, num_classes: int = 1000,
                 in_chans: int = 3, global_pool: str = "avg", output_stride: int = 32, drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        if norm not in NORMS and not (norm == "batchnorm" and conv_mlp):
            raise ValueError(f"norm is {', '.join(NORMS)}, or batchnorm with conv_mlp=True, not {norm!r}")
        norm2d, norm1d = get_norm(f"{norm}2d", eps=eps), get_norm(norm, eps=eps)
        make_mlp = partial(GlobalResponseNormMlp if grn else Mlp, act=act, conv=conv_mlp)
        make_block = partial(Block, norm=norm2d if conv_mlp else norm1d, mlp=make_mlp, layer_scale=layer_scale)
        self.stem = make_stem(stem, in_chans, dims[0], patch_size, norm2d, act)
        stages, levels, reached, kernels = [], [], patch_size, per_stage(kernels, len(depths))
        halved = stem == "patch" and patch_size == 2  # the first stage makes up for it
        steps = dilate((1 + halved, 2, 2, 2), output_stride, start=patch_size)
        for i, (drops, (stride, before, dilation)) in enumerate(zip(drop_path_rates(drop_path_rate, depths), steps)):
            down: nn.Module = nn.Identity()
            if i or halved:
                dim = dims[max(i - 1, 0)]
                kernel = 2 if stride > 1 or before != dilation else 1
                padding = "same" if dilation > 1 else 0
                conv = create_conv(dim, dims[i], kernel, stride, padding, before, bias=True)
                down = nn.Sequential(norm2d(dim), conv)
            stages.append(Stage(down, *(make_block(dims[i], kernels[i], dilation, drop_path=p) for p in drops)))
            reached *= stride
            levels.append(Feature(dims[i], reached, f"stages.{i}"))
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        dim = self.num_features = dims[-1]
        self.norm_pre, self.head = norm_and_head(dim, num_classes, global_pool, drop_rate, norm2d, head_norm_first,
                                                 head_hidden)  # fmt: skip
        self.head_hidden_size = self.head.dim * self.head.global_pool.width
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        if num_classes and head_init_scale != 1.0:
            fc: Any = self.head.fc
            fc.weight.data.mul_(head_init_scale)
            fc.bias.data.mul_(head_init_scale)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.norm_pre(self.stages(self.stem(x)))


def make_stem(kind: str, in_chans: int, dim: int, patch_size: int, norm: Norm, act: str) -> nn.Sequential:
    """(B, 3, H, W) -> (B, dim, H/4, W/4): one patch convolution, or two that overlap (the first half as wide if
    "overlap_tiered", an activation between if "overlap_act")."""
    if kind == "patch":
        return nn.Sequential(nn.Conv2d(in_chans, dim, patch_size, patch_size), norm(dim))
    if patch_size != 4:
        raise ValueError(f"convolutions that overlap reduce the image by 4: leave patch_size={patch_size} out")
    middle = make_divisible(dim // 2) if kind == "overlap_tiered" else dim
    between = [create_act(act)] if kind == "overlap_act" else []
    return nn.Sequential(nn.Conv2d(in_chans, middle, 3, 2, 1), *between, nn.Conv2d(middle, dim, 3, 2, 1), norm(dim))

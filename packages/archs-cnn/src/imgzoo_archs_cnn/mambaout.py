"""MambaOut: gated convolution blocks, Mamba's without its state space model (arXiv:2405.07992)."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel
from imgzoo_layers.act import create_act
from imgzoo_layers.attention import layer_scale_of
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Norms
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.hidden_head import HiddenHead, HiddenPool
from imgzoo_layers.init import trunc_normal_
from imgzoo_layers.norm import LayerNorm
from imgzoo_layers.stage import Stage


class Stem(nn.Module):
    """Two strided 3x3: (B, 3, H, W) -> (B, H/4, W/4, dim)."""

    def __init__(self, in_chans: int, dim: int, act: str, mid_norm: bool):
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, dim // 2, 3, 2, 1)
        self.norm1 = LayerNorm(dim // 2) if mid_norm else nn.Identity()
        self.act = create_act(act)
        self.conv2 = nn.Conv2d(dim // 2, dim, 3, 2, 1)
        self.norm2 = LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.norm1(self.conv1(x).permute(0, 2, 3, 1)))
        return self.norm2(self.conv2(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class Downsample(nn.Module):
    """A strided 3x3, then the norm: (B, H, W, C) -> (B, H/2, W/2, dim_out)."""

    def __init__(self, dim: int, dim_out: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim_out, 3, 2, 1)
        self.norm = LayerNorm(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))


class DownsampleNormFirst(nn.Module):
    """The norm, then a strided 3x3."""

    def __init__(self, dim: int, dim_out: int):
        super().__init__()
        self.norm = LayerNorm(dim)
        self.conv = nn.Conv2d(dim, dim_out, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class GatedConvBlock(nn.Module):
    """act(gate) * (some channels mixed depthwise, some not), on a residual: (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int, expansion_ratio: float, conv_ratio: float, kernel: int, act: str,
                 layer_scale: float | None, drop_path: float):  # fmt: skip
        super().__init__()
        hidden, mixed = int(expansion_ratio * dim), int(conv_ratio * dim)
        self.norm = LayerNorm(dim)
        self.fc1 = nn.Linear(dim, 2 * hidden)
        self.act = create_act(act)
        self.splits = [hidden, hidden - mixed, mixed]
        self.conv = nn.Conv2d(mixed, mixed, kernel, padding=kernel // 2, groups=mixed)
        self.fc2 = nn.Linear(hidden, dim)
        self.ls = layer_scale_of(dim, layer_scale)
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        gate, same, mixed = torch.split(self.fc1(self.norm(x)), self.splits, dim=-1)
        mixed = self.conv(mixed.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        y = self.fc2(self.act(gate) * torch.cat([same, mixed], dim=-1))
        return x + self.drop_path(self.ls(y))


class Head(nn.Module):
    """Pool, norm, a hidden layer and perhaps its norm, dropout, linear: (B, H, W, C) -> (B, classes)."""

    def __init__(self, dim: int, num_classes: int, pool: str, drop_rate: float, hidden_norm: bool):
        super().__init__()
        self.global_pool = HiddenPool(pool, channels_last=True)
        self.norm = LayerNorm(dim)
        self.pre_logits = nn.Sequential(OrderedDict(fc=nn.Linear(dim, 4 * dim), act=nn.GELU()))
        if hidden_norm:
            self.pre_logits.add_module("norm", LayerNorm(4 * dim))
        self.drop = nn.Dropout(drop_rate)
        self.fc = linear_or_none(4 * dim, num_classes)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(self.pre_logits(self.norm(self.global_pool(x))))
        return x if pre_logits else self.fc(x)


class MambaOut(HiddenHead, ImageModel):
    """`norm_first` puts norms before the strided convolutions, none into the stem or behind the hidden layer,
    and scales residual branches.

    Args:
        expansion_ratio: hidden channels of a block as a multiple of its width
        conv_ratio: channels that the convolution mixes, as a multiple of the width
        kernel: kernel of the blocks' convolutions
        norm_first: norms before the strided convolutions, none in the stem, and layer scale
        layer_scale: initial value of a learned scale on each residual branch; none as `norm_first` says
        stem_mid_norm: a norm between the stem's convolutions; None for what `norm_first` says
        down_norm_first: norms before the strided convolutions between stages; None for what `norm_first` says
        hidden_norm: a norm behind the head's hidden layer; None for what `norm_first` says
    """

    exchanged = (Norms("layernorm*"),)
    hidden = ("head.norm", "head.pre_logits")
    channels_last = True
    formats = ("NCHW", "NHWC")
    layer_groups = {
        "stem": r"^stem",
        "blocks": [(r"^stages\.(\d+)\.downsample", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)],
        "coarse": r"^stages\.(\d+)",
    }

    def __init__(self, depths: Sequence[int] = (3, 3, 9, 3), dims: Sequence[int] = (96, 192, 384, 576),
                 expansion_ratio: float = 8 / 3, conv_ratio: float = 1.0, kernel: int = 7, norm_first: bool = False,
                 layer_scale: float | None = None, stem_mid_norm: bool | None = None,
                 down_norm_first: bool | None = None, hidden_norm: bool | None = None, act: str = "gelu",
                 num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        down_norm_first = norm_first if down_norm_first is None else down_norm_first
        self.stem = Stem(in_chans, dims[0], act, not norm_first if stem_mid_norm is None else stem_mid_norm)
        scale = 1e-5 if norm_first and layer_scale is None else layer_scale
        make_down, stages = DownsampleNormFirst if down_norm_first else Downsample, []
        for i, (dim, drops) in enumerate(zip(dims, drop_path_rates(drop_path_rate, depths), strict=True)):
            down = make_down(dims[i - 1], dim) if i else nn.Identity()
            blocks: list[nn.Module] = [
                GatedConvBlock(dim, expansion_ratio, conv_ratio, kernel, act, scale, drop) for drop in drops
            ]
            stages.append(Stage(down, *blocks))
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(Feature(dim, 4 * 2**i, f"stages.{i}") for i, dim in enumerate(dims))
        self.num_features, self.head_hidden_size = dims[-1], 4 * dims[-1]
        hidden_norm = not norm_first if hidden_norm is None else hidden_norm
        self.head = Head(dims[-1], num_classes, global_pool, drop_rate, hidden_norm)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, H/32, W/32, C)
        return self.stages(self.stem(x))

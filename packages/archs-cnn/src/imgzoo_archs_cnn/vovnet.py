"""VoVNet: blocks that join the maps of all their layers once, at the end (arXiv:1904.09730, 1911.06667)."""

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel
from imgzoo_layers.conv import ConvNormAct, SeparableConvNormAct
from imgzoo_layers.drop import DropPath, drop_path_of, drop_path_rates
from imgzoo_layers.gate import create_gate
from imgzoo_layers.head import ClassifierHead
from imgzoo_layers.init import init_fan_out_
from imgzoo_layers.norm_act import NormAct, get_norm_act


class Block(nn.Module):
    """One-shot aggregation: (B, C, H, W) -> (B, dim_out, H, W). A residual around it where `residual` is set."""

    def __init__(self, dim: int, hidden: int, dim_out: int, layers: int, residual: bool, depthwise: bool,
                 gate: str | None, norm: NormAct, drop_path: float):  # fmt: skip
        super().__init__()
        self.residual = residual
        dim_all = dim + layers * hidden
        if depthwise and dim != hidden:
            self.conv_reduction: nn.Module = ConvNormAct(dim, hidden, norm=norm)
            dim = hidden
        else:
            self.conv_reduction = nn.Identity()
        self.conv_mid = nn.ModuleList(
            make_conv(depthwise, hidden if j else dim, hidden, 1, norm) for j in range(layers)
        )
        self.conv_concat = ConvNormAct(dim_all, dim_out, norm=norm)
        self.attn = create_gate(gate, dim_out)
        self.drop_path = drop_path_of(drop_path if residual else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        maps, y = [x], self.conv_reduction(x)
        for conv in self.conv_mid:
            y = conv(y)
            maps.append(y)
        y = self.drop_path(self.attn(self.conv_concat(torch.cat(maps, 1))))
        return y + x if self.residual else y


class Stage(nn.Module):
    """Halve the map where asked to, then blocks; only the last has a gate."""

    def __init__(self, pool: nn.Module, blocks: list[nn.Module]):
        super().__init__()
        self.pool = pool
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.pool(x))


class VovNet(ImageModel):
    """Args:
    layers: layers of a block
    hidden: channels of a block's layers, by stage
    residual: a shortcut around each block
    depthwise: depthwise separable layers
    """

    layer_groups = {"stem": r"^stem", "blocks": r"^stages\.(\d+)\.blocks\.(\d+)", "coarse": r"^stages\.(\d+)"}

    def __init__(self, depths: Sequence[int] = (1, 1, 2, 2), layers: int = 5,
                 hidden: Sequence[int] = (128, 160, 192, 224), dims: Sequence[int] = (256, 512, 768, 1024),
                 stem_width: int = 128, residual: bool = True, depthwise: bool = False, gate: str | None = "ese",
                 norm: str = "batchnorm", act: str = "relu", num_classes: int = 1000, in_chans: int = 3,
                 global_pool: str = "avg", drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        make_norm = get_norm_act(norm, act)
        conv = partial(make_conv, depthwise, norm=make_norm)
        first = ConvNormAct(in_chans, 64, 3, 2, norm=make_norm)
        self.stem = nn.Sequential(first, conv(64, 64, 1), conv(64, stem_width, 2))
        stages, levels, dim = [], [Feature(64, 2, "stem.1")], stem_width
        for i, drops in enumerate(drop_path_rates(drop_path_rate, list(depths))):
            blocks: list[nn.Module] = []
            for j, drop in enumerate(drops):
                last = gate if j == len(drops) - 1 else None
                blocks.append(Block(dim, hidden[i], dims[i], residual=residual and j > 0, gate=last,
                                    drop_path=drop, layers=layers, depthwise=depthwise, norm=make_norm))  # fmt: skip
                dim = dims[i]
            stages.append(Stage(nn.MaxPool2d(3, 2, ceil_mode=True) if i else nn.Identity(), blocks))
            levels.append(Feature(dim, 4 * 2**i, f"stages.{i}"))
        self.stages = nn.Sequential(*stages)
        self._refuse_idle(DropPath, drop_path_rate=drop_path_rate)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim
        self.head = ClassifierHead(dim, num_classes, global_pool, drop_rate)
        self.head_hidden_size = dim * self.head.global_pool.width
        init_fan_out_(self)
        if num_classes:
            nn.init.zeros_(self.head.fc.get_parameter("bias"))

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.stages(self.stem(x))


def make_conv(depthwise: bool, dim: int, dim_out: int, stride: int, norm: NormAct) -> nn.Module:
    """A 3x3 convolution, whole or separable, with norm and activation."""
    if depthwise:
        return SeparableConvNormAct(dim, dim_out, stride=stride, norm=norm)
    return ConvNormAct(dim, dim_out, 3, stride, norm=norm)

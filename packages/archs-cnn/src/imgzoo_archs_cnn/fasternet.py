"""FasterNet: convolve a quarter of the channels, leave the others as they are (arXiv:2303.03667)."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.act import create_act
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Norms
from imgzoo_layers.hidden_head import ConvHead
from imgzoo_layers.init import trunc_normal_


class PartialConv(nn.Module):
    """3x3 on the first of `n_div` parts of the channels: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, n_div: int):
        super().__init__()
        mixed = dim // n_div
        self.splits = [mixed, dim - mixed]
        self.partial_conv3 = nn.Conv2d(mixed, mixed, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        mixed, same = torch.split(x, self.splits, 1)
        return torch.cat([self.partial_conv3(mixed), same], dim=1)


class Block(nn.Module):
    """Mix space partially, then channels, on a residual: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, mlp_ratio: float, n_div: int, act: str, layer_scale: float, drop_path: float):
        super().__init__()
        hidden = int(mlp_ratio * dim)
        self.mlp = nn.Sequential(nn.Conv2d(dim, hidden, 1, bias=False), nn.BatchNorm2d(hidden),
                                 create_act(act, inplace=True), nn.Conv2d(hidden, dim, 1, bias=False))  # fmt: skip
        self.spatial_mixing = PartialConv(dim, n_div)
        self.layer_scale = nn.Parameter(torch.full((dim,), layer_scale)) if layer_scale else None
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.mlp(self.spatial_mixing(x))
        return x + self.drop_path(y if self.layer_scale is None else y * self.layer_scale[:, None, None])


class Stage(nn.Module):
    """Halve the map, then blocks of one width."""

    def __init__(self, downsample: nn.Module, blocks: list[nn.Module]):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)
        self.downsample = downsample

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.downsample(x))


class FasterNet(ConvHead, ImageModel):
    """Args:
    patch_norm: a norm behind the patches
    merge_size: how much each stage reduces the map, along a side
    n_div: how many parts the channels have, of which the first is convolved
    """

    parts = Parts(stem=("patch_embed",), pool="global_pool", head="classifier")
    exchanged = (Norms("batchnorm"),)
    layer_groups = {
        "stem": r"^patch_embed",
        "blocks": [
            (r"^stages\.(\d+)\.downsample", (0,)),
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^conv_head", (99999,)),
        ],
        "coarse": r"^stages\.(\d+)",
    }

    def __init__(self, embed_dim: int = 96, depths: Sequence[int] = (1, 2, 8, 2), mlp_ratio: float = 2.0,
                 n_div: int = 4, patch_size: int = 4, patch_norm: bool = True, merge_size: int = 2,
                 layer_scale: float = 0.0, act: str = "relu", head_hidden: int = 1280, num_classes: int = 1000,
                 in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0,
                 drop_path_rate: float = 0.1):  # fmt: skip
        super().__init__(num_classes, in_chans)
        proj = nn.Conv2d(in_chans, embed_dim, patch_size, patch_size, bias=False)
        norm = nn.BatchNorm2d(embed_dim) if patch_norm else nn.Identity()
        self.patch_embed = nn.Sequential(OrderedDict(proj=proj, norm=norm))
        dim, stages, levels = embed_dim, [], []
        for i, drops in enumerate(drop_path_rates(drop_path_rate, depths)):
            down: nn.Module = nn.Identity()
            if i:
                reduction = nn.Conv2d(dim, 2 * dim, merge_size, merge_size, bias=False)
                dim = 2 * dim
                down = nn.Sequential(OrderedDict(reduction=reduction, norm=nn.BatchNorm2d(dim)))
            stages.append(Stage(down, [Block(dim, mlp_ratio, n_div, act, layer_scale, drop) for drop in drops]))
            levels.append(Feature(dim, patch_size * merge_size**i, f"stages.{i}"))
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self._add_head(dim, head_hidden, num_classes, global_pool, drop_rate, act, bias=False)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.stages(self.patch_embed(x))

"""InceptionNeXt: ConvNeXt with its large kernel split into a square, two bands and identity (arXiv:2303.16900)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.conv import create_conv
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Acts, Norms
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.hidden_head import HiddenHead, HiddenPool
from imgzoo_layers.init import trunc_normal_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import LayerNorm
from imgzoo_layers.stage import Stage
from imgzoo_layers.util import dilate


class InceptionDWConv2d(nn.Module):
    """Shares of the channels see a 3x3, a wide and a high band; the rest passes: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, band: int, ratio: float, dilation: int):
        super().__init__()
        share, pad = int(dim * ratio), dilation * (band // 2)
        if not 0 < 3 * share <= dim or not band % 2:
            raise ValueError(f"three times {share} of {dim} channels see {band} pixels: branch_ratio is at most a "
                             "third, band_kernel odd")  # fmt: skip
        self.dwconv_hw = nn.Conv2d(share, share, 3, 1, dilation, dilation, share)
        self.dwconv_w = nn.Conv2d(share, share, (1, band), 1, (0, pad), (1, dilation), share)
        self.dwconv_h = nn.Conv2d(share, share, (band, 1), 1, (pad, 0), (dilation, 1), share)
        self.splits = [dim - 3 * share, share, share, share]

    def forward(self, x: Tensor) -> Tensor:
        same, square, wide, high = torch.split(x, self.splits, 1)
        return torch.cat([same, self.dwconv_hw(square), self.dwconv_w(wide), self.dwconv_h(high)], dim=1)


class Block(nn.Module):
    """Mix space, then channels, on one scaled residual: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, band: int, ratio: float, dilation: int, mlp_ratio: int, layer_scale: float,
                 drop_path: float):  # fmt: skip
        super().__init__()
        self.token_mixer = InceptionDWConv2d(dim, band, ratio, dilation)
        self.norm = nn.BatchNorm2d(dim)
        self.mlp = Mlp(dim, mlp_ratio * dim, conv=True)
        self.gamma = nn.Parameter(torch.full((dim,), float(layer_scale)))
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.mlp(self.norm(self.token_mixer(x))) * self.gamma[:, None, None])


class Head(nn.Module):
    """Pool, a hidden layer with norm, dropout, linear: (B, C, H, W) -> (B, classes)."""

    def __init__(self, dim: int, hidden: int, num_classes: int, pool: str, drop_rate: float):
        super().__init__()
        self.global_pool = HiddenPool(pool)
        self.fc1 = nn.Linear(dim, hidden)
        self.act = nn.GELU()
        self.norm = LayerNorm(hidden)
        self.fc2 = linear_or_none(hidden, num_classes)
        self.drop = nn.Dropout(drop_rate)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.global_pool(x)
        if getattr(self.global_pool, "kind", "own") == "":  # the head looks at every position
            x = self.hidden(x.permute(0, 2, 3, 1))
            return (x if pre_logits else self.fc2(x)).permute(0, 3, 1, 2)
        x = self.hidden(x)
        return x if pre_logits else self.fc2(x)

    def hidden(self, x: Tensor) -> Tensor:
        return self.drop(self.norm(self.act(self.fc1(x))))


class MetaNeXt(HiddenHead, ImageModel):
    """Args:
    band_kernel: length of the band-shaped kernels
    branch_ratio: share of channels of each convolution branch
    """

    exchanged = (Acts("gelu", ("!head.act",)), Norms("batchnorm"))
    hidden = ("head.fc1", "head.act", "head.norm")
    parts = Parts(head="head.fc2")
    layer_groups = {
        "stem": r"^stem",
        "blocks": [(r"^stages\.(\d+)\.downsample", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)],
        "coarse": r"^stages\.(\d+)",
    }

    def __init__(self, depths: Sequence[int] = (3, 3, 9, 3), dims: Sequence[int] = (96, 192, 384, 768),
                 mlp_ratios: Sequence[int] = (4, 4, 4, 3), band_kernel: int = 11, branch_ratio: float = 0.125,
                 layer_scale: float = 1e-6, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg",
                 output_stride: int = 32, drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.stem = nn.Sequential(nn.Conv2d(in_chans, dims[0], 4, 4), nn.BatchNorm2d(dims[0]))
        stages, levels, reached = [], [], 4
        steps = dilate((1, 2, 2, 2), output_stride, start=4)
        for i, (drops, (stride, before, dilation)) in enumerate(zip(drop_path_rates(drop_path_rate, depths), steps)):
            down: nn.Module = nn.Identity()
            if i:
                padding = "same" if dilation > 1 else 0
                conv = create_conv(dims[i - 1], dims[i], 2, stride, padding, before, bias=True)
                down = nn.Sequential(nn.BatchNorm2d(dims[i - 1]), conv)
            options = (dims[i], band_kernel, branch_ratio, dilation, mlp_ratios[i], layer_scale)
            stages.append(Stage(down, *(Block(*options, drop) for drop in drops)))
            reached *= stride
            levels.append(Feature(dims[i], reached, f"stages.{i}"))
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features, self.head_hidden_size = dims[-1], 3 * dims[-1]
        self.head = Head(dims[-1], 3 * dims[-1], num_classes, global_pool, drop_rate)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.stages(self.stem(x))

"""EdgeNeXt: growing depthwise kernels, and attention between channels after a split of them (arXiv:2206.10589)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from imgzoo.errors import UsageError
from imgzoo.model import Feature, FeatureInfo, ImageModel
from imgzoo_layers.cross_covariance import CrossCovarianceAttn, PositionalEncodingFourier
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Acts, Biases, HeadScale
from imgzoo_layers.head import norm_and_head
from imgzoo_layers.init import trunc_normal_tf_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import LayerNorm, LayerNorm2d
from imgzoo_layers.stage import Stage
from imgzoo_layers.util import per_stage


class ConvBlock(nn.Module):
    """Mix space depthwise, then channels, on a scaled residual; where it strides, of the first layer's output."""

    def __init__(self, dim: int, dim_out: int, kernel: int, stride: int, bias: bool, layer_scale: float,
                 mlp_ratio: float, drop_path: float):  # fmt: skip
        super().__init__()
        self.strided = stride > 1 or dim != dim_out
        self.gamma = nn.Parameter(torch.full((dim_out,), layer_scale))
        self.conv_dw = nn.Conv2d(dim, dim_out, kernel, stride, kernel // 2, groups=dim, bias=bias)
        self.norm = LayerNorm(dim_out)
        self.mlp = Mlp(dim_out, int(mlp_ratio * dim_out))
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_dw(x)
        shortcut = y if self.strided else x
        y = self.gamma * self.mlp(self.norm(y.permute(0, 2, 3, 1)))
        return shortcut + self.drop_path(y.permute(0, 3, 1, 2))


class SplitTransposeBlock(nn.Module):
    """Depthwise convolutions on shares of the channels, each fed by the one before; then attention between channels,
    and an mlp: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, scales: int, heads: int, position: bool, bias: bool, layer_scale: float,
                 mlp_ratio: float, drop_path: float):  # fmt: skip
        super().__init__()
        share = -(-dim // scales)
        self.splits = [share] * (scales - 1) + [dim - share * (scales - 1)]
        self.gamma_xca = nn.Parameter(torch.full((dim,), layer_scale))
        self.gamma = nn.Parameter(torch.full((dim,), layer_scale))
        self.convs = nn.ModuleList(
            nn.Conv2d(share, share, 3, padding=1, groups=share, bias=bias) for _ in range(scales - 1)
        )
        self.pos_embd = PositionalEncodingFourier(dim) if position else None
        self.norm_xca = LayerNorm(dim)
        self.xca = CrossCovarianceAttn(dim, heads)
        self.norm = LayerNorm(dim)
        self.mlp = Mlp(dim, int(mlp_ratio * dim))
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(x, self.splits, 1)
        y, mixed = parts[0], [parts[-1]]
        for i, conv in enumerate(self.convs):
            y = conv(y if i == 0 else y + parts[i])
            mixed.insert(i, y)
        y = torch.cat(mixed, dim=1)
        if self.pos_embd is not None:
            y = y + self.pos_embd(x)
        y = y.flatten(2).transpose(1, 2)  # (B, N, C)
        y = y + self.drop_path(self.gamma_xca * self.xca(self.norm_xca(y)))
        y = self.gamma * self.mlp(self.norm(y.unflatten(1, (x.shape[2], x.shape[3]))))
        return x + self.drop_path(y.permute(0, 3, 1, 2))


STEM = {"patch": (4, 0), "overlap": (9, 4)}
"""Kernel and padding of the stem, which strides by 4."""


class EdgeNeXt(ImageModel):
    """`overlap` strides by overlapping kernels, the stem's 9x9 and each stage's first depthwise one, without biases.

    Args:
        heads: attention heads, or those of each stage
        kernels: sides of the depthwise convolutions of each stage
        scales: shares of the channels in the blocks of each stage that attend
        global_blocks: blocks at the end of each stage that attend
        positions: stages whose blocks that attend are told the position
        overlap: overlapping strided convolutions, without biases
        down_block: each stage's first block strides, not a layer before it; None for what `overlap` says
        stem: "patch" or "overlap"; None for what `overlap` says
        head_norm_first: norm before the pool
    """

    exchanged = (
        Acts("gelu"),
        Biases(("stem.*", "*.downsample.*", "*.conv_dw", "*.convs.*"), ("conv_bias",)),
        HeadScale(),
    )
    parts = ImageModel.parts._replace(norm=("norm_pre",))
    layer_groups = {
        "stem": r"^stem",
        "blocks": [(r"^stages\.(\d+)\.downsample", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)],
        "coarse": r"^stages\.(\d+)",
    }

    def __init__(self, depths: Sequence[int] = (3, 3, 9, 3), dims: Sequence[int] = (48, 96, 160, 304),
                 heads: int | Sequence[int] = 8, kernels: Sequence[int] = (3, 5, 7, 9),
                 scales: Sequence[int] = (2, 2, 3, 4),
                 global_blocks: Sequence[int] = (0, 1, 1, 1), positions: Sequence[bool] = (False, True, False, False),
                 mlp_ratio: float = 4.0, overlap: bool = False, down_block: bool | None = None,
                 stem: str | None = None, layer_scale: float = 1e-6, head_norm_first: bool = False,
                 num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        dim, bias, heads = dims[0], not overlap, per_stage(heads, len(depths))
        down_block = overlap if down_block is None else down_block
        kernel, pad = STEM[stem or ("overlap" if overlap else "patch")]
        self.stem = nn.Sequential(nn.Conv2d(in_chans, dim, kernel, 4, pad, bias=bias), LayerNorm2d(dim))
        stages, levels = [], []
        for i, (out, drops) in enumerate(zip(dims, drop_path_rates(drop_path_rate, list(depths)), strict=True)):
            down: nn.Module = nn.Identity()
            if i and not down_block:
                down, dim = nn.Sequential(LayerNorm2d(dim), nn.Conv2d(dim, out, 2, 2, bias=bias)), out
            blocks: list[nn.Module] = []
            convs = len(drops) - global_blocks[i]
            if dim != out and convs < 1:
                raise UsageError(f"stage {i} begins with a block that strides: global_blocks is less than its depth")
            for j, drop in enumerate(drops):
                common = (bias, layer_scale, mlp_ratio, drop)
                if j >= convs:
                    blocks.append(SplitTransposeBlock(out, scales[i], heads[i], positions[i], *common))
                else:
                    blocks.append(ConvBlock(dim, out, kernels[i], 2 if dim != out else 1, *common))
                dim = out
            stages.append(Stage(down, *blocks))
            levels.append(Feature(out, 4 * 2**i, f"stages.{i}"))
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim
        self.norm_pre, self.head = norm_and_head(dim, num_classes, global_pool, drop_rate, LayerNorm2d, head_norm_first)
        self.head_hidden_size = dim * self.head.global_pool.width
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                trunc_normal_tf_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.norm_pre(self.stages(self.stem(x)))

"""Next-ViT: blocks of grouped convolutions, every few followed by one that attends and convolves (2207.05501)."""

from collections import OrderedDict
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.attention import Attending
from imgzoo_layers.drop import drop_path_of, drop_path_rates, dropout_of
from imgzoo_layers.exchange import Acts, Norms
from imgzoo_layers.head import ClassifierHead
from imgzoo_layers.init import init_linear_, trunc_normal_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.util import make_divisible


class PatchEmbed(nn.Module):
    """Another width, at a stride the mean of 2x2 first: (B, C, H, W) -> (B, C', H/stride, W/stride)."""

    def __init__(self, dim: int, dim_out: int, stride: int = 1):
        super().__init__()
        changes = stride > 1 or dim != dim_out
        self.pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()
        self.conv = nn.Conv2d(dim, dim_out, 1, bias=False) if changes else nn.Identity()
        self.norm = nn.BatchNorm2d(dim_out) if changes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.pool(x)))


class ConvAttention(nn.Module):
    """Heads that see 3x3 positions by trained weights: (B, C, H, W) -> (B, C, H, W); section 3.2."""

    def __init__(self, dim: int, head_dim: int):
        super().__init__()
        self.group_conv3x3 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim // head_dim, bias=False)
        self.norm = nn.BatchNorm2d(dim)
        self.act = nn.ReLU(inplace=True)
        self.projection = nn.Conv2d(dim, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.act(self.norm(self.group_conv3x3(x))))


class EfficientAttention(Attending):
    """All positions ask the means of `ratio` squared in a row: (B, N, C) -> (B, N, C); section 3.3."""

    def __init__(self, dim: int, head_dim: int, ratio: int, attn_drop: float, proj_drop: float):
        super().__init__(dim // head_dim, head_dim, attn_drop)
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = dropout_of(proj_drop)
        self.sr = nn.AvgPool1d(ratio**2, ratio**2) if ratio > 1 else nn.Identity()
        self.norm = nn.BatchNorm1d(dim) if ratio > 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        few = self.norm(self.sr(x.transpose(1, 2))).transpose(1, 2)
        q, k, v = self.split(self.q(x)), self.split(self.k(few)), self.split(self.v(few))
        return self.proj_drop(self.proj(self.attend(q, k, v).transpose(1, 2).flatten(2)))

    def split(self, x: Tensor) -> Tensor:  # (B, N, C) -> (B, H, N, D)
        return x.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)


def mlp(dim: int, hidden: int, drop: float) -> Mlp:
    """Two pointwise layers with dropout between them only."""
    made = Mlp(dim, hidden, act="relu", drop=drop, conv=True)
    made.drop2.p = 0.0
    return made


class ConvBlock(nn.Module):
    """Convolutional attention, then mlp: (B, C, H, W) -> (B, C', H/stride, W/stride)."""

    def __init__(self, dim: int, dim_out: int, stride: int, head_dim: int, drop: float, drop_path: float):
        super().__init__()
        self.patch_embed = PatchEmbed(dim, dim_out, stride)
        self.mhca = ConvAttention(dim_out, head_dim)
        self.attn_drop_path = drop_path_of(drop_path)
        self.norm = nn.BatchNorm2d(dim_out)
        self.mlp = mlp(dim_out, 3 * dim_out, drop)
        self.mlp_drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        x = x + self.attn_drop_path(self.mhca(x))
        return x + self.mlp_drop_path(self.mlp(self.norm(x)))


class TransformerBlock(nn.Module):
    """A share `mix` of the channels attends, the others convolve what those found; then mlp, as `ConvBlock`."""

    def __init__(self, dim: int, dim_out: int, stride: int, ratio: int, head_dim: int, drop: float, attn_drop: float,
                 mix: float, drop_path: float):  # fmt: skip
        super().__init__()
        attends = make_divisible(int(mix * dim_out), 32)
        if attends >= dim_out:
            raise ValueError(f"{attends} of {dim_out} channels attend and none is left to convolve: give more channels")
        self.patch_embed = PatchEmbed(dim, attends, stride)
        self.norm1 = nn.BatchNorm2d(attends)
        self.e_mhsa = EfficientAttention(attends, head_dim, ratio, attn_drop, drop)
        self.mhsa_drop_path = drop_path_of(mix * drop_path)
        self.projection = PatchEmbed(attends, dim_out - attends)
        self.mhca = ConvAttention(dim_out - attends, head_dim)
        self.mhca_drop_path = drop_path_of((1 - mix) * drop_path)
        self.norm2 = nn.BatchNorm2d(dim_out)
        self.mlp = mlp(dim_out, 2 * dim_out, drop)
        self.mlp_drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch_embed(x)
        height, width = x.shape[2:]
        tokens = self.e_mhsa(self.norm1(x).flatten(2).transpose(1, 2))
        x = x + self.mhsa_drop_path(tokens.transpose(1, 2).unflatten(2, (height, width)))
        y = self.projection(x)
        x = torch.cat([x, y + self.mhca_drop_path(self.mhca(y))], 1)
        return x + self.mlp_drop_path(self.mlp(self.norm2(x)))


class Stage(nn.Module):
    """Blocks one after another, key `blocks`."""

    def __init__(self, blocks: list[nn.Module]):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class NextViT(ImageModel):
    """Behind the first stage the last block of each attends, and in the third every fifth (table 3).

    Args:
        dims: channels of the convolutional blocks, by stage
        dims_attend: channels of the blocks that attend, by stage
        stem_dims: channels of the stem's first three convolutions
        mix_ratio: share of the channels of a block that attend
    """

    exchanged = (Acts("relu"), Norms("batchnorm"))
    parts = Parts(norm=("norm",))
    layer_groups = {
        "stem": r"^stem",
        "blocks": [(r"^stages\.(\d+)\.blocks\.(\d+)", None), (r"^norm", (99999,))],
        "coarse": r"^stages\.(\d+)",
    }

    def __init__(self, depths: Sequence[int] = (3, 4, 10, 3), dims: Sequence[int] = (96, 192, 384, 768),
                 dims_attend: Sequence[int] = (96, 256, 512, 1024), sr_ratios: Sequence[int] = (8, 4, 2, 1),
                 head_dim: int = 32, stem_dims: Sequence[int] = (64, 32, 64), strides: Sequence[int] = (1, 2, 2, 2),
                 mix_ratio: float = 0.75, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg",
                 drop_rate: float = 0.0, proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0,
                 drop_path_rate: float = 0.1):  # fmt: skip
        super().__init__(num_classes, in_chans)
        first, second, dim = stem_dims
        self.stem = nn.Sequential(
            conv_norm_act(in_chans, first, 2), conv_norm_act(first, second, 1), conv_norm_act(second, dim, 1),
            conv_norm_act(dim, dim, 2),
        )  # fmt: skip
        stages, levels, reduced = [], [], 4
        for i, drops in enumerate(drop_path_rates(drop_path_rate, depths)):
            blocks: list[nn.Module] = []
            for j, drop in enumerate(drops):
                attends = i > 0 and (j == depths[i] - 1 or (i == 2 and j % 5 == 4))
                out, stride = (dims_attend if attends else dims)[i], strides[i] if j == 0 else 1
                if attends:
                    block = TransformerBlock(
                        dim,
                        out,
                        stride,
                        sr_ratios[i],
                        head_dim,
                        proj_drop_rate,
                        attn_drop_rate,
                        mix_ratio,
                        drop,
                    )
                else:
                    block = ConvBlock(dim, out, stride, head_dim, proj_drop_rate, drop)
                blocks.append(block)
                dim = out
            stages.append(Stage(blocks))
            reduced *= strides[i]
            levels.append(Feature(dim, reduced, f"stages.{i}"))
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.norm = nn.BatchNorm2d(dim)
        self.num_features = dim
        self.head = ClassifierHead(dim, num_classes, global_pool, drop_rate)
        self.head_hidden_size = dim * self.head.global_pool.width
        init_linear_(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.norm(self.stages(self.stem(x)))


def conv_norm_act(dim: int, dim_out: int, stride: int) -> nn.Sequential:
    conv = nn.Conv2d(dim, dim_out, 3, stride, 1, bias=False)
    return nn.Sequential(OrderedDict(conv=conv, norm=nn.BatchNorm2d(dim_out), act=nn.ReLU(inplace=True)))

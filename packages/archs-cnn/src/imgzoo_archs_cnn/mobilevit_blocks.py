"""Blocks of `byobnet` in which a transformer looks at every second pixel: MobileViT (arXiv:2110.02178) and V2, whose
attention is linear in positions (arXiv:2206.02680)."""

import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo_layers.act import Act
from imgzoo_layers.attention import Attention
from imgzoo_layers.drop import drop_path_of
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import GroupNorm1, LayerNorm
from imgzoo_layers.transformer import Block

from .byob_blocks import ByobBlock, Makers, Sizes


class LinearAttention(nn.Module):
    """One query weighs the keys of all positions to one vector, which scales the values: (B, C, P, N) -> same."""

    def __init__(self, dim: int):
        super().__init__()
        self.splits = [1, dim, dim]
        self.qkv_proj = nn.Conv2d(dim, 1 + 2 * dim, 1)
        self.out_proj = nn.Conv2d(dim, dim, 1)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv_proj(x).split(self.splits, 1)
        context = (k * q.softmax(-1)).sum(-1, keepdim=True)
        return self.out_proj(v.relu() * context)


class LinearBlock(nn.Module):
    """Linear attention, then an mlp, each on a residual: (B, C, P, N) -> (B, C, P, N)."""

    def __init__(self, dim: int, drop_path: float, act: Act):
        super().__init__()
        self.norm1 = GroupNorm1(dim)
        self.attn = LinearAttention(dim)
        self.drop_path1 = drop_path_of(drop_path)
        self.norm2 = GroupNorm1(dim)
        self.mlp = Mlp(dim, 2 * dim, act=act, conv=True)
        self.drop_path2 = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.attn(self.norm1(x)))
        return x + self.drop_path2(self.mlp(self.norm2(x)))


def layer_norm(dim: int) -> LayerNorm:
    return LayerNorm(dim, eps=1e-5)


def transformer(dim: int, depth: int, drop_path: float, act: Act) -> nn.Sequential:
    return nn.Sequential(
        *(Block(dim, Attention(dim, 4), Mlp(dim, 2 * dim, act=act), layer_norm, None, drop_path) for _ in range(depth))
    )


def linear_transformer(dim: int, depth: int, drop_path: float, act: Act) -> nn.Sequential:
    return nn.Sequential(*(LinearBlock(dim, drop_path, act) for _ in range(depth)))


class MobileVitBlock(ByobBlock):
    """A 3x3, then a transformer over the pixels with one place in squares of two, joined with the input."""

    def __init__(self, sizes: Sizes, make: Makers, drop_path: float):
        super().__init__()
        if make.attention is None:
            raise ValueError("a network with 'mobilevit' blocks needs self_attn and its dim and depth")
        layers = make.attention(drop_path=drop_path, act=make.act)
        dim = layers[0].norm1.weight.shape[0]
        self.add_layers(sizes, dim, layers, make)

    def add_layers(self, sizes: Sizes, dim: int, layers: nn.Module, make: Makers) -> None:
        self.conv_kxk = make.conv(sizes.dim_in, sizes.dim_in, 3, dilation=sizes.before)
        self.conv_1x1 = nn.Conv2d(sizes.dim_in, dim, 1, bias=False)
        self.transformer = layers
        self.norm = layer_norm(dim)
        self.conv_proj = make.conv(dim, sizes.dim)
        self.conv_fusion = make.conv(sizes.dim_in + sizes.dim, sizes.dim, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_1x1(self.conv_kxk(x))
        squares = patches(even(y, False))  # (B, C, 4, N)
        batch = squares.shape[0]
        z = self.norm(self.transformer(squares.permute(0, 2, 3, 1).flatten(0, 1)))  # (4B, N, C)
        z = unpatched(z.unflatten(0, (batch, 4)).permute(0, 3, 1, 2), y)
        return self.conv_fusion(torch.cat([x, self.conv_proj(z)], 1))


class MobileVitV2Block(MobileVitBlock):
    """A depthwise 3x3, then linear attention between the pixels with one place in squares of two.

    A map of odd sides is stretched to even ones, and stays so.
    """

    def add_layers(self, sizes: Sizes, dim: int, layers: nn.Module, make: Makers) -> None:
        self.conv_kxk = make.conv(sizes.dim_in, sizes.dim_in, 3, dilation=sizes.before, groups=sizes.dim_in)
        self.conv_1x1 = nn.Conv2d(sizes.dim_in, dim, 1, bias=False)
        self.transformer = layers
        self.norm = GroupNorm1(dim)
        self.conv_proj = make.conv(dim, sizes.dim, apply_act=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv_1x1(self.conv_kxk(even(x, True)))
        z = self.norm(self.transformer(patches(y)))
        return self.conv_proj(unpatched(z, y))


def even(x: Tensor, align: bool) -> Tensor:
    """The map (B, C, H, W), stretched to even sides where it has odd ones."""
    height, width = x.shape[2] + x.shape[2] % 2, x.shape[3] + x.shape[3] % 2
    if x.shape[2] != height or x.shape[3] != width:
        x = F.interpolate(x, (height, width), mode="bilinear", align_corners=align)
    return x


def patches(x: Tensor) -> Tensor:
    """Squares of two: (B, C, H, W) -> (B, C, 4, N), places in a square and squares."""
    x = x.reshape(x.shape[0], x.shape[1], x.shape[2] // 2, 2, x.shape[3] // 2, 2)
    return x.permute(0, 1, 3, 5, 2, 4).flatten(4).flatten(2, 3)


def unpatched(x: Tensor, like: Tensor) -> Tensor:
    """(B, C, 4, N) -> (B, C, H, W), a map of the size of `like`."""
    height, width = like.shape[2], like.shape[3]
    high, wide = (height + 1) // 2, (width + 1) // 2
    x = x.reshape(x.shape[0], x.shape[1], 2, 2, high, wide).permute(0, 1, 4, 2, 5, 3)
    x = x.reshape(x.shape[0], x.shape[1], 2 * high, 2 * wide)
    if height != 2 * high or width != 2 * wide:
        x = F.interpolate(x, (height, width), mode="bilinear", align_corners=False)
    return x


torch.fx.wrap("even")
torch.fx.wrap("patches")
torch.fx.wrap("unpatched")

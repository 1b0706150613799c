"""ViTamin (arXiv:2404.02132): two stages of inverted bottlenecks without batch norm, then a ViT with gated mlps."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from imgzoo_layers.act import GELU
from imgzoo_layers.exchange import Acts, Biases, Norms
from imgzoo_layers.init import init_conv_per_group_
from imgzoo_layers.norm import LayerNorm2d, Norm
from imgzoo_layers.norm_act import LayerNormAct2d
from imgzoo_layers.tables import GridTable

from .vision_transformer import VisionTransformer


class Stem(nn.Module):
    """Two convolutions: (B, C, H, W) -> (B, D, H/2, W/2)."""

    def __init__(self, in_chans: int, dim: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, dim, 3, 2, 1)
        self.norm1 = LayerNormAct2d(dim, eps=1e-6, act=GELU)
        self.conv2 = nn.Conv2d(dim, dim, 3, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.norm1(self.conv1(x)))


class Downsample(nn.Module):
    """The way around a block that halves the map: mean of 3x3, then other channels where they change."""

    def __init__(self, dim: int, dim_out: int):
        super().__init__()
        self.pool = nn.AvgPool2d(3, 2, 1, count_include_pad=False)
        self.expand = nn.Conv2d(dim, dim_out, 1) if dim != dim_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.expand(self.pool(x))


class MbConvBlock(nn.Module):
    """An inverted bottleneck with one layer norm, before it (section 3.2): (B, C, H, W) -> (B, D, H/s, W/s)."""

    def __init__(self, dim: int, dim_out: int, stride: int = 1):
        super().__init__()
        hidden = 4 * dim_out
        self.shortcut = Downsample(dim, dim_out) if stride == 2 else nn.Identity()
        self.pre_norm = LayerNorm2d(dim)
        self.conv1_1x1 = nn.Conv2d(dim, hidden, 1)
        self.act1 = nn.GELU()
        self.conv2_kxk = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden)
        self.act2 = nn.GELU()
        self.conv3_1x1 = nn.Conv2d(hidden, dim_out, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = self.act2(self.conv2_kxk(self.act1(self.conv1_1x1(self.pre_norm(x)))))
        return self.conv3_1x1(y) + self.shortcut(x)


class NormConv(nn.Module):
    """The last halving, to the width of the transformer."""

    def __init__(self, dim: int, dim_out: int):
        super().__init__()
        self.proj = nn.Conv2d(dim, dim_out, 3, 2, 1)
        self.norm = LayerNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.norm(x))


class MbConvStages(nn.Module):
    """(B, 3, H, W) -> (B, D, H/16, W/16)."""

    def __init__(self, in_chans: int, dims: Sequence[int], depths: Sequence[int], dim_out: int):
        super().__init__()
        self.stem = Stem(in_chans, dims[0])
        self.stages = nn.Sequential(*(
            nn.Sequential(*(MbConvBlock(dims[max(i - 1, 0)] if j == 0 else dim, dim, 2 if j == 0 else 1)
                            for j in range(depth)))
            for i, (dim, depth) in enumerate(zip(dims, depths, strict=True))
        ))  # fmt: skip
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_conv_per_group_(module)
        self.pool = NormConv(dims[-1], dim_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.stages(self.stem(x)))


class ConvEmbed(nn.Module):
    """Tokens of the convolutional stages: (B, 3, H, W) -> (B, N, C)."""

    def __init__(self, in_chans: int, dims: Sequence[int], depths: Sequence[int], dim_out: int):
        super().__init__()
        self.backbone = MbConvStages(in_chans, dims, depths, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.backbone(x).flatten(2).transpose(1, 2)


class ViTamin(VisionTransformer):
    """`dims` and `depths` are those of the two convolutional stages; the largest have no position table.

    Args:
        dims: channels of the two convolutional stages
        depths: blocks of the two convolutional stages
    """

    exchanged = (Acts("gelu", ("!patch_embed.*",)), Norms("layernorm", ("!blocks.*.mlp.norm",)),
                 Biases(("*.attn.qkv",)))  # fmt: skip
    tables = {"pos_embed": GridTable()}
    sees_rest = True  # strided convolutions over a border of zeros

    settled = ("act", "embed_norm", "eps", "mlp", "norm", "patch_size")

    def __init__(self, dims: Sequence[int] = (64, 128), depths: Sequence[int] = (2, 4), global_pool: str = "avg",
                 embed_dim: int = 384, depth: int = 14, num_heads: int = 6, mlp_ratio: float = 2.0,
                 class_token: bool = False, **options: Any):  # fmt: skip
        self._stages_of = (dims, depths)
        super().__init__(global_pool=global_pool, embed_dim=embed_dim, depth=depth, num_heads=num_heads, mlp="geglu",
                         mlp_ratio=mlp_ratio, class_token=class_token, **options)  # fmt: skip

    def make_patch_embed(self, in_chans: int, norm: Norm | None, bias: bool) -> nn.Module:
        return ConvEmbed(in_chans, *self._stages_of, self.embed_dim)

    def _blocks(self) -> list[nn.Module]:
        embed: Any = self.patch_embed
        return [*(block for stage in embed.backbone.stages for block in stage), *super()._blocks()]

"""CSATv2: ConvNeXt V2 blocks (arXiv:2301.00808) on the image's frequencies (arXiv:2002.12416), with spatial gates."""

from collections.abc import Sequence

from torch import Tensor, cat, nn
from torch.nn import functional as F

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.attention import Attending, LayerScale2d, layer_scale_of
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.head import NormMlpHead
from imgzoo_layers.init import init_linear_, trunc_normal_
from imgzoo_layers.mlp import GlobalResponseNorm, Mlp
from imgzoo_layers.norm import LayerNorm, LayerNorm2d
from imgzoo_layers.position import ConvPosition

from .dct_stem import LearnableDct2d


class Refinement(nn.Module):
    """A transformer block of width one over a small map: (B, 1, h, w) -> (B, 1, h, w).

    The published weights were trained with each position asking itself alone, so that only values count.
    """

    def __init__(self):
        super().__init__()
        self.pos_embed = ConvPosition(1)
        self.norm1 = nn.LayerNorm(1)
        self.qkv = nn.Linear(1, 3, bias=False)
        self.norm2 = nn.LayerNorm(1)
        self.mlp = Mlp(1, 4)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        x = x + self.qkv(self.pos_embed(self.norm1(x), (height, width)))[:, :, 2:]
        x = x + self.mlp(self.norm2(x))
        return x.transpose(1, 2).unflatten(2, (height, width))


class SpatialAttention(nn.Module):
    """What each of 7x7 regions is worth, by mean and maximum of its channels: (B, C, H, W) -> (B, 1, 7, 7)."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)
        self.attn = Refinement()

    def forward(self, x: Tensor) -> Tensor:
        x = cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return self.attn(self.conv(F.adaptive_avg_pool2d(x, 7)))


class ConvBlock(nn.Module):
    """ConvNeXt V2's, its residual weighed by regions: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, layer_scale: float | None, drop_path: float):
        super().__init__()
        self.dwconv = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.norm = LayerNorm(dim)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.grn = GlobalResponseNorm(4 * dim)
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.ls = LayerScale2d(dim, layer_scale) if layer_scale else nn.Identity()
        self.drop_path = drop_path_of(drop_path)
        self.attn = SpatialAttention()

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.dwconv(x).permute(0, 2, 3, 1))
        y = self.pwconv2(self.grn(self.act(self.pwconv1(y)))).permute(0, 3, 1, 2)
        gate = F.interpolate(self.attn(y), size=x.shape[2:], mode="bilinear", align_corners=True)
        return x + self.drop_path(self.ls(y * gate))


class Attention(Attending):
    """Self-attention of a width of its own: (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int, heads: int, head_dim: int):
        super().__init__(heads, head_dim)
        self.qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.proj = nn.Linear(heads * head_dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(self.attend(q, k, v).transpose(1, 2).flatten(2))


class TransformerBlock(nn.Module):
    """Attention with position from a convolution, then mlp: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, heads: int, head_dim: int, layer_scale: float | None, drop_path: float):
        super().__init__()
        self.pos_embed = ConvPosition(dim)
        self.norm1 = nn.LayerNorm(dim)
        self.attn = Attention(dim, heads, head_dim)
        self.ls1 = layer_scale_of(dim, layer_scale)
        self.drop_path1 = drop_path_of(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim)
        self.ls2 = layer_scale_of(dim, layer_scale)
        self.drop_path2 = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        x = x.flatten(2).transpose(1, 2)
        x = x + self.drop_path1(self.ls1(self.attn(self.pos_embed(self.norm1(x), (height, width)))))
        x = x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))
        return x.transpose(1, 2).unflatten(2, (height, width))


class CSATv2(ImageModel):
    """The last `transformer_depths` of a stage's blocks attend; those have no stochastic depth unless asked for.

    Args:
        transformer_depths: blocks at the end of each stage that attend
        transformer_drop_path: stochastic depth for those, too
    """

    default_levels = (1, 2, 3, 4)
    parts = Parts(stem=("stem_dct",))
    layer_groups = {"stem": r"^stem_dct", "blocks": r"^stages\.(\d+)\.(\d+)", "coarse": r"^stages\.(\d+)"}

    def __init__(self, dims: Sequence[int] = (32, 72, 168, 386), depths: Sequence[int] = (2, 2, 8, 6),
                 transformer_depths: Sequence[int] = (0, 0, 2, 2), num_heads: int = 8, head_dim: int = 32,
                 transformer_drop_path: bool = False, layer_scale: float | None = None, num_classes: int = 1000,
                 in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.stem_dct = LearnableDct2d(in_chans, dims[0])
        stages, levels = [], [Feature(dims[0], 8, "stem_dct")]
        convs = [depth - attending for depth, attending in zip(depths, transformer_depths, strict=True)]
        rates = drop_path_rates(drop_path_rate, list(depths) if transformer_drop_path else convs)
        for i, (dim, drops) in enumerate(zip(dims, rates, strict=True)):
            stage: list[nn.Module] = [nn.Conv2d(dims[i - 1], dim, 2, 2)] if i else []
            stage += [ConvBlock(dim, layer_scale, drop) for drop in drops[: convs[i]]]
            stage += [TransformerBlock(dim, num_heads, head_dim, layer_scale, drop)
                      for drop in drops[convs[i] :] or [0.0] * transformer_depths[i]]  # fmt: skip
            if i < len(dims) - 1:
                stage.append(LayerNorm2d(dim))
            stages.append(nn.Sequential(*stage))
            levels.append(Feature(dim, 8 * 2**i, f"stages.{i}"))
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = self.head_hidden_size = dims[-1]
        self.head = NormMlpHead(dims[-1], num_classes, global_pool, drop_rate, norm=LayerNorm2d)
        init_linear_(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/64, W/64)
        return self.stages(self.stem_dct(x))

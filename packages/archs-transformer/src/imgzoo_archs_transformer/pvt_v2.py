"""PVTv2: a pyramid whose attention looks at a smaller map, with convolutions between (arXiv:2106.13797)."""

from collections.abc import Sequence

from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.drop import drop_path_rates
from imgzoo_layers.exchange import Norms
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.init import init_conv_per_group_, init_linear_
from imgzoo_layers.norm import LayerNorm
from imgzoo_layers.pool import GlobalPool
from imgzoo_layers.subsampled_attention import SubsampledAttention
from imgzoo_layers.transformer import Block


class Mlp(nn.Module):
    """Linear, 3x3 depthwise, activation, linear: (B, H, W, C) -> (B, H, W, C); `relu` comes before the convolution."""

    def __init__(self, dim: int, hidden: int, relu: bool, drop: float):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.relu = nn.ReLU() if relu else nn.Identity()
        self.dwconv = nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, dim)
        self.drop = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.fc1(x))
        x = self.act(self.dwconv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1))
        return self.drop(self.fc2(self.drop(x)))


class OverlapPatchEmbed(nn.Module):
    """Patches that overlap: (B, C, H, W) -> (B, H/stride, W/stride, C')."""

    def __init__(self, dim: int, dim_out: int, kernel: int, stride: int):
        super().__init__()
        self.proj = nn.Conv2d(dim, dim_out, kernel, stride, kernel // 2)
        self.norm = nn.LayerNorm(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class Stage(nn.Module):
    """(B, H, W, C), or behind a downsampling (B, C, H, W), -> (B, C, H, W)."""

    def __init__(self, downsample: nn.Module, blocks: list[nn.Module], dim: int):
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)
        self.norm = LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(self.downsample(x))).permute(0, 3, 1, 2).contiguous()


class PyramidVisionTransformerV2(ImageModel):
    """`linear` attends to the mean of 7x7 regions, so that cost grows linearly with the image.

    Args:
        linear: attend to the mean of 7x7 regions
    """

    exchanged = (Norms("layernorm", ("!patch_embed.norm", "!*.downsample.norm", "!*.attn.norm")),)
    reads_maps = True
    parts = Parts(stem=("patch_embed",), pool="pool", head="head")
    layer_groups = {"stem": r"^patch_embed", "blocks": r"^stages\.(\d+)"}
    layout = "plain"

    def __init__(self, depths: Sequence[int] = (3, 4, 6, 3), embed_dims: Sequence[int] = (64, 128, 320, 512),
                 num_heads: Sequence[int] = (1, 2, 5, 8), sr_ratios: Sequence[int] = (8, 4, 2, 1),
                 mlp_ratios: Sequence[float] = (8, 8, 4, 4), linear: bool = False, qkv_bias: bool = True,
                 num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0,
                 proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        dim = embed_dims[0]
        self.patch_embed = OverlapPatchEmbed(in_chans, dim, 7, 4)
        stages, levels = [], []
        for i, (out, drops) in enumerate(zip(embed_dims, drop_path_rates(drop_path_rate, depths), strict=True)):
            down = OverlapPatchEmbed(dim, out, 3, 2) if i else nn.Identity()
            blocks: list[nn.Module] = [
                Block(out, SubsampledAttention(out, num_heads[i], sr_ratios[i], linear, attn_drop_rate, proj_drop_rate,
                                               qkv_bias),
                      Mlp(out, int(out * mlp_ratios[i]), linear, proj_drop_rate), drop_path=drop) for drop in drops
            ]  # fmt: skip
            stages.append(Stage(down, blocks, out))
            levels.append(Feature(out, 4 * 2**i, f"stages.{i}"))
            dim = out
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim
        self.pool = GlobalPool(global_pool)
        self.head_hidden_size = dim * self.pool.width
        self.head_drop = nn.Dropout(drop_rate)
        self.head = linear_or_none(self.head_hidden_size, num_classes)
        init_linear_(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_conv_per_group_(module)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.stages(self.patch_embed(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.head_drop(self.pool(x))
        if pre_logits:
            return x
        if getattr(self.pool, "kind", "own") == "":  # the classifier looks at every position
            return self.head(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        return self.head(x)

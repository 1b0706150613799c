"""Twins: attention within windows and to a smaller map in turn, positions by convolution (arXiv:2104.13840)."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.drop import drop_path_rates, dropout_of
from imgzoo_layers.exchange import Norms
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.init import init_conv_per_group_, init_linear_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import LayerNorm
from imgzoo_layers.pool import GlobalPool
from imgzoo_layers.subsampled_attention import SubsampledAttention
from imgzoo_layers.transformer import Block
from imgzoo_layers.window import LocalAttention


class PosConv(nn.Module):
    """A depthwise convolution on a residual tells positions apart (arXiv:2102.10882): (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int):
        super().__init__()
        self.proj = nn.Sequential(nn.Conv2d(dim, dim, 3, padding=1, groups=dim))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class PatchEmbed(nn.Module):
    """(B, C, H, W) -> (B, H/p, W/p, C')."""

    def __init__(self, dim: int, dim_out: int, patch_size: int):
        super().__init__()
        self.proj = nn.Conv2d(dim, dim_out, patch_size, patch_size)
        self.norm = nn.LayerNorm(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class Twins(ImageModel):
    """With a `window` every other block attends within windows (SVT), else all to smaller maps (PCPVT).

    Args:
        window: side of an attention window; none for a convolution of positions only
    """

    exchanged = (Norms("layernorm", ("!patch_embeds.*.norm", "!*.attn.norm")),)
    parts = Parts(stem=(), stages=("blocks",), norm=("norm",), pool="pool", head="head")
    layer_groups = {
        "stem": r"^patch_embeds\.0",
        "blocks": [
            (r"^blocks\.(\d+)\.(\d+)", None),
            (r"^(?:patch_embeds|pos_block)\.(\d+)", (0,)),
            (r"^norm", (99999,)),
        ],
        "coarse": [(r"^(?:blocks|patch_embeds|pos_block)\.(\d+)", None), (r"^norm", (99999,))],
    }
    no_decay = ("pos_block.*",)
    channels_last = True
    layout = "plain"

    def __init__(self, depths: Sequence[int] = (3, 4, 6, 3), embed_dims: Sequence[int] = (64, 128, 320, 512),
                 num_heads: Sequence[int] = (1, 2, 5, 8), mlp_ratios: Sequence[float] = (8, 8, 4, 4),
                 sr_ratios: Sequence[int] = (8, 4, 2, 1), patch_size: int = 4, window: int | None = None,
                 num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0,
                 pos_drop_rate: float = 0.0, proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        dims, dim = [in_chans, *embed_dims], embed_dims[-1]
        self.patch_embeds = nn.Sequential(
            *(PatchEmbed(dims[i], out, 2 if i else patch_size) for i, out in enumerate(embed_dims))
        )
        self.pos_drop = dropout_of(pos_drop_rate)
        drops = (attn_drop_rate, proj_drop_rate)
        self.blocks = nn.Sequential()
        for i, (out, rates) in enumerate(zip(embed_dims, drop_path_rates(drop_path_rate, depths), strict=True)):
            blocks = []
            for j, rate in enumerate(rates):
                attn = SubsampledAttention(out, num_heads[i], sr_ratios[i], False, *drops)
                if window and j % 2 == 0:
                    attn = LocalAttention(out, num_heads[i], window, *drops)
                blocks.append(Block(out, attn, Mlp(out, int(out * mlp_ratios[i]), drop=proj_drop_rate), drop_path=rate))
            self.blocks.append(nn.Sequential(*blocks))
        self.pos_block = nn.Sequential(*map(PosConv, embed_dims))
        self.feature_info = FeatureInfo(
            Feature(out, patch_size * 2**i, f"blocks.{i}") for i, out in enumerate(embed_dims)
        )
        self.num_features = dim
        self.norm = LayerNorm(dim)
        self.pool = GlobalPool(global_pool)
        self.pool.dims = (1,)
        self.head_hidden_size = dim * self.pool.width
        self.head_drop = nn.Dropout(drop_rate)
        self.head = linear_or_none(self.head_hidden_size, num_classes)
        init_linear_(self)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                init_conv_per_group_(module)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, N, C)
        return self._final_norm(self.run(x, 0, len(self.blocks)))

    def run(self, x: Tensor, first: int, end: int) -> Tensor:
        """Stages: patches, a block, position, the other blocks: (B, H, W, C), or the image, -> (B, H', W', C')."""
        for i, (embed, blocks, position) in enumerate(zip(self.patch_embeds, self.blocks, self.pos_block)):
            if first <= i < end:
                x = self.pos_drop(embed(x.permute(0, 3, 1, 2) if i else x))
                for j, block in enumerate(blocks):  # type: ignore[arg-type]
                    x = block(x)
                    if j == 0:
                        x = position(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.head_drop(self.pool(x))
        return x if pre_logits else self.head(x)

    def _final_norm(self, x: Tensor) -> Tensor:
        return self.norm(x).flatten(1, 2)

    def _stopped(self, x: Tensor) -> Tensor:
        return x.permute(0, 3, 1, 2)

    def _advance(self, path: str, step: Any, x: Any) -> tuple[Any, dict[str, Any]]:
        index = int(path.rpartition(".")[2])
        x = self.run(x, index, index + 1)
        return x, {path: x}

    def _cut(self, level: str, chosen: list[int]) -> None:
        last = int(level.rpartition(".")[2])
        for i in range(last + 1, len(self.blocks)):
            self._drop([f"patch_embeds.{i}", f"pos_block.{i}"])

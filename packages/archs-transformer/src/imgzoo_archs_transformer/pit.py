"""PiT: a vision transformer whose maps shrink between stages, by a depthwise convolution (arXiv:2103.16302)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo.model import DistilledTokens, Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.attention import Attention
from imgzoo_layers.drop import drop_path_rates, dropout_of
from imgzoo_layers.init import trunc_normal_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import LayerNorm
from imgzoo_layers.sequential import PairSequential
from imgzoo_layers.tables import MapTable
from imgzoo_layers.transformer import Block
from imgzoo_layers.util import pair

State = tuple[Tensor, Tensor]
"""A map (B, C, H, W) and its class tokens (B, T, C)."""


class ConvEmbedding(nn.Module):
    """Overlapping patches: (B, 3, H, W) -> (B, C, (H - p) / s + 1, (W - p) / s + 1)."""

    def __init__(self, in_chans: int, dim: int, patch_size: int, stride: int):
        super().__init__()
        self.conv = nn.Conv2d(in_chans, dim, patch_size, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Pooling(nn.Module):
    """Half the size and more channels; the class tokens get a linear layer of their own."""

    def __init__(self, dim: int, dim_out: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim_out, 3, 2, 1, groups=dim)
        self.fc = nn.Linear(dim, dim_out)

    def forward(self, x: State) -> State:
        return self.conv(x[0]), self.fc(x[1])


class Stage(nn.Module):
    def __init__(self, pool: Pooling | None, blocks: list[nn.Module]):
        super().__init__()
        self.pool = pool
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: State) -> State:
        if self.pool is not None:
            x = self.pool(x)
        image, tokens = x
        size = (image.shape[2], image.shape[3])
        count = tokens.shape[1]
        y = self.blocks(torch.cat([tokens, image.flatten(2).transpose(1, 2)], dim=1))
        tokens = y[:, :count]
        return y[:, count:].transpose(1, 2).unflatten(2, size), tokens  # a graph's stage ends in the map


class PoolingVisionTransformer(ImageModel):
    """Args:
    stride: pixels between patches
    base_dims: channels of a head, by stage
    """

    parts = Parts(stem=("embed",), stages=("transformers",), norm=("norm",), pool="", head="head")
    layer_groups = {
        "stem": r"^cls_token|^pos_embed|^patch_embed",
        "blocks": [
            (r"^transformers\.(\d+)\.pool", (0,)),
            (r"^transformers\.(\d+)\.blocks\.(\d+)", None),
            (r"^norm", (99999,)),
        ],
        "coarse": [(r"^transformers\.(\d+)", None), (r"^norm", (99999,))],
    }
    no_decay = ("cls_token", "pos_embed")
    tables = {"pos_embed": MapTable()}
    num_tokens = 1

    def __init__(self, img_size: int | tuple[int, int] = 224, patch_size: int = 16, stride: int = 8,
                 base_dims: Sequence[int] = (32, 32, 32), depths: Sequence[int] = (2, 6, 4),
                 num_heads: Sequence[int] = (2, 4, 8), mlp_ratio: float = 4.0, num_classes: int = 1000,
                 in_chans: int = 3, global_pool: str = "token", drop_rate: float = 0.0,
                 pos_drop_rate: float = 0.0, proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.img_size, self.patch_size, self.stride = pair(img_size), patch_size, stride
        self.grid = self.grid_of(*self.img_size)
        self._set_pool(global_pool)
        embed_dims = [base * heads for base, heads in zip(base_dims, num_heads, strict=True)]
        self.num_features = self.head_hidden_size = embed_dims[-1]
        self.pos_embed = nn.Parameter(torch.empty(1, embed_dims[0], *self.grid))
        self.cls_token = nn.Parameter(torch.empty(1, self.num_tokens, embed_dims[0]))
        self.patch_embed = ConvEmbedding(in_chans, embed_dims[0], patch_size, stride)
        self.pos_drop = dropout_of(pos_drop_rate)
        stages = []
        for i, (dim, drops) in enumerate(zip(embed_dims, drop_path_rates(drop_path_rate, list(depths)), strict=True)):
            blocks: list[nn.Module] = [
                Block(dim, Attention(dim, num_heads[i], attn_drop=attn_drop_rate, proj_drop=proj_drop_rate),
                      Mlp(dim, int(dim * mlp_ratio), drop=proj_drop_rate), drop_path=drop)
                for drop in drops
            ]  # fmt: skip
            stages.append(Stage(Pooling(embed_dims[i - 1], dim) if i else None, blocks))
        self.transformers = PairSequential(*stages)
        self.feature_info = FeatureInfo(
            Feature(d, stride * 2**i, f"transformers.{i}") for i, d in enumerate(embed_dims)
        )
        self.norm = LayerNorm(embed_dims[-1])
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(embed_dims[-1], num_classes) if num_classes else nn.Identity()
        trunc_normal_(self.pos_embed, std=0.02)
        trunc_normal_(self.cls_token, std=0.02)

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Patches down and across for an image of this size."""
        return (height - self.patch_size) // self.stride + 1, (width - self.patch_size) // self.stride + 1

    def fit_size(self, img_size: tuple[int, int], **options: Any) -> None:
        super().fit_size(img_size, **options)
        self.grid = self.grid_of(*img_size)

    def embed(self, x: Tensor) -> State:
        x = self.patch_embed(self.sized_input(x))
        return self.pos_drop(x + self.pos_embed), self.cls_token.expand(x.shape[0], -1, -1)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> class tokens (B, T, C)
        return self.norm(self.transformers(self.embed(x))[1])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.head_drop(x[:, 0] if self.global_pool == "token" else x)
        return x if pre_logits else self.head(x)

    def _level_norm(self, index: int) -> None:
        """The norm is the class tokens', which no level shows."""

    def _final_norm(self, x: State) -> Tensor:
        return self.norm(x[1])

    def _stopped(self, x: State) -> Tensor:
        return x[1]  # class tokens, as at the end

    def pool_kind(self) -> str:
        return self.global_pool

    def _set_pool(self, global_pool: str) -> None:
        if global_pool not in ("", "token"):
            raise ValueError(
                f"only the class token is normalized, so global_pool is 'token' or '', not '{global_pool}'"
            )
        self.global_pool = global_pool


class DistilledPoolingVisionTransformer(DistilledTokens, PoolingVisionTransformer):
    """With a second token that learns from a teacher (arXiv:2012.12877); outside of it the two logits are averaged."""

    parts = PoolingVisionTransformer.parts._replace(head=("head", "head_dist"))
    num_tokens = 2

    def __init__(self, num_classes: int = 1000, **options: Any):
        super().__init__(num_classes=num_classes, **options)
        self.add_second_head(self.num_features, num_classes)

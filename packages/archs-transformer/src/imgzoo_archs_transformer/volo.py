"""VOLO: outlook attention on a fine grid, then a transformer whose class token joins late (arXiv:2106.13112)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.errors import UsageError
from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.attention import Attending, Attention, head_width
from imgzoo_layers.drop import drop_path_rates
from imgzoo_layers.exchange import Biases, Norms
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.init import init_linear_, trunc_normal_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.tables import LastTable, Size
from imgzoo_layers.transformer import Block
from imgzoo_layers.util import pair


class OutlookAttention(Attending):
    """The mean of a 2x2 square makes by a linear layer the weights of its 3x3 window: (B, H, W, C) -> the same."""

    def __init__(self, dim: int, heads: int, attn_drop: float):
        super().__init__(heads, head_width(dim, heads), attn_drop)
        self.window, self.stride, self.area = 3, 2, 9
        self.v = nn.Linear(dim, dim, bias=False)
        self.attn = nn.Linear(dim, heads * self.area * self.area)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[1], x.shape[2])
        v = F.unfold(self.v(x).permute(0, 3, 1, 2), self.window, padding=1, stride=self.stride)
        v = v.unflatten(1, (self.num_heads, -1, self.area)).permute(0, 1, 4, 3, 2)  # (B, heads, N / 4, 9, D)
        squares = F.avg_pool2d(x.permute(0, 3, 1, 2), self.stride, ceil_mode=True).permute(0, 2, 3, 1).flatten(1, 2)
        attn = self.attn(squares).unflatten(2, (self.num_heads, self.area, self.area)).transpose(1, 2)
        y = self.attn_drop((attn * self.scale).softmax(-1)) @ v
        y = F.fold(y.permute(0, 1, 4, 3, 2).flatten(1, 3), size, self.window, padding=1, stride=self.stride)
        return self.proj(y.permute(0, 2, 3, 1))


class MapAttention(Attention):
    """Self-attention of all positions of a map (B, H, W, C)."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        qkv = self.qkv(x).flatten(1, 2).unflatten(2, (3, self.num_heads, self.head_dim))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(self.attend(q, k, v).transpose(1, 2).flatten(2)).view_as(x)


class ClassAttention(Attending):
    """The first token asks all: (B, 1 + N, C) -> (B, 1, C)."""

    def __init__(self, dim: int, heads: int, attn_drop: float):
        super().__init__(heads, head_width(dim, heads), attn_drop)
        self.kv = nn.Linear(dim, 2 * dim, bias=False)
        self.q = nn.Linear(dim, dim, bias=False)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        k, v = self.kv(x).unflatten(2, (2, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        q = self.q(x[:, :1]).unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)
        return self.proj(self.attend(q, k, v).transpose(1, 2).flatten(2))


class ClassBlock(Block):
    """Only the class token changes: (B, 1 + N, C) -> (B, 1 + N, C)."""

    def forward(self, x: Tensor) -> Tensor:
        token = x[:, :1] + self.attn(self.norm1(x))
        return torch.cat([token + self.mlp(self.norm2(token)), x[:, 1:]], dim=1)


class PatchEmbed(nn.Module):
    """Three convolutions at half the size, then patches: (B, 3, H, W) -> (B, H/8, W/8, C)."""

    def __init__(self, in_chans: int, hidden: int, dim: int, size: int = 4):
        super().__init__()
        layers: list[nn.Module] = []
        for kernel, stride in ((7, 2), (3, 1), (3, 1)):
            conv = nn.Conv2d(in_chans, hidden, kernel, stride, kernel // 2, bias=False)
            layers += [conv, nn.BatchNorm2d(hidden), nn.ReLU(inplace=True)]
            in_chans = hidden
        self.conv = nn.Sequential(*layers)
        self.proj = nn.Conv2d(hidden, dim, size, size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(self.conv(x)).permute(0, 2, 3, 1)


class Downsample(nn.Module):
    """(B, H, W, C) -> (B, H/2, W/2, C')."""

    def __init__(self, dim: int, dim_out: int):
        super().__init__()
        self.proj = nn.Conv2d(dim, dim_out, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class VOLO(ImageModel):
    """A second classifier reads the patches; half of its maximum over them is added to the logits.

    Args:
        stem_dim: channels inside the stem
        class_blocks: blocks in which the class token asks the patches
        aux_head: the second classifier, without which the logits are those of the first alone
    """

    exchanged = (Norms("layernorm"), Biases(("*.attn.q*", "*.attn.v", "*.attn.kv")))
    default_levels = (1, 2, 3)
    parts = Parts(
        stem=("patch_embed",), stages=("network",), norm=("norm",), pool="", head=("head", "aux_head"),
        tail=("cls_token", "post_network"),
    )  # fmt: skip
    no_decay = ("cls_token", "pos_embed")
    channels_last = True
    tables = {"pos_embed": LastTable()}

    def __init__(self, img_size: int | Size = 224, layers: Sequence[int] = (4, 4, 8, 2),
                 embed_dims: Sequence[int] = (192, 384, 384, 384), num_heads: Sequence[int] = (6, 12, 12, 12),
                 mlp_ratio: float = 3.0, stem_dim: int = 64, class_blocks: int = 2, patch_size: int = 8,
                 aux_head: bool = True, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "token",
                 drop_rate: float = 0.0, pos_drop_rate: float = 0.0, attn_drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.img_size = pair(img_size)
        self.patch = patch_size // 2  # the stem halves the image
        self.grid = self.grid_of(self.img_size)
        self._set_pool(global_pool)
        first, dim = embed_dims[0], embed_dims[-1]
        self.pos_embed = nn.Parameter(torch.empty(1, *self.grid, dim))
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.patch_embed = PatchEmbed(in_chans, stem_dim, first, self.patch)
        self.pos_drop = nn.Dropout(pos_drop_rate)

        def block(cls: type, attn: nn.Module, width: int, drop: float = 0.0) -> nn.Module:
            return cls(width, attn, Mlp(width, int(mlp_ratio * width)), nn.LayerNorm, drop_path=drop)

        outlook = (block(Block, OutlookAttention(first, num_heads[0], attn_drop_rate), first) for _ in range(layers[0]))
        network = [nn.Sequential(*outlook), Downsample(first, embed_dims[1])]
        levels = [Feature(first, patch_size, "network.0")]
        rates = drop_path_rates(drop_path_rate, layers)
        for i in range(1, len(layers)):
            options = (embed_dims[i], num_heads[i], False)
            attns = [MapAttention(*options, attn_drop=attn_drop_rate) for _ in rates[i]]
            blocks = [block(Block, attn, embed_dims[i], drop) for attn, drop in zip(attns, rates[i])]
            network.append(nn.Sequential(*blocks))
            levels.append(Feature(embed_dims[i], 2 * patch_size, f"network.{i + 1}"))
        self.network = nn.Sequential(*network)
        self.feature_info = FeatureInfo(levels)
        self.num_features = self.head_hidden_size = dim
        asking = [ClassAttention(dim, num_heads[-1], attn_drop_rate) for _ in range(class_blocks)]
        self.post_network = nn.Sequential(*(block(ClassBlock, attn, dim) for attn in asking))
        self.aux_head = linear_or_none(dim, num_classes) if aux_head else None
        self.norm = nn.LayerNorm(dim)
        self.head_drop = nn.Dropout(drop_rate)
        self.head = linear_or_none(dim, num_classes)
        init_linear_(self)
        trunc_normal_(self.cls_token, std=0.02)
        trunc_normal_(self.pos_embed, std=0.02)

    def fit_size(self, img_size: Size, **options: Any) -> None:
        super().fit_size(img_size, **options)
        self.grid = self.grid_of(img_size)

    def grid_of(self, img_size: Size) -> Size:
        """Patches down and across behind the first stage."""
        return -(img_size[0] // -2) // self.patch // 2, -(img_size[1] // -2) // self.patch // 2

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 1 + N, C)
        x = self.patch_embed(self.sized_input(x))
        for i, step in enumerate(self.network):
            if i == 2:
                x = self.pos_drop(x + self.pos_embed)
            x = step(x)
        return self._final_norm(x)

    def _level_norm(self, index: int) -> nn.Module | None:
        levels = self.feature_info.levels
        return self.norm if levels[index].channels == levels[-1].channels else None

    def _final_norm(self, x: Tensor) -> Tensor:
        """The class token joins and gathers from the finished patches."""
        if self.cls_token is None:  # pruned
            return self.norm(x.flatten(1, 2))
        tokens = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x.flatten(1, 2)], dim=1)
        return self.norm(self.post_network(tokens))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = x
        if self.global_pool == "token":
            pooled = x[:, 0]
        elif self.global_pool == "avg":
            pooled = x.mean(1)
        pooled = self.head_drop(pooled)
        if pre_logits or self.num_classes == 0:
            return pooled
        logits = self.head(pooled)
        if self.aux_head is None or self.global_pool == "":
            return logits
        patches = x if self.cls_token is None else x[:, 1:]
        return logits + 0.5 * self.aux_head(patches).amax(1)

    def pool_kind(self) -> str:
        return self.global_pool

    def _set_pool(self, global_pool: str) -> None:
        if global_pool not in ("", "token", "avg"):
            raise UsageError(f"global_pool is 'token', 'avg' or '', not {global_pool!r}")
        self.global_pool = global_pool

    def _advance(self, path: str, step: Any, x: Any) -> tuple[Any, dict[str, Any]]:
        return super()._advance(path, step, self.pos_drop(x + self.pos_embed) if path == "network.2" else x)

    def _cut(self, level: str, chosen: list[int]) -> None:
        if level == "network.0":
            self._drop(["pos_embed"])

    def _blocks(self) -> list[nn.Module]:
        return [*super()._blocks(), *self.post_network.children()]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {
            "stem": r"^cls_token|pos_embed|patch_embed",
            "blocks": [(r"^network\.(\d+)\.(\d+)", None), (r"^network\.(\d+)", (0,))],
            "last": [(r"^post_network\.(\d+)", None), (r"^norm", (99999,))],
        }

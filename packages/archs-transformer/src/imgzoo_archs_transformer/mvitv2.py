"""MViTv2: attention over pooled queries, keys and values, with relative positions by axis (arXiv:2112.01526)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.errors import UsageError
from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.attention import Attending, head_width
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.init import trunc_normal_tf_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import LayerNorm
from imgzoo_layers.sequential import GridSequential
from imgzoo_layers.tables import OffsetTable, Size, Tabled
from imgzoo_layers.util import pair

State = tuple[Tensor, Size]
"""Tokens (B, prefix + h*w, C) and the size of the map."""


class PatchEmbed(nn.Module):
    """Overlapping patches, a quarter of the image: (B, 3, H, W) -> (B, C, H/4, W/4)."""

    def __init__(self, in_chans: int, dim: int):
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, 7, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class MultiScaleAttention(Tabled, Attending):
    """Strided convolutions pool queries, keys and values, the same for each head; scores know how far rows and columns
    lie apart, and the queries join the result: (B, prefix + N, C) -> (B, prefix + n, C')."""

    tables = {f"rel_pos_{side}": OffsetTable("span", axis, align_corners=False) for axis, side in enumerate("hw")}

    def __init__(self, dim: int, dim_out: int, heads: int, grid: Size, stride_q: int, stride_kv: int, prefix: int,
                 qkv_bias: bool):  # fmt: skip
        super().__init__(heads, head_width(dim_out, heads))
        self.stride_q, self.stride_kv, self.prefix, width = stride_q, stride_kv, prefix, self.head_dim
        self.set_size(grid)
        self.rel_pos_h = nn.Parameter(torch.zeros(2 * self.span[0] - 1, width))
        self.rel_pos_w = nn.Parameter(torch.zeros(2 * self.span[1] - 1, width))
        self.qkv = nn.Linear(dim, 3 * dim_out, bias=qkv_bias)
        self.proj = nn.Linear(dim_out, dim_out)
        self.pool_q, self.norm_q = depthwise(width, stride_q), LayerNorm(width)
        self.pool_k, self.norm_k = depthwise(width, stride_kv), LayerNorm(width)
        self.pool_v, self.norm_v = depthwise(width, stride_kv), LayerNorm(width)

    def set_size(self, grid: Size) -> None:
        self.grid, self.grid_q, self.grid_kv = grid, reduced(grid, self.stride_q), reduced(grid, self.stride_kv)
        self.span = max(self.grid_q, self.grid_kv)

    def maps(self, x: Tensor) -> Tensor:
        """Patches of each head, (B, heads, prefix + N, D) -> (B * heads, D, h, w)."""
        return x[:, :, self.prefix :].flatten(0, 1).transpose(1, 2).unflatten(2, self.grid)

    def tokens(self, x: Tensor, pooled: Tensor) -> Tensor:
        """The prefix of x and pooled maps, (B * heads, D, h', w') -> (B, heads, prefix + n, D)."""
        patches = pooled.flatten(2).transpose(1, 2).unflatten(0, (-1, self.num_heads))
        return torch.cat([x[:, :, : self.prefix], patches], 2) if self.prefix else patches

    def bias(self, q: Tensor) -> Tensor:
        """Scores by distance, of patches only: (B, heads, prefix + n, D) -> (B, heads, prefix + n, prefix + m)."""
        places = q[:, :, self.prefix :].unflatten(2, self.grid_q)
        down = self.distances(self.rel_pos_h, self.grid_q[0], self.grid_kv[0])
        across = self.distances(self.rel_pos_w, self.grid_q[1], self.grid_kv[1])
        by_row = torch.einsum("bnhwd,hdk->bnhwk", places, down)
        by_column = torch.einsum("bnhwd,wdk->bnhwk", places, across)
        bias = (by_row.unsqueeze(-1) + by_column.unsqueeze(-2)).flatten(4).flatten(2, 3)
        return F.pad(bias, [self.prefix, 0, self.prefix, 0]) if self.prefix else bias

    def distances(self, table: Tensor, queries: int, keys: int) -> Tensor:
        """Rows of the table by how far a query lies behind a key, in steps of the finer map -> (queries, D, keys)."""
        step_q, step_k = max(self.stride_q // self.stride_kv, 1), max(self.stride_kv // self.stride_q, 1)
        return table.unfold(0, (keys - 1) * step_k + 1, step_q)[:queries, :, ::step_k].flip(2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(2, (3, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4).unbind(0)
        q = self.norm_q(self.tokens(q, self.pool_q(self.maps(q))))
        k = self.norm_k(self.tokens(k, self.pool_k(self.maps(k))))
        v = self.norm_v(self.tokens(v, self.pool_v(self.maps(v))))
        x = self.attend(q, k, v, self.bias(q)) + q
        return self.proj(x.transpose(1, 2).flatten(2))


class MultiScaleBlock(nn.Module):
    """Attention, then mlp, each normalized first. Where the width changes, in attention or in the mlp (`dim_attn` is
    between them), a layer widens the shortcut; where the map shrinks, the shortcut takes the maximum."""

    def __init__(self, dim: int, dim_attn: int, dim_out: int, heads: int, grid: Size, stride_q: int, stride_kv: int,
                 prefix: int, mlp_ratio: float, qkv_bias: bool, drop_path: float):  # fmt: skip
        super().__init__()
        self.stride, self.prefix = stride_q, prefix
        self.norm1 = LayerNorm(dim)
        self.shortcut_proj_attn = nn.Linear(dim, dim_attn) if dim != dim_attn else None
        self.attn = MultiScaleAttention(dim, dim_attn, heads, grid, stride_q, stride_kv, prefix, qkv_bias)
        self.drop_path1 = drop_path_of(drop_path)
        self.norm2 = LayerNorm(dim_attn)
        self.shortcut_proj_mlp = nn.Linear(dim_attn, dim_out) if dim_attn != dim_out else None
        self.mlp = Mlp(dim_attn, int(dim_attn * mlp_ratio), dim_out)
        self.drop_path2 = drop_path_of(drop_path)

    def shrunk(self, x: Tensor, size: Size) -> Tensor:
        """(B, prefix + N, C) -> (B, prefix + N/4, C)"""
        if self.stride == 1:
            return x
        patches = x[:, self.prefix :].transpose(1, 2).unflatten(2, size)
        patches = F.max_pool2d(patches, self.stride + 1, self.stride, (self.stride + 1) // 2)
        patches = patches.flatten(2).transpose(1, 2)
        return torch.cat([x[:, : self.prefix], patches], 1) if self.prefix else patches

    def forward(self, state: State) -> State:
        x, size = state
        y = self.norm1(x)
        x = self.shrunk(x if self.shortcut_proj_attn is None else self.shortcut_proj_attn(y), size)
        x = x + self.drop_path1(self.attn(y))
        y = self.norm2(x)
        x = x if self.shortcut_proj_mlp is None else self.shortcut_proj_mlp(y)
        return x + self.drop_path2(self.mlp(y)), reduced(size, self.stride)


class Stage(nn.Module):
    """Blocks of one size; key `blocks`."""

    def __init__(self, blocks: Sequence[MultiScaleBlock]):
        super().__init__()
        self.blocks = GridSequential(*blocks)

    def forward(self, state: State) -> State:
        return self.blocks(state)


class MultiScaleVit(ImageModel):
    """The width grows in the attention of a stage's first block, or, without `expand_attn`, in the mlp before it.

    `set_input_size` resizes tables of distances around their middle, no distance. Levels as "NLC" leave the class token
    out, as everywhere (the field's keep it here).

    Args:
        stride_kv: stride of the pooled keys and values of each stage
        expand_attn: widen in the attention of a stage's first block, not in the mlp before
    """

    parts = Parts(stem=("embed",), stages=("stages",), norm=("norm",), pool="")
    layer_groups = {
        "stem": r"^cls_token|pos_embed|patch_embed",
        "blocks": [(r"^stages\.(\d+)", None), (r"^norm", (99999,))],
    }
    no_decay = ("cls_token", "*rel_pos_h", "*rel_pos_w")
    formats = ("NCHW", "NLC")
    layout = "plain"

    def __init__(self, img_size: int | Size = 224, embed_dim: Sequence[int] = (96, 192, 384, 768),
                 depths: Sequence[int] = (2, 3, 16, 3), num_heads: Sequence[int] = (1, 2, 4, 8),
                 stride_kv: Sequence[int] = (4, 2, 1, 1), expand_attn: bool = True, class_token: bool = False,
                 mlp_ratio: float = 4.0, qkv_bias: bool = True, num_classes: int = 1000, in_chans: int = 3,
                 global_pool: str | None = None, drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.img_size, self.num_prefix_tokens = pair(img_size), int(class_token)
        self._set_pool(global_pool if global_pool is not None else "token" if class_token else "avg")
        self.patch_embed = PatchEmbed(in_chans, embed_dim[0])
        self.cls_token = nn.Parameter(torch.empty(1, 1, embed_dim[0])) if class_token else None
        grid, dim, stages, levels = reduced(self.img_size, 4), embed_dim[0], [], []
        for i, drops in enumerate(drop_path_rates(drop_path_rate, depths)):
            blocks = []
            for j, drop in enumerate(drops):
                stride, last = 2 if i and not j else 1, j == len(drops) - 1
                dim_attn = embed_dim[i] if expand_attn else dim
                dim_out = dim_attn if expand_attn or not last else embed_dim[min(i + 1, len(depths) - 1)]
                blocks.append(MultiScaleBlock(dim, dim_attn, dim_out, num_heads[i], grid, stride, stride_kv[i],
                                              self.num_prefix_tokens, mlp_ratio, qkv_bias, drop))  # fmt: skip
                dim, grid = dim_out, reduced(grid, stride)
            stages.append(Stage(blocks))
            levels.append(Feature(dim, 4 * 2**i, f"stages.{i}"))
        self.stages = GridSequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = self.head_hidden_size = dim
        self.norm = LayerNorm(dim)
        self.head = nn.Sequential()
        self.head.add_module("drop", nn.Dropout(drop_rate))
        self.head.add_module("fc", linear_or_none(dim, num_classes))
        for name, parameter in self.named_parameters():
            if "rel_pos" in name or name == "cls_token":
                trunc_normal_tf_(parameter, std=0.02)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_tf_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def embed(self, x: Tensor) -> State:  # (B, 3, H, W) -> (B, prefix + N, C)
        x = self.patch_embed(self.sized_input(x)).flatten(2).transpose(1, 2)
        if self.cls_token is not None:
            x = torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], 1)
        return x, reduced(self.img_size, 4)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, prefix + N, C)
        return self.norm(self.stages(self.embed(x))[0])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        if self.global_pool == "token":
            x = x[:, 0]
        elif self.global_pool == "avg":
            x = x[:, self.num_prefix_tokens :].mean(1)
        return self.head[0](x) if pre_logits else self.head(x)

    def sized(self):
        grid = reduced(self.img_size, 4)
        for _, stage in self._stages():
            for block in stage.blocks:
                yield block.attn, grid
                grid = reduced(grid, block.stride)

    def pool_kind(self) -> str:
        return self.global_pool

    def _set_pool(self, global_pool: str) -> None:
        pools = ("token", "avg", "") if self.num_prefix_tokens else ("avg", "")
        if global_pool not in pools:
            raise UsageError(f"global_pool of this network is {' or '.join(map(repr, pools))}, not {global_pool!r}")
        self.global_pool = global_pool


def depthwise(width: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(width, width, 3, stride, 1, groups=width, bias=False)


def reduced(size: Size, stride: int) -> Size:
    """The size of a map behind a strided convolution that is padded by half its kernel."""
    return -(size[0] // -stride), -(size[1] // -stride)

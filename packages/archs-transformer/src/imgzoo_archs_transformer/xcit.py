"""XCiT: attention between channels, with a class token that joins late (arXiv:2106.09681)."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo.model import TokenModel
from imgzoo_layers.class_attention import ClassAttention
from imgzoo_layers.cross_covariance import CrossCovarianceAttn, PositionalEncodingFourier
from imgzoo_layers.drop import drop_path_of
from imgzoo_layers.exchange import Acts, Biases, Norms
from imgzoo_layers.init import init_linear_, trunc_normal_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import LayerNorm
from imgzoo_layers.sequential import GridSequential
from imgzoo_layers.tables import Size

State = tuple[Tensor, Size]
"""Tokens (B, N, C) and their grid."""


class ConvPatchEmbed(nn.Module):
    """Convolutions of stride 2 down to the patch size: (B, 3, H, W) -> (B, C, H/p, W/p)."""

    def __init__(self, patch_size: int, in_chans: int, dim: int):
        super().__init__()
        layers: list[nn.Module] = []
        count = patch_size.bit_length() - 1
        for i in range(count):
            out = dim >> (count - 1 - i)
            conv = nn.Conv2d(in_chans, out, 3, 2, 1, bias=False)
            layers += [nn.Sequential(conv, nn.BatchNorm2d(out)), nn.GELU()]
            in_chans = out
        self.proj = nn.Sequential(*layers[:-1])

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class LocalPatchInteraction(nn.Module):
    """Two depthwise convolutions, since attention between channels mixes no positions: (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv1 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.act = nn.GELU()
        self.bn = nn.BatchNorm2d(dim)
        self.conv2 = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)

    def forward(self, x: Tensor, grid: Size) -> Tensor:
        x = self.act(self.conv1(x.transpose(1, 2).unflatten(2, grid)))
        return self.conv2(self.bn(x)).flatten(2).transpose(1, 2)


class Block(nn.Module):
    """Attention between channels, local interaction, mlp, each on a scaled residual."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, layer_scale: float, attn_drop: float, proj_drop: float,
                 drop_path: float):  # fmt: skip
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.attn = CrossCovarianceAttn(dim, heads, attn_drop, proj_drop)
        self.norm3 = LayerNorm(dim)
        self.local_mp = LocalPatchInteraction(dim)
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop)
        self.drop_path = drop_path_of(drop_path)
        for name in ("gamma1", "gamma3", "gamma2"):
            self.register_parameter(name, nn.Parameter(torch.full((dim,), layer_scale)))

    def forward(self, state: State) -> State:
        x, grid = state
        x = x + self.drop_path(self.gamma1 * self.attn(self.norm1(x)))
        x = x + self.drop_path(self.gamma3 * self.local_mp(self.norm3(x), grid))
        return x + self.drop_path(self.gamma2 * self.mlp(self.norm2(x))), grid


class ClassBlock(nn.Module):
    """The class token asks the patches and passes an mlp; `tokens_norm` normalizes the patches too before it."""

    def __init__(self, dim: int, heads: int, mlp_ratio: float, layer_scale: float, attn_drop: float, proj_drop: float,
                 tokens_norm: bool):  # fmt: skip
        super().__init__()
        self.tokens_norm = tokens_norm
        self.norm1 = LayerNorm(dim)
        self.attn = ClassAttention(dim, heads, True, attn_drop, proj_drop)
        self.norm2 = LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop)
        self.gamma1 = nn.Parameter(torch.full((dim,), layer_scale))
        self.gamma2 = nn.Parameter(torch.full((dim,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(x)
        x = x + self.gamma1 * torch.cat([self.attn(y), y[:, 1:]], dim=1)
        x = self.norm2(x) if self.tokens_norm else torch.cat([self.norm2(x[:, :1]), x[:, 1:]], dim=1)
        return x + torch.cat([self.gamma2 * self.mlp(x[:, :1]), x[:, 1:]], dim=1)


class Xcit(TokenModel):
    """Args:
    cls_attn_layers: blocks of the class token
    pos_embed: positions by sines and cosines
    tokens_norm: normalize the patches too before the class token's mlp
    """

    exchanged = (Acts("gelu"), Norms("layernorm"), Biases(("*.attn.q*", "*.attn.[kv]")))
    parts = TokenModel.parts._replace(tail=("cls_token", "cls_attn_blocks"))
    no_decay = ("cls_token", "pos_embed.*")
    token_joins_late = True
    pools = ("token", "avg", "max", "avgmax")

    def __init__(self, img_size: int | Size = 224, patch_size: int = 16, embed_dim: int = 384, depth: int = 12,
                 num_heads: int = 8, mlp_ratio: float = 4.0, layer_scale: float = 1.0, cls_attn_layers: int = 2,
                 pos_embed: bool = True, tokens_norm: bool = True, num_classes: int = 1000, in_chans: int = 3,
                 global_pool: str = "token", drop_rate: float = 0.0, pos_drop_rate: float = 0.0,
                 proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans, img_size, patch_size, embed_dim, depth, global_pool,
                         dynamic=True)  # fmt: skip
        dim = embed_dim
        self.cls_token = nn.Parameter(torch.empty(1, 1, dim))
        self.patch_embed = ConvPatchEmbed(patch_size, in_chans, dim)
        self.pos_embed = PositionalEncodingFourier(dim) if pos_embed else None
        self.pos_drop = nn.Dropout(pos_drop_rate)
        options = (dim, num_heads, mlp_ratio, layer_scale, attn_drop_rate, proj_drop_rate)
        self.blocks = GridSequential(*(Block(*options, drop_path_rate) for _ in range(depth)))
        self.cls_attn_blocks = nn.Sequential(*(ClassBlock(*options, tokens_norm) for _ in range(cls_attn_layers)))
        self.norm = LayerNorm(dim)
        self.add_head(drop_rate)
        init_linear_(self)
        trunc_normal_(self.cls_token, std=0.02)

    def grid_of(self, height: int, width: int) -> Size:
        return -(height // -self.patch_size[0]), -(width // -self.patch_size[1])

    def embed(self, x: Tensor) -> State:  # (B, 3, H, W) -> (B, N, C)
        x = self.patch_embed(x)
        grid = (x.shape[2], x.shape[3])
        if self.pos_embed is not None:
            x = x + self.pos_embed(x)
        return self.pos_drop(x.flatten(2).transpose(1, 2)), grid

    def ask(self, x: Tensor) -> Tensor:
        """The class token joins and gathers from the finished patches: (B, N, C) -> (B, 1 + N, C)."""
        if self.cls_token is None:  # pruned
            return self.norm(x)
        return self.norm(self.cls_attn_blocks(torch.cat([self.cls_token.expand(x.shape[0], -1, -1), x], dim=1)))

    def forward_features(self, x: Tensor) -> Tensor:
        return self.ask(self.blocks(self.embed(x))[0])

    def _collect(self, x: State, norm: bool) -> Tensor:
        return self.norm(x[0]) if norm else x[0]

    def _final_norm(self, x: State) -> Tensor:
        return self.ask(x[0])

    def _blocks(self) -> Sequence[nn.Module]:
        return [*self.blocks, *self.cls_attn_blocks.children()]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        last = [(r"^cls_attn_blocks\.(\d+)", None), (r"^norm", (99999,))]
        return {"stem": r"^cls_token|pos_embed|patch_embed", "blocks": r"^blocks\.(\d+)", "last": last}

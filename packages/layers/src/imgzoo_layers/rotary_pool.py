"""Pooling of maps of any size by attention that knows places by rotation."""

import torch
from torch import Tensor, nn

from .attention import Attending, head_width
from .init import trunc_normal_
from .rotary import AxialRotary, CenteredRotary, rotate_patches
from .util import pair


class RotaryAttentionPool2d(Attending):
    """The mean of a map, or a learned token, attends to it: (B, C, H, W) -> (B, dim_out).

    Positions turn queries and keys, as places on the `reference` grid ("axial") or from -1 to 1 ("centered"); the token
    has none. With `pool` off every position attends: (B, dim_out, H, W). Keys `qkv`, or `q`, `k`, `v` if `separate`.
    `dim_out` is `dim` if None, and 0 leaves the projection out.
    """

    def __init__(self, dim: int, dim_out: int | None = None, reference: int | tuple[int, int] = 7,
                 inner: int | None = None, heads: int | None = None, head_dim: int = 64, qkv_bias: bool = True,
                 separate: bool = False, class_token: bool = False, pool: bool = True, drop_rate: float = 0.0,
                 rotary: str = "axial"):  # fmt: skip
        inner = inner or dim
        heads = heads or head_width(inner, head_dim)
        super().__init__(heads, head_width(inner, heads))
        self.pool, self.separate = pool, separate
        if class_token:
            self.cls_token = nn.Parameter(trunc_normal_(torch.zeros(1, dim), std=dim**-0.5))
        else:
            self.register_parameter("cls_token", None)
        grid = pair(reference)
        if rotary == "axial":
            self.pos_embed: nn.Module = AxialRotary(self.head_dim, grid, reference=grid)
        elif rotary == "centered":
            self.pos_embed = CenteredRotary(self.head_dim, grid, halves=False)
        else:
            raise ValueError(f"unknown rotary '{rotary}'; use axial or centered")
        if separate:
            self.q, self.k, self.v = (nn.Linear(dim, inner, bias=qkv_bias) for _ in range(3))
        else:
            self.qkv = nn.Linear(dim, 3 * inner, bias=qkv_bias)
        self.drop = nn.Dropout(drop_rate)
        dim_out = dim if dim_out is None else dim_out
        self.proj = nn.Linear(inner, dim_out) if dim_out else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for layer in (self.q, self.k, self.v) if self.separate else (self.qkv,):
            trunc_normal_(layer.weight, std=layer.in_features**-0.5)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        size = (x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)  # (B, HW, C)
        first = x.mean(1, keepdim=True) if self.cls_token is None else self.cls_token.expand(x.shape[0], 1, -1)
        x = torch.cat([first, x], dim=1)
        parts = (self.q(x), self.k(x), self.v(x)) if self.separate else self.qkv(x).chunk(3, dim=2)
        q, k, v = (part.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2) for part in parts)
        table = self.pos_embed(size)
        q, k = rotate_patches(q, table, 1), rotate_patches(k, table, 1)
        x = self.attend(q[:, :, :1] if self.pool else q[:, :, 1:], k, v).transpose(1, 2).flatten(2)
        x = self.drop(x)
        if not pre_logits:
            x = self.proj(x)
        return x[:, 0] if self.pool else x.transpose(1, 2).unflatten(2, size)

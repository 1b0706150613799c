"""Attention to a smaller map (PVT, arXiv:2102.12122, section 3.3)."""

from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Attending, head_width


class SubsampledAttention(Attending):
    """All positions ask those of a map `ratio` times smaller: (B, H, W, C) -> (B, H, W, C).

    A strided convolution makes the smaller map; with `pooled` it is the mean of 7x7 regions (arXiv:2106.13797).
    """

    def __init__(self, dim: int, heads: int, ratio: int, pooled: bool = False, attn_drop: float = 0.0,
                 proj_drop: float = 0.0, bias: bool = True):  # fmt: skip
        super().__init__(heads, head_width(dim, heads), attn_drop)
        self.pooled, self.subsamples = pooled, pooled or ratio > 1
        self.q = nn.Linear(dim, dim, bias)
        self.kv = nn.Linear(dim, 2 * dim, bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        ratio = 1 if pooled else ratio
        self.sr = nn.Conv2d(dim, dim, ratio, ratio) if self.subsamples else nn.Identity()
        self.norm = nn.LayerNorm(dim) if self.subsamples else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        q = self.q(x.flatten(1, 2)).unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)
        kv = self.kv(self.subsampled(x)).unflatten(2, (2, self.num_heads, self.head_dim))
        k, v = kv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj_drop(self.proj(self.attend(q, k, v).transpose(1, 2).flatten(2))).view_as(x)

    def subsampled(self, x: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, N, C)"""
        if not self.subsamples:
            return x.flatten(1, 2)
        x = x.permute(0, 3, 1, 2)
        if self.pooled:
            x = F.adaptive_avg_pool2d(x, 7)
        x = self.norm(self.sr(x).flatten(2).transpose(1, 2))
        return F.gelu(x) if self.pooled else x

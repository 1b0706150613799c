"""Attention between all positions of a map, with relative positions (BoTNet, arXiv:2101.11605)."""

from torch import Tensor, nn

from .attention import Attending
from .relative_logits import RelativeLogits
from .tables import check_grid
from .util import make_divisible


class BottleneckAttention(Attending):
    """(B, dim, H, W) -> (B, dim, H/stride, W/stride) for maps of size `grid`; strided by pooling what comes out. With
    `scale_pos` the position's scores are divided as the others."""

    def __init__(self, dim: int, grid: tuple[int, int], stride: int = 1, heads: int = 4, head_dim: int | None = None,
                 qk_ratio: float = 1.0, qkv_bias: bool = False, scale_pos: bool = False):  # fmt: skip
        super().__init__(heads, head_dim or make_divisible(dim * qk_ratio) // heads)
        self.dim_v = dim // heads
        self.scale_pos = self.scale if scale_pos else 1.0
        self.qkv = nn.Conv2d(dim, heads * (2 * self.head_dim + self.dim_v), 1, bias=qkv_bias)
        self.pos_embed = RelativeLogits(grid, self.head_dim)
        self.pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False) if stride == 2 else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.qkv.weight, std=self.qkv.in_channels**-0.5)
        self.pos_embed.reset_parameters()

    def set_size(self, grid: tuple[int, int]) -> None:
        """Take maps of another size; whoever calls this lets the tables follow."""
        self.pos_embed.set_size(grid)

    def forward(self, x: Tensor) -> Tensor:
        x = check_grid(x, self.pos_embed.grid)
        batch, height, width = x.shape[0], x.shape[2], x.shape[3]
        qk, v = self.num_heads * self.head_dim, self.num_heads * self.dim_v
        q, k, v = self.qkv(x).flatten(2).split([qk, qk, v], dim=1)
        q = q.reshape(batch, self.num_heads, self.head_dim, -1).transpose(2, 3)  # (B, heads, HW, d)
        k = k.reshape(batch, self.num_heads, self.head_dim, -1).transpose(2, 3)
        v = v.reshape(batch, self.num_heads, self.dim_v, -1).transpose(2, 3)
        bias = self.pos_embed(q.unflatten(2, (height, width))).flatten(4).flatten(2, 3)  # (B, heads, HW, HW)
        if self.scale_pos != 1.0:
            bias = bias * self.scale_pos
        y = self.attend(q, k, v, bias)
        return self.pool(y.transpose(2, 3).reshape(batch, -1, height, width))

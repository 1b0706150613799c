"""Attention of blocks of queries to their surroundings (HaloNet, arXiv:2103.12731)."""

from torch import Tensor, nn
from torch.nn import functional as F

from .attention import Attending
from .relative_logits import RelativeLogits
from .util import make_divisible


class HaloAttention(Attending):
    """(B, dim, H, W) -> (B, dim, H/stride, W/stride): each block x block sees itself and `halo` pixels around.

    Strided by leaving out queries, or where the block does not divide by pooling what comes out. Maps that are no
    multiple of the block are filled with zeros below and right, as what lies outside of the map always is. `avg_down`
    always pools, `scale_pos` divides the position's scores as the others.
    """

    def __init__(self, dim: int, grid: tuple[int, int] | None = None, stride: int = 1, heads: int = 8,
                 head_dim: int | None = None, qk_ratio: float = 1.0, block: int = 8, halo: int = 3,
                 qkv_bias: bool = False, avg_down: bool = False, scale_pos: bool = False):  # fmt: skip
        super().__init__(heads, head_dim or make_divisible(dim * qk_ratio) // heads)
        self.dim_v = dim // heads
        self.block, self.halo, self.window = block, halo, block + 2 * halo
        self.step = 1 if block % stride or avg_down else stride
        self.scale_pos = self.scale if scale_pos else 1.0
        self.queries = block // self.step
        self.q = nn.Conv2d(dim, heads * self.head_dim, 1, self.step, bias=qkv_bias)
        self.kv = nn.Conv2d(dim, heads * (self.head_dim + self.dim_v), 1, bias=qkv_bias)
        self.pos_embed = RelativeLogits((self.window, self.window), self.head_dim)
        self.pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False) if self.step < stride else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        for conv in (self.q, self.kv):
            nn.init.normal_(conv.weight, std=conv.in_channels**-0.5)
        self.pos_embed.reset_parameters()

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width = x.shape[0], x.shape[2], x.shape[3]
        heads, queries = self.num_heads, self.queries
        rows, columns = -(height // -self.block), -(width // -self.block)
        x = F.pad(x, [0, columns * self.block - width, 0, rows * self.block - height])
        q = self.q(x).reshape(batch, heads, self.head_dim, rows, queries, columns, queries)
        q = q.permute(0, 1, 3, 5, 4, 6, 2)  # (B, heads, rows, columns, queries, queries, d)
        kv = F.pad(self.kv(x), [self.halo, self.halo, self.halo, self.halo])
        kv = kv.unfold(2, self.window, self.block).unfold(3, self.window, self.block)
        kv = kv.reshape(batch, heads, self.head_dim + self.dim_v, rows, columns, -1).permute(0, 1, 3, 4, 5, 2)
        k, v = kv.split([self.head_dim, self.dim_v], dim=-1)
        bias = self.pos_embed(q).flatten(6).flatten(4, 5)
        if self.scale_pos != 1.0:
            bias = bias * self.scale_pos
        windows = (q.flatten(4, 5), k, v, bias)  # four dimensions each, as exporters want
        q, k, v, bias = (part.flatten(1, 3) for part in windows)
        y = self.attend(q, k, v, bias)
        y = y.unflatten(2, (queries, queries)).unflatten(1, (heads, rows, columns)).permute(0, 1, 6, 2, 4, 3, 5)
        y = y.reshape(batch, heads * self.dim_v, rows * queries, columns * queries)
        return self.pool(y[:, :, : -(height // -self.step), : -(width // -self.step)])

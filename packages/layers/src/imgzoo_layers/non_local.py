"""Attention between all places of a map, added to it (non-local networks, arXiv:1711.07971)."""

from torch import Tensor, nn

from .util import make_divisible


class NonLocal(nn.Module):
    """Each place gathers from all, weighed by a softmax over their likeness: (B, C, H, W) -> the same shape; keys `t`,
    `p`, `g` for query, key and value, `z` and `norm` behind. `scale` divides the likeness by sqrt(C)."""

    def __init__(self, dim: int, scale: bool = True, rd_ratio: float = 1.0 / 8, rd_channels: int | None = None,
                 rd_divisor: int = 8):  # fmt: skip
        super().__init__()
        hidden = rd_channels or make_divisible(dim * rd_ratio, rd_divisor)
        self.scale = dim**-0.5 if scale else 1.0
        self.t = nn.Conv2d(dim, hidden, 1)
        self.p = nn.Conv2d(dim, hidden, 1)
        self.g = nn.Conv2d(dim, hidden, 1)
        self.z = nn.Conv2d(hidden, dim, 1)
        self.norm = nn.BatchNorm2d(dim)
        nn.init.zeros_(self.norm.weight)  # the block begins as the identity

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.t(x).flatten(2), self.p(x).flatten(2), self.g(x).flatten(2)
        weights = (query.transpose(1, 2) @ key * self.scale).softmax(-1)  # (B, HW, HW)
        mixed = value @ weights.transpose(1, 2)
        return x + self.norm(self.z(mixed.unflatten(2, (x.shape[2], x.shape[3]))))

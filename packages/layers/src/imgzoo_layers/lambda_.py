"""Lambda layers: the surroundings become linear functions that are applied to queries (arXiv:2102.08602)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .relative_logits import distances
from .tables import Computed, OffsetTable, Tabled, check_grid


class Lambda(nn.Module):
    """(B, dim, H, W) -> (B, dim, H/stride, W/stride): one function of the content, one for each position.

    What makes the functions of positions is up to the two layers below. Strided by pooling what comes out.
    """

    def __init__(self, dim: int, stride: int, heads: int, head_dim: int, qkv_bias: bool):
        super().__init__()
        self.heads, self.dim_qk, self.dim_v = heads, head_dim, dim // heads
        self.qkv = nn.Conv2d(dim, heads * head_dim + head_dim + self.dim_v, 1, bias=qkv_bias)
        self.norm_q = nn.BatchNorm2d(heads * head_dim)
        self.norm_v = nn.BatchNorm2d(self.dim_v)
        self.pool = nn.AvgPool2d(2, 2, ceil_mode=True, count_include_pad=False) if stride == 2 else nn.Identity()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.qkv.weight, std=self.qkv.in_channels**-0.5)

    def positions(self, v: Tensor) -> Tensor:
        """Values (B, v, H, W) -> functions of each position (B, HW, d, v)."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width = x.shape[0], x.shape[2], x.shape[3]
        q, k, v = self.qkv(x).split([self.heads * self.dim_qk, self.dim_qk, self.dim_v], dim=1)
        q = self.norm_q(q).reshape(batch, self.heads, self.dim_qk, -1).permute(0, 3, 1, 2)  # (B, HW, heads, d)
        v = self.norm_v(v)
        content = k.flatten(2).softmax(-1) @ v.flatten(2).transpose(1, 2)  # (B, d, v)
        y = q @ (content.unsqueeze(1) + self.positions(v))  # (B, HW, heads, v)
        return self.pool(y.permute(0, 2, 3, 1).reshape(batch, -1, height, width))


class LambdaLayer(Lambda):
    """Positions are seen in a window of r x r pixels, by a convolution that all channels share."""

    def __init__(self, dim: int, grid: tuple[int, int] | None = None, stride: int = 1, heads: int = 4,
                 head_dim: int = 16, r: int = 9, qkv_bias: bool = False):  # fmt: skip
        super().__init__(dim, stride, heads, head_dim, qkv_bias)
        self.conv_lambda = nn.Conv3d(1, head_dim, (r, r, 1), padding=(r // 2, r // 2, 0))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.normal_(self.conv_lambda.weight, std=self.dim_qk**-0.5)

    def positions(self, v: Tensor) -> Tensor:
        batch, _, height, width = v.shape
        v = v.reshape(-1, 1, height, width)
        weight = self.conv_lambda.weight.squeeze(-1)  # the third extent is one pixel
        y = F.conv2d(v, weight, self.conv_lambda.bias, padding=weight.shape[-1] // 2)
        return y.reshape(batch, self.dim_v, self.dim_qk, -1).permute(0, 3, 2, 1)


def table_places(grid: tuple[int, int]) -> Tensor:
    """Row and column of the table for every pair of positions: (2, HW, HW)."""
    device = torch.empty(0).device
    rows, columns = distances(grid[0], grid[0], device), distances(grid[1], grid[1], device)
    places = torch.stack([
        rows[:, None, :, None].expand(-1, grid[1], -1, grid[1]),
        columns[None, :, None, :].expand(grid[0], -1, grid[0], -1),
    ])  # fmt: skip
    return places.reshape(2, grid[0] * grid[1], -1)


class GlobalLambdaLayer(Lambda, Tabled):
    """Positions are seen all over a map of size `grid`, through a table by distance."""

    rel_pos_indices: Tensor
    tables = {"pos_emb": OffsetTable(), "rel_pos_indices": Computed(table_places, "grid")}

    def __init__(self, dim: int, grid: tuple[int, int], stride: int = 1, heads: int = 4, head_dim: int = 16,
                 qkv_bias: bool = False):  # fmt: skip
        super().__init__(dim, stride, heads, head_dim, qkv_bias)
        self.grid = grid
        self.pos_emb = nn.Parameter(torch.empty(2 * grid[0] - 1, 2 * grid[1] - 1, head_dim))
        self.init_non_persistent_buffers()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        super().reset_parameters()
        nn.init.normal_(self.pos_emb, std=0.02)

    def positions(self, v: Tensor) -> Tensor:
        v = check_grid(v, self.grid)
        table = self.pos_emb[self.rel_pos_indices[0], self.rel_pos_indices[1]]  # (HW, HW, d)
        return torch.einsum("nmk,bvm->bnkv", table, v.flatten(2))

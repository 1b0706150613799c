"""Blocks of maps (B, H, W, C) that are called and hooked as the field's: with tokens (B, N, C) and their grid."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from imgzoo_archs_transformer import davit, pvt_v2, twins
from imgzoo_layers import attention, window
from imgzoo_layers.padding import pad_to_multiple
from imgzoo_layers.subsampled_attention import SubsampledAttention
from imgzoo_layers.transformer import Block
from imgzoo_layers.window import from_windows, to_windows


class Gridded:
    """In front of a module of maps: hooks see tokens and their grid; networks call it with a map alone."""

    def __call__(self, x: Tensor, *size: Any, **named: Any) -> Tensor:
        if size or named:
            return super().__call__(x, *size, *named.values())  # type: ignore[misc]
        grid = (x.shape[1], x.shape[2])
        return super().__call__(x.flatten(1, 2), grid).unflatten(1, grid)  # type: ignore[misc]

    def forward(self, x: Tensor, size: Any) -> Tensor:
        return super().forward(x.unflatten(1, tuple(size))).flatten(1, 2)  # type: ignore[misc]


class GridAttention(Gridded, SubsampledAttention):
    pass


class LocalGridAttention(Gridded, window.LocalAttention):
    pass


class GridBlock(Gridded, Block):
    def forward(self, x: Tensor, size: Any) -> Tensor:
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), size)))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class PosConv(Gridded, twins.PosConv):
    pass


class PyramidMlp(Gridded, pvt_v2.Mlp):
    def forward(self, x: Tensor, size: Any) -> Tensor:
        x = self.relu(self.fc1(x).transpose(1, 2).unflatten(2, tuple(size)))
        x = self.act(self.dwconv(x).flatten(2).transpose(1, 2))
        return self.drop(self.fc2(self.drop(x)))


class PyramidBlock(Gridded, Block):
    def forward(self, x: Tensor, size: Any) -> Tensor:
        x = x + self.drop_path1(self.ls1(self.attn(self.norm1(x), size)))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x), size)))


class WindowAttention(window.LocalAttention):
    """Of windows alone, which the block makes: (B * windows, N, C) -> (B * windows, N, C)."""

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return attention.Attention.forward(self, x)


class ChannelAttention(davit.ChannelAttention):
    """(B, N, C) -> (B, N, C)"""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.unsqueeze(1)).squeeze(1)


class DualBlock(davit.Block):
    """Of either attention: (B, C, H, W) -> (B, C, H, W), its parts seeing tokens."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.cpe1(x)
        size = (x.shape[2], x.shape[3])
        x = x.flatten(2).transpose(1, 2)
        x = x + self.drop_path1(self.attended(self.norm1(x), size))
        x = self.cpe2(x.transpose(1, 2).unflatten(2, size)).flatten(2).transpose(1, 2)
        return (x + self.drop_path2(self.mlp(self.norm2(x)))).transpose(1, 2).unflatten(2, size)

    def attended(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        sides: Any = getattr(self.attn, "window", None)
        if sides is None:
            return self.attn(x)
        x = pad_to_multiple(x.unflatten(1, size), sides)
        x = from_windows(self.attn(to_windows(x, sides)), sides, x.shape[1], x.shape[2])
        return x[:, : size[0], : size[1]].flatten(1, 2)


OF_FAMILY: dict[str, dict[type[nn.Module], type[nn.Module]]] = {
    "davit": {davit.Block: DualBlock, window.LocalAttention: WindowAttention, davit.ChannelAttention: ChannelAttention},
    "pvt_v2": {Block: PyramidBlock, SubsampledAttention: GridAttention, pvt_v2.Mlp: PyramidMlp},
    "twins": {Block: GridBlock, SubsampledAttention: GridAttention, window.LocalAttention: LocalGridAttention,
              twins.PosConv: PosConv},
}  # fmt: skip
"""Adapters of the parts of a family's networks."""

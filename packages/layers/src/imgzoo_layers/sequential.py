"""Modules one after another on more than one value, with types that scripting needs."""

from torch import Tensor, nn

from .tables import Size


class PairSequential(nn.Sequential):
    """Each module takes and returns a pair of tensors."""

    def forward(self, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        for module in self:
            x = module(x)
        return x


class SharedSequential(nn.Sequential):
    """Each module takes and returns tokens and the tensor that all of them share, if they do."""

    def forward(self, x: tuple[Tensor, Tensor | None]) -> tuple[Tensor, Tensor | None]:  # type: ignore[override]
        for module in self:
            x = module(x)
        return x


class GridSequential(nn.Sequential):
    """Each module takes and returns tokens and the size of their grid."""

    def forward(self, x: tuple[Tensor, Size]) -> tuple[Tensor, Size]:  # type: ignore[override]
        for module in self:
            x = module(x)
        return x

"""Modules one after another on more than one tensor, with types that scripting needs."""

from torch import Tensor, nn


class PairSequential(nn.Sequential):
    """Each module takes and returns a pair of tensors."""

    def forward(self, x: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        for module in self:
            x = module(x)
        return x

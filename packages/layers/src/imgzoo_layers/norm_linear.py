"""A batch norm before a linear classifier, as networks that learn from a teacher have twice (arXiv:2104.01136)."""

from torch import Tensor, nn

from .init import trunc_normal_


class NormLinear(nn.Module):
    """Batch norm, linear: (B, C) -> (B, num_classes); nothing of both where there are no classes. Keys `bn`, `l`."""

    def __init__(self, dim: int, num_classes: int):
        super().__init__()
        self.bn: nn.Module = nn.BatchNorm1d(dim) if num_classes else nn.Identity()
        self.l: nn.Module = nn.Linear(dim, num_classes) if num_classes else nn.Identity()
        if isinstance(self.l, nn.Linear):
            trunc_normal_(self.l.weight, std=0.02)
            nn.init.zeros_(self.l.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.l(self.bn(x))

"""A batch norm before the linear classifier (LeViT, arXiv:2104.01136, section 4.2)."""

from typing import Any

import torch
from torch import Tensor, nn

from .drop import dropout_of
from .head import linear_or_none
from .init import trunc_normal_


class NormLinear(nn.Sequential):
    """Batch norm, dropout, linear: (B, C) -> (B, num_classes); no norm nor linear layer without classes. Keys `bn` and
    that given.

    Dropout is not called `drop`: torchvision's tracer takes `head.drop` for a second `head_drop` and fails.
    """

    def __init__(self, dim: int, num_classes: int, key: str = "l", drop_rate: float = 0.0):
        super().__init__()
        self.bn: nn.Module = nn.BatchNorm1d(dim) if num_classes else nn.Identity()
        self.dropout = dropout_of(drop_rate)
        linear = linear_or_none(dim, num_classes)
        self.add_module(key, linear)
        if isinstance(linear, nn.Linear):
            trunc_normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)


class TwoHeads(nn.Module):
    """Two classifiers, one of which learned from a teacher; their logits are averaged, or apart if `apart`.

    (B, C) -> (B, num_classes); keys `head` and `head_dist`, which is missing if not `distilled`.
    """

    def __init__(self, dim: int, num_classes: int, drop_rate: float, distilled: bool = True):
        super().__init__()
        self.head_drop = nn.Dropout(drop_rate)
        self.head = NormLinear(dim, num_classes)
        self.head_dist = NormLinear(dim, num_classes) if distilled else None
        self.apart = False

    def forward(self, x: Tensor):
        x = self.head_drop(x)
        first = self.head(x)
        if self.head_dist is None:
            return first
        second = self.head_dist(x)
        if torch.jit.is_scripting() or not (self.apart and self.training):  # type: ignore[attr-defined]
            return (first + second) / 2
        return first, second


class NormLinearHead:
    """Comes before the network's base, whose `parts.head` names the linear layer of every `NormLinear`."""

    reads_maps = False

    @torch.jit.ignore  # type: ignore[arg-type]
    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put in new classifiers; norms stay where they fit, and go with the last class. None keeps the pool."""
        model: Any = self
        super().reset_classifier(num_classes, global_pool)  # type: ignore[misc]
        like, dim = next(model.parameters()), model.head_hidden_size
        for path in model._heads():
            head: Any = model.get_submodule(path.rpartition(".")[0])
            if not num_classes:
                head.bn = nn.Identity()
            elif getattr(head.bn, "num_features", 0) != dim:
                head.bn = nn.BatchNorm1d(dim).to(device=like.device, dtype=like.dtype).train(model.training)

    @torch.jit.ignore  # type: ignore[arg-type]
    def fit_state(self, state: dict[str, Tensor]) -> list[str]:
        """Resize tables; without classes the norms before them have no place."""
        model: Any = self
        prefixes = tuple(path.rpartition(".")[0] + ".bn." for path in model._heads())
        for key in [key for key in state if key.startswith(prefixes) and not model.num_classes]:
            del state[key]
        return super().fit_state(state)  # type: ignore[misc]

"""What heads with layers between the pool and the classifier need: a pool that keeps the width, and pruning."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from .act import Act, create_act
from .conv import Pointwise2d
from .head import linear_or_none
from .pool import GlobalPool


class HiddenPool(GlobalPool):
    """As `GlobalPool`, but refuses "catavgmax": the layer behind it was made for C channels."""

    @torch.jit.ignore  # type: ignore[arg-type]
    def set(self, kind: str) -> None:
        if kind.removeprefix("fast") == "catavgmax":
            raise ValueError("the head's hidden layer reads C channels: global_pool is avg, max, avgmax or ''")
        super().set(kind)


class HiddenHead:
    """Comes before the network's base: hidden layers go with the pruned head; a new classifier is then linear."""

    hidden: ClassVar[tuple[str, ...]]
    """Dotted paths of the layers between pool and classifier."""

    def prune_intermediate_layers(
        self, indices: int | Sequence[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        model: Any = self
        chosen = super().prune_intermediate_layers(indices, prune_norm, prune_head)  # type: ignore[misc]
        if prune_head:
            for path in self.hidden:
                owner, _, name = path.rpartition(".")
                setattr(model.get_submodule(owner), name, nn.Identity())
            model.head_hidden_size = model.num_features
        return chosen


class ConvHead(HiddenHead):
    """MobileNetV3's head (arXiv:1905.02244): a 1x1 convolution widens the pooled vector before the classifier.

    Keys `conv_head` and `classifier`; (B, C, H, W) -> (B, classes).
    """

    hidden = ("conv_head", "act2")
    reads_maps = True
    num_features: int
    head_hidden_size: int

    def _add_head(self, dim: int, hidden: int, num_classes: int, pool: str, drop_rate: float, act: Act = "relu",
                  bias: bool = True) -> None:  # fmt: skip
        self.num_features, self.head_hidden_size = dim, hidden
        self.global_pool = HiddenPool(pool)
        self.conv_head = Pointwise2d(dim, hidden, bias)
        self.act2 = create_act(act, inplace=True)
        self.head_drop = nn.Dropout(drop_rate)
        self.classifier = linear_or_none(hidden, num_classes)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.global_pool(x)
        if getattr(self.global_pool, "kind", "own") == "":  # the classifier looks at every position
            x = self.head_drop(self.act2(self.conv_head(x))).permute(0, 2, 3, 1)
            return (x if pre_logits else self.classifier(x)).permute(0, 3, 1, 2)
        x = self.head_drop(self.act2(self.conv_head(x.flatten(1)[:, :, None, None])).flatten(1))
        return x if pre_logits else self.classifier(x)

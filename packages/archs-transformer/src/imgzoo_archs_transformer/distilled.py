"""Two classifiers: of the class token, and of one that learns from a teacher (DeiT, arXiv:2012.12877, section 4)."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from imgzoo.model import ImageModel


class DistilledModel(ImageModel):
    """Comes before the network's own class: its first two tokens are classified, and the two logits averaged."""

    if TYPE_CHECKING:  # TorchScript would read annotations
        head: nn.Module
        head_drop: nn.Module

    def _add_second_head(self, dim: int, num_classes: int) -> None:
        self.head_dist = nn.Linear(dim, num_classes) if num_classes else nn.Identity()
        self.distilled_training = False

    @torch.jit.ignore
    def set_distilled_training(self, enable: bool = True) -> None:
        """While training, return the two classifiers' logits apart."""
        self.distilled_training = enable

    def forward_head(self, x: Tensor, pre_logits: bool = False):
        first, second = x[:, 0], x[:, 1]
        if pre_logits:
            return (first + second) / 2
        first, second = self.head(self.head_drop(first)), self.head_dist(self.head_drop(second))
        if torch.jit.is_scripting() or not (self.distilled_training and self.training):
            return (first + second) / 2
        return first, second

"""MobileNetV3 (arXiv:1905.02244), V4 (arXiv:2404.10518), FBNetV3 (arXiv:2006.02049) and PP-LCNet (arXiv:2109.15099)."""

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import Parts
from imgzoo_layers.act import create_act
from imgzoo_layers.conv import Pointwise2d
from imgzoo_layers.norm_act import NormAct

from .trunk import MobileTrunk


class MobileNetV3(MobileTrunk):
    """The head widens the pooled vector, so the last layer runs at one position only.

    Args:
        head_bias: bias of the last convolution, where no norm follows
        head_norm: a norm behind it
    """

    parts = Parts(stem=("conv_stem", "bn1"), stages=("blocks",), pool="global_pool", head="classifier",
                  tail=("conv_head", "norm_head", "act2"))  # fmt: skip
    layer_groups = {
        "stem": r"^conv_stem|bn1",
        "blocks": r"^blocks\.(\d+)\.(\d+)",
        "coarse": r"^blocks\.(\d+)",
    }

    def __init__(self, head_bias: bool = True, head_norm: bool = False, gate_from_expanded: bool = True,
                 **options: Any):  # fmt: skip
        self._head_bias, self._head_norm = head_bias and not head_norm, head_norm
        super().__init__(gate_from_expanded=gate_from_expanded, **options)

    def _add_head(self, dim: int, width: int, make_norm: NormAct, act: str, padding: str) -> None:
        self.num_features, self.head_hidden_size = dim, width
        self.conv_head = Pointwise2d(dim * self.global_pool.width, width, self._head_bias)
        self.norm_head = make_norm(width) if self._head_norm else nn.Identity()
        self.act2 = nn.Identity() if self._head_norm else create_act(act, inplace=True)

    def forward_features(self, x: Tensor) -> Tensor:
        return self.forward_stages(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.global_pool(x)
        whole = getattr(self.global_pool, "kind", "own") == ""
        if not whole:
            x = x.flatten(1)[:, :, None, None]
        x = self.act2(self.norm_head(self.conv_head(x)))
        if not whole:
            x = x.flatten(1)
        x = F.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.classifier(x)

    def _set_pool(self, global_pool: str) -> None:
        before = self.global_pool.width
        self.global_pool.set(global_pool)
        if self.global_pool.width != before and isinstance(self.conv_head, nn.Conv2d):
            old = self.conv_head
            new = Pointwise2d(self.num_features * self.global_pool.width, self.head_hidden_size, self._head_bias)
            self.conv_head = new.to(old.weight)

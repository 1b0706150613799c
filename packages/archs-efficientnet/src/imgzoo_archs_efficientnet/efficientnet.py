"""EfficientNet (arXiv:1905.11946), V2 (arXiv:2104.00298) and the networks of the same blocks: MobileNet V1 and V2,
MNASNet, FBNet, Single-Path NAS, MixNet, TinyNet, CondConv, EdgeTPU, EfficientNet-X and -H."""

from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import Parts
from imgzoo_layers.conv import create_conv
from imgzoo_layers.norm_act import NormAct

from .trunk import MobileTrunk


class EfficientNet(MobileTrunk):
    """The head widens the map before pooling."""

    parts = Parts(stem=("conv_stem", "bn1"), stages=("blocks",), norm=("conv_head", "bn2"), pool="global_pool",
                  head="classifier")  # fmt: skip
    layer_groups = {
        "stem": r"^conv_stem|bn1",
        "blocks": [(r"^blocks\.(\d+)\.(\d+)", None), (r"conv_head|bn2", (99999,))],
        "coarse": [(r"^blocks\.(\d+)", None), (r"conv_head|bn2", (99999,))],
    }

    def _add_head(self, dim: int, width: int, make_norm: NormAct, act: str, padding: str) -> None:
        self.num_features = width or dim
        self.head_hidden_size = self.num_features * self.global_pool.width
        self.conv_head = create_conv(dim, width, 1, 1, padding) if width else nn.Identity()
        self.bn2 = make_norm(width) if width else nn.Identity()

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, num_features, H/32, W/32)
        return self.bn2(self.conv_head(self.forward_stages(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = F.dropout(self.global_pool(x), self.drop_rate, self.training)
        return x if pre_logits else self.classifier(x)

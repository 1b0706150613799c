"""ConvMixer: patches, then only large depthwise and 1x1 convolutions at one resolution (arXiv:2201.09792)."""

from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.act import create_act
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.pool import GlobalPool


class Residual(nn.Module):
    def __init__(self, *layers: nn.Module):
        super().__init__()
        self.fn = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(x) + x


class Block(nn.Sequential):
    """Mix space depthwise on a residual, then channels pointwise: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, kernel: int, act: str):
        depthwise = nn.Conv2d(dim, dim, kernel, padding="same", groups=dim)
        super().__init__(Residual(depthwise, create_act(act), nn.BatchNorm2d(dim)),
                         nn.Conv2d(dim, dim, 1), create_act(act), nn.BatchNorm2d(dim))  # fmt: skip


class ConvMixer(ImageModel):
    """Args:
    dim: channels
    kernel: side of the depthwise convolutions
    """

    parts = Parts(stages=("blocks",), pool="global_pool", head="head")
    layout = "plain"
    layer_groups = {"stem": r"^stem", "blocks": r"^blocks\.(\d+)"}
    isotropic = True

    def __init__(self, dim: int = 1536, depth: int = 20, kernel: int = 9, patch_size: int = 7, act: str = "gelu",
                 num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg",
                 drop_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.drop_rate = drop_rate
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, dim, patch_size, patch_size), create_act(act), nn.BatchNorm2d(dim)
        )
        self.blocks = nn.Sequential(*(Block(dim, kernel, act) for _ in range(depth)))
        self.feature_info = FeatureInfo(Feature(dim, patch_size, f"blocks.{i}") for i in range(depth))
        self.global_pool = GlobalPool(global_pool)
        self.num_features, self.head_hidden_size = dim, dim * self.global_pool.width
        self.head = linear_or_none(self.head_hidden_size, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/patch, W/patch)
        return self.blocks(self.stem(x))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = F.dropout(self.global_pool(x), self.drop_rate, self.training)
        return x if pre_logits else self.head(x)

    def _blocks(self) -> list[nn.Module]:
        return list(self.blocks)

"""StarNet: an element-wise product of two linear layers instead of an activation (arXiv:2403.19967)."""

from collections.abc import Sequence

from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Acts
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.init import trunc_normal_
from imgzoo_layers.pool import GlobalPool


class ConvNorm(nn.Sequential):
    """Convolution with a bias, and a batch norm if asked for; keys `conv` and `bn`."""

    def __init__(self, dim: int, dim_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, norm: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim_out, kernel, stride, kernel // 2, groups=groups)
        if norm:
            self.bn = nn.BatchNorm2d(dim_out)


class Block(nn.Module):
    """Depthwise, the star of two wide pointwise layers, back, depthwise: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, mlp_ratio: int, drop_path: float):
        super().__init__()
        self.dwconv = ConvNorm(dim, dim, 7, groups=dim)
        self.f1 = ConvNorm(dim, mlp_ratio * dim, norm=False)
        self.f2 = ConvNorm(dim, mlp_ratio * dim, norm=False)
        self.g = ConvNorm(mlp_ratio * dim, dim)
        self.dwconv2 = ConvNorm(dim, dim, 7, groups=dim, norm=False)
        self.act = nn.ReLU6()
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dwconv(x)
        y = self.act(self.f1(y)) * self.f2(y)
        return x + self.drop_path(self.dwconv2(self.g(y)))


class StarNet(ImageModel):
    """Args:
    base_dim: channels of the first stage
    """

    exchanged = (Acts("relu6"),)
    reads_maps = True
    parts = Parts(norm=("norm",), pool="global_pool", head="head")
    layer_groups = {
        "stem": r"^stem\.\d+",
        "blocks": [(r"^stages\.(\d+)\.(\d+)", None), (r"^norm", (99999,))],
        "coarse": [(r"^stages\.(\d+)", None), (r"^norm", (99999,))],
    }

    def __init__(self, base_dim: int = 32, depths: Sequence[int] = (3, 3, 12, 5), mlp_ratio: int = 4,
                 num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        dim = 32
        self.stem = nn.Sequential(ConvNorm(in_chans, dim, 3, 2), nn.ReLU6())
        stages, levels = [], []
        for i, drops in enumerate(drop_path_rates(drop_path_rate, depths)):
            out = base_dim * 2**i
            stages.append(nn.Sequential(ConvNorm(dim, out, 3, 2), *[Block(out, mlp_ratio, p) for p in drops]))
            levels.append(Feature(out, 4 * 2**i, f"stages.{i}"))
            dim = out
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim
        self.norm = nn.BatchNorm2d(dim)
        self.global_pool = GlobalPool(global_pool)
        self.head_hidden_size = dim * self.global_pool.width
        self.head_drop = nn.Dropout(drop_rate)
        self.head = linear_or_none(self.head_hidden_size, num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                trunc_normal_(module.weight, std=0.02)
        if isinstance(self.head, nn.Linear):
            nn.init.zeros_(self.head.bias)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.norm(self.stages(self.stem(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.head_drop(self.global_pool(x))
        if getattr(self.global_pool, "kind", "own") == "":  # the classifier looks at every position
            return x if pre_logits else self.head(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        x = x.flatten(1)
        return x if pre_logits else self.head(x)

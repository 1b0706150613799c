"""VGG: nothing but 3x3 convolutions and pooling, then three large linear layers (arXiv:1409.1556)."""

from collections.abc import Sequence

import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts, repeated
from imgzoo_layers.act import create_act
from imgzoo_layers.conv import Pointwise2d
from imgzoo_layers.head import ClassifierHead
from imgzoo_layers.init import init_fan_out_
from imgzoo_layers.norm import get_norm

DIMS = (64, 128, 256, 512, 512)


class PreLogits(nn.Module):
    """The first two linear layers as convolutions, so that any map fits: (B, C, H, W) -> (B, dim, H-6, W-6)."""

    def __init__(self, dim_in: int, hidden: int, dim: int, kernel: int, drop: float, act: str):
        super().__init__()
        self.kernel = kernel
        self.fc1 = WholeConv2d(dim_in, hidden, kernel)
        self.act1 = create_act(act, inplace=True)
        self.drop = nn.Dropout(drop)
        self.fc2 = Pointwise2d(hidden, dim)
        self.act2 = create_act(act, inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = at_least(x, self.kernel)
        return self.act2(self.fc2(self.drop(self.act1(self.fc1(x)))))


class WholeConv2d(nn.Conv2d):
    """A convolution without borders: for inference a matrix product where its kernel covers the map."""

    def forward(self, x: Tensor) -> Tensor:
        return over_all(x, self.weight, self.bias)


def over_all(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(B, C, H, W) -> (B, C', H - KH + 1, W - KW + 1)."""
    if not torch.is_grad_enabled() and x.shape[2:] == weight.shape[2:]:
        return F.linear(x.flatten(1), weight.flatten(1), bias)[:, :, None, None]
    return F.conv2d(x, weight, bias)


def at_least(x: Tensor, side: int) -> Tensor:
    """Stretch maps of images below 224 pixels to `side`."""
    height, width = x.shape[-2], x.shape[-1]
    if height < side or width < side:
        return F.adaptive_avg_pool2d(x, (max(height, side), max(width, side)))
    return x


torch.fx.wrap("at_least")
torch.fx.wrap("over_all")


class VGG(ImageModel):
    """Args:
    mlp_ratio: channels behind the first of the large linear layers as a multiple of those behind the second
    """

    parts = Parts(stem=(), stages=("features",), tail=("pre_logits",))
    layout = "plain"
    layer_groups = {"stem": r"^features\.0", "blocks": r"^features\.(\d+)"}

    def __init__(self, depths: Sequence[int] = (2, 2, 3, 3, 3), norm: str | None = None, act: str = "relu",
                 mlp_ratio: float = 1.0, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg",
                 drop_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        layers: list[nn.Module] = []
        levels, dim_in = [], in_chans
        for i, (depth, dim) in enumerate(zip(depths, DIMS)):
            for _ in range(depth):
                layers.append(nn.Conv2d(dim_in, dim, 3, padding=1))
                layers += [get_norm(norm)(dim)] if norm else []
                layers.append(create_act(act, inplace=True))
                dim_in = dim
            levels.append(Feature(dim, 2**i, f"features.{len(layers) - 1}"))
            layers.append(nn.MaxPool2d(2, 2))
        levels.append(Feature(dim_in, 2 ** len(DIMS), f"features.{len(layers) - 1}"))
        self.features = nn.Sequential(*layers)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim_in
        self.pre_logits: nn.Module = PreLogits(dim_in, int(4096 * mlp_ratio), 4096, 7, drop_rate, act)
        self.head = ClassifierHead(4096, num_classes, global_pool, drop_rate)
        self.head_hidden_size = 4096 * self.head.global_pool.width
        self.checkpointing = False
        init_(self)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 512, H/32, W/32)
        return self._in_pieces(x) if self.checkpointing else self.features(x)

    @torch.jit.unused
    def _in_pieces(self, x: Tensor) -> Tensor:
        start = 0
        for level in self.feature_info.levels:  # no piece begins with an activation, which would write over its input
            end = int(level.module.removeprefix("features.")) + 1
            piece = self.features[start:end]
            x = repeated(piece, piece, x)
            start = end
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.pre_logits(x)
        return self.head(x, pre_logits=True) if pre_logits else self.head(x)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Keep the levels only: the row of layers is too flat for blocks."""
        self.checkpointing = enable


def init_(model: nn.Module) -> None:
    """Convolutions by fan-out without bias, the classifier nearly zero."""
    init_fan_out_(model)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.zeros_(module.get_parameter("bias"))
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)

"""TResNet: a ResNet made fast on GPUs, with a space-to-depth stem and blurred downsampling (arXiv:2003.13630)."""

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.conv import ConvNormAct
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.gate import SqueezeExcite
from imgzoo_layers.head import ClassifierHead
from imgzoo_layers.init import init_fan_out_
from imgzoo_layers.space_to_depth import SpaceToDepth


class Leaky(nn.LeakyReLU):
    """Leaky ReLU with the slope 0.001."""

    def __init__(self, inplace: bool = False):
        super().__init__(1e-3, inplace)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a gate on a residual: (B, C, H, W) -> (B, dim, H/stride, W/stride)."""

    expansion = 1

    def __init__(self, dim_in: int, dim: int, stride: int, downsample: nn.Module, gated: bool, drop_path: float):
        super().__init__()
        self.downsample = downsample
        self.conv1 = ConvNormAct(dim_in, dim, 3, stride, act=Leaky, aa="blur")
        self.conv2 = ConvNormAct(dim, dim, 3, apply_act=False)
        self.act = nn.ReLU(inplace=True)
        self.se = SqueezeExcite(dim, rd_channels=max(dim // 4, 64)) if gated else nn.Identity()
        self.drop_path = drop_path_of(drop_path)
        nn.init.zeros_(self.conv2.bn.get_parameter("weight"))

    def forward(self, x: Tensor) -> Tensor:
        y = self.se(self.conv2(self.conv1(x)))
        return self.act(self.drop_path(y) + self.downsample(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, gate, 1x1 on a residual: (B, C, H, W) -> (B, 4 dim, H/stride, W/stride)."""

    expansion = 4

    def __init__(self, dim_in: int, dim: int, stride: int, downsample: nn.Module, gated: bool, drop_path: float):
        super().__init__()
        self.downsample = downsample
        self.conv1 = ConvNormAct(dim_in, dim, act=Leaky)
        self.conv2 = ConvNormAct(dim, dim, 3, stride, act=Leaky, aa="blur")
        self.se = SqueezeExcite(dim, rd_channels=max(dim // 2, 64)) if gated else nn.Identity()
        self.conv3 = ConvNormAct(dim, dim * self.expansion, apply_act=False)
        self.drop_path = drop_path_of(drop_path)
        self.act = nn.ReLU(inplace=True)
        nn.init.zeros_(self.conv3.bn.get_parameter("weight"))

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv3(self.se(self.conv2(self.conv1(x))))
        return self.act(self.drop_path(y) + self.downsample(x))


class TResNet(ImageModel):
    """Args:
    width_factor: factor of all channels
    all_bottlenecks: bottlenecks in the first two stages, too, and widths in multiples of 8
    """

    default_levels = (1, 2, 3, 4)
    parts = Parts(stem=(), stages=("body",))
    layer_groups = {
        "stem": r"^body\.conv1",
        "blocks": r"^body\.layer(\d+)\.(\d+)",
        "coarse": r"^body\.layer(\d+)",
    }

    def __init__(self, layers: Sequence[int] = (3, 4, 11, 3), width_factor: float = 1.0, all_bottlenecks: bool = False,
                 num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        width = dim = int(64 * width_factor) // 8 * 8 if all_bottlenecks else int(64 * width_factor)
        body: OrderedDict[str, nn.Module] = OrderedDict()
        body["s2d"] = SpaceToDepth()
        body["conv1"] = ConvNormAct(16 * in_chans, dim, 3, act="leaky_relu")
        levels = [Feature(dim, 4, "body.conv1")]
        for i, drops in enumerate(drop_path_rates(drop_path_rate, list(layers))):
            make = Bottleneck if i > 1 or all_bottlenecks else BasicBlock
            blocks, out = nn.Sequential(), width * 2**i * make.expansion
            for j, drop in enumerate(drops):
                stride = 2 if i and not j else 1
                down = make_downsample(dim, out, stride) if dim != out else nn.Identity()
                blocks.append(make(dim, width * 2**i, stride, down, i < 3, drop))
                dim = out
            body[f"layer{i + 1}"] = blocks
            levels.append(Feature(dim, 4 * 2**i, f"body.layer{i + 1}"))
        self.body = nn.Sequential(body)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim
        self.head = ClassifierHead(dim, num_classes, global_pool, drop_rate)
        self.head_hidden_size = dim * self.head.global_pool.width
        init_(self)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.body(x)


def make_downsample(dim: int, dim_out: int, stride: int) -> nn.Sequential:
    pool = [nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)] if stride > 1 else []
    return nn.Sequential(*pool, ConvNormAct(dim, dim_out, apply_act=False))


def init_(model: nn.Module) -> None:
    """Convolutions normal by fan-out, the classifier nearly zero."""
    init_fan_out_(model)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)

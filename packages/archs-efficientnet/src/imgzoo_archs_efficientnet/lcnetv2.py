"""PP-LCNetV2 (PaddleClas), after PP-LCNet (arXiv:2109.15099): depthwise kernels of several sizes that merge."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.conv import ConvNormAct
from imgzoo_layers.exchange import Acts, Norms
from imgzoo_layers.gate import SqueezeExcite
from imgzoo_layers.hidden_head import ConvHead
from imgzoo_layers.init import init_fan_out_
from imgzoo_layers.reparam import fold_norm, merged
from imgzoo_layers.util import make_divisible

STAGES: tuple[tuple[int, dict[str, Any]], ...] = (
    (128, {}),
    (256, {}),
    (512, {"kernels": (5, 3, 1), "gated": True}),
    (1024, {"kernels": (5, 3, 1), "shortcut": True}),
)
"""Width and blocks of the stages."""


class Block(nn.Module):
    """Depthwise, gate, pointwise: (B, C, H, W) -> (B, dim_out, H/stride, W/stride).

    Of several kernels, each with a norm, the sum is taken, 1x1 only where the size stays. A gated block makes half of
    its output's channels first.
    """

    def __init__(self, dim: int, dim_out: int, stride: int = 1, kernels: Sequence[int] = (3,), gated: bool = False,
                 shortcut: bool = False):  # fmt: skip
        super().__init__()
        self.shortcut = shortcut and dim == dim_out and stride == 1
        self.dw_conv: Any = None
        self.dw_conv_list: Any = None
        self.dw_act: nn.Module = nn.Identity()
        if len(kernels) == 1:
            self.dw_conv = ConvNormAct(dim, dim, kernels[0], stride, groups=dim)
        else:
            self.dw_conv_list = nn.ModuleList(
                ConvNormAct(dim, dim, kernel, stride, groups=dim, apply_act=False)
                for kernel in kernels
                if kernel > 1 or stride == 1
            )
            self.dw_act = nn.ReLU(inplace=True)
        self.se = SqueezeExcite(dim, 0.25) if gated else nn.Identity()
        if gated:
            self.pw_conv: nn.Module = nn.Sequential(ConvNormAct(dim, dim_out // 2), ConvNormAct(dim_out // 2, dim_out))
        else:
            self.pw_conv = ConvNormAct(dim, dim_out)

    def forward(self, x: Tensor) -> Tensor:
        if self.dw_conv is not None:
            y = self.dw_conv(x)
        else:
            y = self.dw_conv_list[0](x)
            for i, conv in enumerate(self.dw_conv_list):
                if i > 0:
                    y = y + conv(x)
        y = self.pw_conv(self.se(self.dw_act(y)))
        return x + y if self.shortcut else y

    def reparameterize(self) -> None:
        """Replace the kernels by the largest, for inference."""
        if self.dw_conv is not None:
            return
        branches = self.dw_conv_list
        self.dw_conv = merged(branches[0].conv, [fold_norm(branch.conv.weight, branch.bn) for branch in branches])
        self.dw_conv_list = None


class LCNetV2(ConvHead, ImageModel):
    """Args:
    scale: factor of all channels
    """

    exchanged = (Acts("relu"), Norms("batchnorm"))
    norms_act = True
    parts = Parts(pool="global_pool", head="classifier")
    layer_groups = {"stem": r"^stem", "blocks": r"^stages\.(\d+)\.(\d+)", "coarse": r"^stages\.(\d+)"}
    layout = "plain"

    def __init__(self, scale: float = 1.0, depths: Sequence[int] = (2, 2, 6, 2), num_classes: int = 1000,
                 in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        half, dim = make_divisible(32 * scale), make_divisible(64 * scale)
        self.stem = nn.Sequential(ConvNormAct(in_chans, half, 3, 2), Block(half, dim))
        stages, levels = [], []
        for i, ((width, options), depth) in enumerate(zip(STAGES, depths, strict=True)):
            out = make_divisible(width * scale)
            blocks = [Block(dim, out, 2, **options), *[Block(out, out, **options) for _ in range(depth - 1)]]
            stages.append(nn.Sequential(*blocks))
            dim = out
            levels.append(Feature(dim, 4 * 2**i, f"stages.{i}"))
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self._add_head(dim, 1280, num_classes, global_pool, drop_rate, bias=False)
        init_fan_out_(self)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)) and module.bias is not None:
                nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.stages(self.stem(x))

"""RepGhost: GhostNet whose joining of features becomes a sum that merges for inference (arXiv:2211.06088)."""

from typing import Any

from torch import Tensor, nn

from imgzoo_layers.reparam import fold_norm, identity_kernel, merged

from .ghost_trunk import Bottleneck, GhostTrunk, Row, conv_norm_act

STAGES: list[list[Row]] = [
    [(3, 8, 16, False, 1)],
    [(3, 24, 24, False, 2)],
    [(3, 36, 24, False, 1)],
    [(5, 36, 40, True, 2)],
    [(5, 60, 40, True, 1)],
    [(3, 120, 80, False, 2)],
    [(3, 100, 80, False, 1), *[(3, 120, 80, False, 1)] * 2, (3, 240, 112, True, 1), (3, 336, 112, True, 1)],
    [(5, 336, 160, True, 2)],
    [(5, 480, 160, False, 1), (5, 480, 160, True, 1)] * 2,
]
"""Table 2 of the paper."""


class RepGhost(nn.Module):
    """1x1, then a depthwise 3x3 and a norm summed: (B, C, H, W) -> (B, dim_out, H, W)."""

    def __init__(self, dim: int, dim_out: int, act: bool):
        super().__init__()
        self.primary_conv = conv_norm_act(dim, dim_out, 1, 1, act)
        self.fusion_bn: Any = nn.Sequential(nn.BatchNorm2d(dim_out))
        self.cheap_operation: Any = conv_norm_act(dim_out, dim_out, 3, dim_out, False)
        self.relu: nn.Module = nn.ReLU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.primary_conv(x)
        y = self.cheap_operation(x)
        return self.relu(y if self.fusion_bn is None else y + self.fusion_bn(x))

    def reparameterize(self) -> None:
        """Replace the sum by one convolution, for inference."""
        if self.fusion_bn is None:
            return
        conv, norm, _ = self.cheap_operation
        eye = identity_kernel(conv.out_channels, conv.groups, 3, conv.weight)
        kernels = [fold_norm(conv.weight, norm), fold_norm(eye, self.fusion_bn[0])]
        self.cheap_operation, self.fusion_bn = merged(conv, kernels), None


class RepGhostNet(GhostTrunk):
    def __init__(self, **options: Any):
        def make_block(dim: int, hidden: int, dim_out: int, kernel: int, stride: int, gated: bool,
                       stage: int) -> nn.Module:  # fmt: skip
            ghosts = RepGhost(dim, hidden, True), RepGhost(hidden, dim_out, False)
            return Bottleneck(dim, hidden, *ghosts, dim_out, kernel, stride, gated)

        super().__init__(STAGES, make_block, 960, **options)

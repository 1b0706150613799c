"""Convolutions that weigh several kernels, or several maps, by what the image shows; batch norm that acts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo_archs_cnn import resnest, sknet
from imgzoo_layers.util import make_divisible

from ._act import get_act_layer
from ._base import made, placed
from ._conv import ConvNormAct

ABN = {"identity": nn.Identity, "": nn.Identity, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU}
"""The activations that can be undone."""


@placed
class SelectiveKernel(sknet.SelectiveKernel):
    """Kernels side by side, with the choice between them (arXiv:1903.06586): (B, C, H, W) -> (B, D, H', W')."""

    def __init__(self, in_channels: int, out_channels: int | None = None, kernel_size: Any = None, stride: int = 1,
                 dilation: int = 1, groups: int = 1, rd_ratio: float = 1 / 16, rd_channels: int | None = None,
                 rd_divisor: int = 8, keep_3x3: bool = True, split_input: bool = True, act_layer: Any = nn.ReLU,
                 norm_layer: Any = nn.BatchNorm2d, aa_layer: Any = None, drop_layer: Any = None):  # fmt: skip
        nn.Module.__init__(self)
        kernels = kernel_size or [3, 5]
        kernels = list(kernels) if isinstance(kernels, (list, tuple)) else [kernels] * 2
        if any(kernel < 3 or kernel % 2 == 0 for kernel in kernels):
            raise ValueError(f"kernels are odd and at least 3, not {kernels}")
        out, self.split_input = out_channels or in_channels, split_input
        spread = [dilation * (kernel - 1) // 2 if keep_3x3 else dilation for kernel in kernels]
        if split_input and in_channels % len(kernels):
            raise ValueError(f"{in_channels} channels are not split between {len(kernels)} kernels")
        part = in_channels // len(kernels) if split_input else in_channels
        self.paths = nn.ModuleList(
            ConvNormAct(part, out, 3 if keep_3x3 else kernel, stride, dilation=wide, groups=min(out, groups),
                        norm_layer=norm_layer, act_layer=act_layer, aa_layer=aa_layer, drop_layer=drop_layer)
            for kernel, wide in zip(kernels, spread))  # fmt: skip
        hidden = rd_channels or make_divisible(out * rd_ratio, rd_divisor)
        self.attn = sknet.Selection(out, hidden, len(kernels))


@placed
class SplitAttn(resnest.SplitAttention):
    """Several maps of each group of channels, added with learned weights (arXiv:2004.08955)."""

    def __init__(self, in_channels: int, out_channels: int | None = None, kernel_size: int = 3, stride: int = 1,
                 padding: int | None = None, dilation: int = 1, groups: int = 1, bias: bool = False, radix: int = 2,
                 rd_ratio: float = 0.25, rd_channels: int | None = None, rd_divisor: int = 8, act_layer: Any = nn.ReLU,
                 norm_layer: Any = None, drop_layer: Any = None, **kwargs: Any):  # fmt: skip
        nn.Module.__init__(self)
        out = out_channels or in_channels
        self.radix, self.cardinality = radix, groups
        hidden = make_divisible(in_channels * radix * rd_ratio, rd_divisor, minimum=32)
        hidden = rd_channels * radix if rd_channels else hidden
        padding, act = kernel_size // 2 if padding is None else padding, inplace(act_layer)
        self.conv = nn.Conv2d(in_channels, out * radix, kernel_size, stride, padding, dilation, groups * radix,
                              bias=bias, **kwargs)  # fmt: skip
        self.bn0 = made(norm_layer, out * radix)
        self.drop = nn.Identity() if drop_layer is None else drop_layer()
        self.act0 = act()
        self.fc1 = nn.Conv2d(out, hidden, 1, groups=groups)
        self.bn1 = made(norm_layer, hidden)
        self.act1 = act()
        self.fc2 = nn.Conv2d(hidden, out * radix, 1, groups=groups)


def inplace(act_layer: Any) -> Any:
    """Makes an activation that overwrites its input, where it can."""

    def make() -> nn.Module:
        layer = get_act_layer(act_layer)
        try:
            return layer(inplace=True)
        except TypeError:
            return layer()

    return make


class InplaceAbn(nn.Module):
    """Batch norm and an activation that can be undone, under the keys of in-place norms (arXiv:1712.02616).

    The numbers are those of a batch norm; torch keeps the map that an in-place one recomputes.
    """

    running_mean: Tensor
    running_var: Tensor

    def __init__(self, num_features: int, eps: float = 1e-5, momentum: float = 0.1, affine: bool = True,
                 apply_act: bool = True, act_layer: Any = "leaky_relu", act_param: float = 0.01,
                 drop_layer: Any = None):  # fmt: skip
        super().__init__()
        kind = (act_layer if apply_act else "identity") or "identity"
        names = {layer: name for name, layer in ABN.items() if name}
        self.act_name = kind if isinstance(kind, str) else names.get(kind, str(kind))
        if self.act_name not in ABN:
            raise ValueError(f"act_layer is leaky_relu, elu or identity, not {self.act_name}")
        self.num_features, self.eps, self.momentum, self.affine = num_features, eps, momentum, affine
        self.act_param = act_param
        if affine:
            self.weight = nn.Parameter(torch.ones(num_features))
            self.bias = nn.Parameter(torch.zeros(num_features))
        else:
            self.register_parameter("weight", None)
            self.register_parameter("bias", None)
        self.register_buffer("running_mean", torch.zeros(num_features))
        self.register_buffer("running_var", torch.ones(num_features))
        self.drop = made(drop_layer)

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.running_mean)
        nn.init.ones_(self.running_var)
        if self.weight is not None:
            nn.init.ones_(self.weight)
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, self.training, self.momentum,
                         self.eps)  # fmt: skip
        x = self.drop(x)
        if self.act_name == "leaky_relu":
            return F.leaky_relu(x, self.act_param)
        return F.elu(x, self.act_param) if self.act_name == "elu" else x

"""Convolutions beside torch's own: TensorFlow's "same" padding, mixed kernels, and the conv-norm-act unit."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .act import Act
from .norm_act import NormAct, get_norm_act
from .padding import pad_same
from .pool import Sides, create_aa
from .util import pair


class Conv2dSame(nn.Conv2d):
    """Convolution whose padding follows the input's size, as in TensorFlow."""

    def forward(self, x: Tensor) -> Tensor:
        x = pad_same(x, self.kernel_size, self.stride, self.dilation)  # type: ignore[arg-type]
        return F.conv2d(x, self.weight, self.bias, self.stride, (0, 0), self.dilation, self.groups)


class Scale2d(nn.Conv2d):
    """A 1x1 convolution of each channel by itself, as the factor that it is: torch's own goes channel by channel where
    one thread has few images."""

    def forward(self, x: Tensor) -> Tensor:
        down, right = self.stride
        if down > 1 or right > 1:
            x = x[:, :, ::down, ::right]
        x = x * self.weight.to(x.dtype).view(1, -1, 1, 1)
        bias = self.bias
        return x if bias is None else x + bias.to(x.dtype).view(1, -1, 1, 1)


class Pointwise2d(nn.Conv2d):
    """A 1x1 convolution of pooled maps, as the matrix product that it is: (B, C, H, W) -> (B, C', H, W).

    For a map of one place torch's own lays out image and kernel first, which takes ten times as long on a CPU. Where
    gradients are recorded it is a convolution, which tools that follow them know.
    """

    def __init__(self, dim: int, dim_out: int, bias: bool = True):
        super().__init__(dim, dim_out, 1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return F.conv2d(x, self.weight, self.bias)
        return F.linear(x.movedim(1, -1), self.weight.flatten(1), self.bias).movedim(-1, 1)


class MixedConv2d(nn.ModuleDict):
    """Split the channels and give each share a kernel size of its own (MixConv, arXiv:1907.09595)."""

    def __init__(self, dim: int, dim_out: int, kernels: Sequence[int], stride: Sides = 1, padding: str = "",
                 dilation: Sides = 1, depthwise: bool = False):  # fmt: skip
        super().__init__()
        count = len(kernels)
        self.splits = share(dim, count)
        for i, (kernel, size, size_out) in enumerate(zip(kernels, self.splits, share(dim_out, count))):
            groups = size if depthwise else 1
            self.add_module(str(i), create_conv(size, size_out, kernel, stride, padding, dilation, groups))

    def forward(self, x: Tensor) -> Tensor:
        parts = torch.split(x, self.splits, 1)
        found: list[Tensor] = []
        for i, conv in enumerate(self.values()):  # as TorchScript can unroll it
            found.append(conv(parts[i]))
        return torch.cat(found, 1)


def share(dim: int, count: int) -> list[int]:
    """Divide channels as evenly as possible, the remainder to the first."""
    sizes = [dim // count] * count
    sizes[0] += dim - sum(sizes)
    return sizes


def create_conv(
    dim: int,
    dim_out: int,
    kernel: Sides | list[int],
    stride: Sides = 1,
    padding: str | Sides | None = "",
    dilation: Sides = 1,
    groups: int = 1,
    bias: bool = False,
) -> nn.Module:
    """A convolution by its padding: "" symmetric, "same" as TensorFlow, a number as given; a list of kernels is mixed.

    Kernel, stride, dilation and padding are one number or a pair (height, width). A "same" convolution that pads
    symmetrically whatever the size, as one of stride 1 with an odd kernel does, is an ordinary one; a 1x1 convolution
    of each channel by itself is a factor.
    """
    if isinstance(kernel, list):
        return MixedConv2d(dim, dim_out, kernel, stride, str(padding or ""), dilation, groups == dim)
    spread = [step * (side - 1) for side, step in zip(pair(kernel), pair(dilation), strict=True)]
    symmetric = (spread[0] // 2, spread[1] // 2)
    if padding == "same":
        if pair(stride) != (1, 1) or any(border % 2 for border in spread):
            return Conv2dSame(dim, dim_out, kernel, stride, 0, dilation, groups, bias)
        padding = symmetric
    elif padding is None or isinstance(padding, str):
        padding = symmetric
    if pair(kernel) == (1, 1) and pair(padding) == (0, 0) and 1 < groups == dim == dim_out:
        return Scale2d(dim, dim_out, 1, stride, groups=groups, bias=bias)
    return nn.Conv2d(dim, dim_out, kernel, stride, padding, dilation, groups, bias)


class ConvNormAct(nn.Module):
    """Convolution, norm, activation: (B, C, H, W) -> (B, C', H/stride, W/stride), keys `conv` and `bn`.

    With `aa` the convolution keeps the size and an anti-aliased pool subsamples behind the activation.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        kernel: int = 1,
        stride: int = 1,
        padding: str = "",
        dilation: int = 1,
        groups: int = 1,
        norm: str | NormAct = "batchnorm",
        act: Act = "relu",
        apply_act: bool = True,
        aa: str | None = None,
        bias: bool = False,
    ):
        super().__init__()
        blurred = bool(aa) and stride > 1
        self.conv = create_conv(dim, dim_out, kernel, 1 if blurred else stride, padding, dilation, groups, bias)
        self.bn = get_norm_act(norm, act)(dim_out, apply_act=apply_act)
        self.aa = create_aa(aa if blurred else None, dim_out, stride)

    def forward(self, x: Tensor) -> Tensor:
        return self.aa(self.bn(self.conv(x)))


class ConvNorm(nn.Sequential):
    """Convolution and batch norm whose weights start at `scale`: (B, C, H, W) -> (B, C', H/stride, W/stride), keys
    `conv` and `bn`."""

    def __init__(self, dim: int, dim_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, scale: float = 1.0,
                 bias: bool = False):  # fmt: skip
        super().__init__()
        self.conv = create_conv(dim, dim_out, kernel, stride, groups=groups, bias=bias)
        self.bn = nn.BatchNorm2d(dim_out)
        nn.init.constant_(self.bn.weight, scale)


class ConvBn(nn.Sequential):
    """`ConvNorm` under the keys `c` and `bn`."""

    def __init__(self, dim: int, dim_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, scale: float = 1.0):
        super().__init__()
        self.c = create_conv(dim, dim_out, kernel, stride, groups=groups)
        self.bn = nn.BatchNorm2d(dim_out)
        nn.init.constant_(self.bn.weight, scale)


class SeparableConv(nn.Module):
    """Each channel by itself, then a pointwise convolution: (B, C, H, W) -> (B, C', H/stride, W/stride).

    `widen` maps are made of each channel between the two; keys `conv_dw`, `conv_pw`.
    """

    def __init__(self, dim: int, dim_out: int, kernel: int = 3, stride: int = 1, padding: str = "", dilation: int = 1,
                 bias: bool = False, widen: float = 1.0, kernel_out: int = 1):  # fmt: skip
        super().__init__()
        inner = int(dim * widen)
        self.conv_dw = create_conv(dim, inner, kernel, stride, padding, dilation, dim)
        self.conv_pw = create_conv(inner, dim_out, kernel_out, padding=padding, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv_pw(self.conv_dw(x))


class SeparableConvNormAct(SeparableConv):
    """A separable convolution, norm `bn`, activation: (B, C, H, W) -> (B, C', H/stride, W/stride)."""

    def __init__(self, dim: int, dim_out: int, kernel: int = 3, stride: int = 1, padding: str = "", dilation: int = 1,
                 bias: bool = False, widen: float = 1.0, kernel_out: int = 1, norm: str | NormAct = "batchnorm",
                 act: Act = "relu", apply_act: bool = True):  # fmt: skip
        super().__init__(dim, dim_out, kernel, stride, padding, dilation, bias, widen, kernel_out)
        self.bn = get_norm_act(norm, act)(dim_out, apply_act=apply_act)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv_pw(self.conv_dw(x)))


class CondConv2d(nn.Module):
    """A convolution mixed anew for each sample from several experts (CondConv, arXiv:1904.04971).

    The input is (B, C, H, W) with routing weights (B, experts); the kernels are stored flat, (experts, out*in*k*k).
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        kernel: int,
        stride: int = 1,
        padding: str = "",
        dilation: int = 1,
        groups: int = 1,
        experts: int = 4,
    ):
        super().__init__()
        self.shape = (dim_out, dim // groups, kernel, kernel)
        self.kernel, self.stride, self.dilation, self.groups = (kernel, kernel), (stride, stride), dilation, groups
        self.same = padding == "same" and stride > 1
        self.pad = 0 if self.same else dilation * (kernel - 1) // 2
        self.weight = nn.Parameter(torch.empty(experts, dim_out * (dim // groups) * kernel * kernel))

    def forward(self, x: Tensor, routing: Tensor) -> Tensor:
        if self.same:
            x = pad_same(x, self.kernel, self.stride, (self.dilation, self.dilation))
        batch, dim = x.shape[0], x.shape[1]
        out, inside, high, wide = self.shape
        exporting = False if torch.jit.is_scripting() else torch.compiler.is_exporting()
        if exporting:  # a graph has a fixed number of groups, so the results are mixed in place of the kernels
            mixed = [
                routing[:, k, None, None, None]
                * F.conv2d(x, kernel.view(self.shape), None, self.stride, self.pad, self.dilation, self.groups)
                for k, kernel in enumerate(self.weight)
            ]
            return torch.stack(mixed).sum(0)
        weight = (routing @ self.weight).view(batch * out, inside, high, wide)
        x = x.reshape(1, batch * dim, x.shape[2], x.shape[3])
        x = F.conv2d(x, weight, None, self.stride, self.pad, self.dilation, self.groups * batch)
        return x.view(batch, out, x.shape[2], x.shape[3])

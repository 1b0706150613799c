"""Convolutions with standardized kernels: each filter has mean 0 and variance 1, whatever its parameters are."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .conv import Conv2dSame
from .padding import pad_same


def standardize(weight: Tensor, eps: float, gain: Tensor | None = None) -> Tensor:
    """Each filter of (out, in / groups, kernel, kernel) with mean 0 and variance 1, times its `gain` (out,).

    A group norm with a group for each filter takes the gain in the same pass, and keeps no copy for its gradient.
    """
    return torch.group_norm(weight.flatten(1).unsqueeze(0), weight.shape[0], gain, eps=eps).view_as(weight)


class StdConv2d(nn.Conv2d):
    """Convolution by w' = (w - mean) / sqrt(var + eps) over each filter (arXiv:1903.10520, eq. 5).

    `padding` is "" (symmetric), "same" (as TensorFlow, following the input's size) or a number.
    """

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]

    def __init__(
        self,
        dim: int,
        dim_out: int,
        kernel: int,
        stride: int = 1,
        padding: str | int = "",
        dilation: int = 1,
        groups: int = 1,
        bias: bool = False,
        eps: float = 1e-6,
    ):
        symmetric = dilation * (kernel - 1) // 2
        same = padding == "same" and (stride > 1 or dilation * (kernel - 1) % 2 == 1)
        pad = padding if isinstance(padding, int) else symmetric
        super().__init__(dim, dim_out, kernel, stride, 0 if same else pad, dilation, groups, bias)
        self.same = same
        self.eps = eps

    def standardized(self) -> Tensor:
        """The kernels as they are applied: (out, in / groups, kernel, kernel)."""
        return standardize(self.weight, self.eps)

    def forward(self, x: Tensor) -> Tensor:
        if self.same:
            x = pad_same(x, self.kernel_size, self.stride, self.dilation)  # type: ignore[arg-type]
        return F.conv2d(x, self.standardized(), self.bias, self.stride, self.padding, self.dilation, self.groups)

    @torch.no_grad()
    def reparameterize(self) -> None:
        """Become a convolution with the kernels as they are applied, for inference."""
        self.weight = nn.Parameter(self.standardized(), requires_grad=self.weight.requires_grad)
        self._parameters.pop("gain", None)
        self.__class__ = Conv2dSame if self.same else nn.Conv2d  # type: ignore[assignment]


class ScaledStdConv2d(StdConv2d):
    """The same over sqrt(fan_in), times a learned gain per filter and a constant `gamma` (arXiv:2101.08692, eq. 1).

    `gamma` makes up for the variance that the activation takes, so that signals keep theirs without a norm.
    """

    def __init__(
        self,
        dim: int,
        dim_out: int,
        kernel: int,
        stride: int = 1,
        padding: str | int = "",
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        eps: float = 1e-6,
        gamma: float = 1.0,
    ):
        super().__init__(dim, dim_out, kernel, stride, padding, dilation, groups, bias, eps)
        self.gain = nn.Parameter(torch.ones(dim_out, 1, 1, 1))
        self.scale = gamma * (dim // groups * kernel * kernel) ** -0.5

    def standardized(self) -> Tensor:
        return standardize(self.weight, self.eps, self.gain.flatten() * self.scale)

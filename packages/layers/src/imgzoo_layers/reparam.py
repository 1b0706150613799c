"""Structural re-parameterization: branches that are linear in inference become one convolution (arXiv:2101.03697)."""

import copy
from collections.abc import Iterable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_weights

Model = TypeVar("Model", bound=nn.Module)
Kernel = tuple[Tensor, Tensor]
"""Weight (out, in / groups, k, k) and bias (out,) of a convolution."""


def added(total: Tensor, branch: Tensor) -> Tensor:
    """The sum of branches; where no gradient is asked for it takes the place of `total`, which its caller made.

    A hook that keeps a branch's output then finds the sum: it should keep a copy.
    """
    return total + branch if torch.is_grad_enabled() else total.add_(branch)


def reparameterize(model: Model, inplace: bool = False) -> Model:
    """A copy of the model in eval mode with every module merged that knows how (it has a method `reparameterize`).

    Outputs are equal up to rounding, the state dict has other keys, and training it further makes no sense.
    """
    model = model if inplace else copy.deepcopy(model)
    for module in list(model.modules()):
        merge: Any = getattr(module, "reparameterize", None)
        if merge is not None and module is not model:
            merge()
    return model.eval()


def fold_norm(weight: Tensor, norm: Any, bias: Tensor | None = None) -> Kernel:
    """A convolution's weight and bias with the batch norm behind it, by its running statistics."""
    statistics = norm.running_mean, norm.running_var, norm.eps
    folded, shift = fuse_conv_bn_weights(weight, bias, *statistics, norm.weight, norm.bias)
    return folded.detach(), shift.detach()


def identity_kernel(dim: int, groups: int, size: int, like: Tensor) -> Tensor:
    """The weight (dim, dim / groups, size, size) of a convolution that changes nothing."""
    weight = torch.zeros(dim, dim // groups, size, size, dtype=like.dtype, device=like.device)
    channels = torch.arange(dim, device=like.device)
    weight[channels, channels % (dim // groups), size // 2, size // 2] = 1
    return weight


@torch.no_grad()
def merged(conv: Any, branches: Iterable[Kernel]) -> nn.Conv2d:
    """One convolution, shaped as `conv`, for the sum of branches; smaller kernels lie in its center."""
    weight, bias = torch.zeros_like(conv.weight), conv.weight.new_zeros(conv.out_channels)
    for kernel, shift in branches:
        pad = (weight.shape[-1] - kernel.shape[-1]) // 2
        weight += F.pad(kernel, [pad] * 4)
        bias += shift
    one: Any = nn.Conv2d(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, conv.padding,
                         conv.dilation, conv.groups, device="meta")  # fmt: skip
    one.weight, one.bias = nn.Parameter(weight), nn.Parameter(bias)
    return one

"""TensorFlow's "same" padding, which follows the input's size."""

import torch.fx
from torch import Tensor
from torch.nn import functional as F


def same_pad(size: int, kernel: int, stride: int, dilation: int) -> int:
    """Pixels to add in all so that the output has ceil(size / stride) positions."""
    return max((-(size // -stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)


def pad_same(
    x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int] = (1, 1), value: float = 0.0
) -> Tensor:
    """Pad a map (B, C, H, W) for a "same" window, the odd pixel at the bottom right as TensorFlow does."""
    return padded_same(x, kernel, stride, dilation, value)


def padded_same(
    x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], value: float
) -> Tensor:
    height = same_pad(x.shape[-2], kernel[0], stride[0], dilation[0])
    width = same_pad(x.shape[-1], kernel[1], stride[1], dilation[1])
    return F.pad(x, [width // 2, width - width // 2, height // 2, height - height // 2], value=value)


def pad_to_multiple(x: Tensor, step: tuple[int, int]) -> Tensor:
    """Zeros below and right of a map (B, H, W, C), until its sides are multiples of `step`."""
    return padded_to_multiple(x, step)


def padded_to_multiple(x: Tensor, step: tuple[int, int]) -> Tensor:
    down, right = -x.shape[1] % step[0], -x.shape[2] % step[1]
    padded = torch.jit.is_tracing() or down > 0 or right > 0  # a trace serves other sizes, too
    return F.pad(x, [0, 0, 0, right, 0, down]) if padded else x  # padding by zero copies


torch.fx.wrap("padded_to_multiple")
torch.fx.wrap("padded_same")  # tracers see one call, since padding follows the size

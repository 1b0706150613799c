"""TensorFlow's "same" padding, which follows the input's size."""

from torch import Tensor
from torch.nn import functional as F


def same_pad(size: int, kernel: int, stride: int, dilation: int) -> int:
    """Pixels to add in all so that the output has ceil(size / stride) positions."""
    return max((-(size // -stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)


def pad_same(
    x: Tensor, kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int] = (1, 1), value: float = 0.0
) -> Tensor:
    """Pad a map (B, C, H, W) for a "same" window, the odd pixel at the bottom right as TensorFlow does."""
    height = same_pad(x.shape[-2], kernel[0], stride[0], dilation[0])
    width = same_pad(x.shape[-1], kernel[1], stride[1], dilation[1])
    return F.pad(x, [width // 2, width - width // 2, height // 2, height - height // 2], value=value)

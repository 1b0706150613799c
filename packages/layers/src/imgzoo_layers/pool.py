"""Pooling: the global one before the classifier, and the local ones that differ from torch's."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .padding import pad_same, same_pad
from .tables import Computed, Tabled
from .util import pair

Sides = int | tuple[int, int]
"""One number for both sides, or (height, width)."""
KINDS = ("", "avg", "max", "avgmax", "catavgmax")


class GlobalPool(nn.Module):
    """(B, C, H, W) -> (B, C) by mean, maximum, their half sum ("avgmax") or both side by side ("catavgmax", 2C).

    "" keeps the map. With `channels_last` the map is (B, H, W, C). The prefix "fast" is accepted and means the same,
    "fast" alone "avg". What reads the vector may not take two a channel: then `widens` is False. A caller's own module
    may stand in its place, with a vector or a map (B, C, 1, 1) for what reads maps: heads ask for no `kind` of it.
    """

    def __init__(self, kind: str = "avg", channels_last: bool = False, widens: bool = True):
        super().__init__()
        self.widens = widens
        self.dims: tuple[int, ...] = (1, 2) if channels_last else (2, 3)
        self.width = 1
        self.kind = ""
        self.set(kind)

    def set(self, kind: str) -> None:
        plain = kind.removeprefix("fast") or ("avg" if kind else "")
        kinds = KINDS if self.widens else KINDS[:-1]
        if plain not in kinds:
            raise ValueError(f"unknown global_pool '{kind}' for this network; use one of {', '.join(kinds[1:])} or ''")
        self.kind = plain
        self.width = 2 if plain == "catavgmax" else 1

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "avg":
            return x.mean(self.dims)
        if self.kind == "":
            return x
        if self.kind == "max":
            return x.amax(self.dims)
        if self.kind == "avgmax":
            return 0.5 * (x.mean(self.dims) + x.amax(self.dims))
        return torch.cat([x.mean(self.dims), x.amax(self.dims)], dim=1)

    def extra_repr(self) -> str:
        return f"'{self.kind}'"


class AdaptivePool2d(nn.Module):
    """Pool a map to any `size`: (B, C, H, W) -> (B, C, h, w), or (B, C * h * w) with `flatten`.

    `kind` is avg, max, avgmax or catavgmax (2C channels), as of `GlobalPool`.
    """

    def __init__(self, size: int | tuple[int, int] = 1, kind: str = "avg", flatten: bool = False):
        super().__init__()
        if kind not in KINDS[1:]:
            raise ValueError(f"unknown pool '{kind}'; use one of {', '.join(KINDS[1:])}")
        self.size, self.kind, self.flatten = pair(size), kind, flatten
        self.width = 2 if kind == "catavgmax" else 1

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "avg":
            x = F.adaptive_avg_pool2d(x, self.size)
        elif self.kind == "max":
            x = F.adaptive_max_pool2d(x, self.size)
        else:
            average, most = F.adaptive_avg_pool2d(x, self.size), F.adaptive_max_pool2d(x, self.size)
            x = 0.5 * (average + most) if self.kind == "avgmax" else torch.cat([average, most], dim=1)
        return x.flatten(1) if self.flatten else x

    def extra_repr(self) -> str:
        return f"{self.size}, '{self.kind}'"


class AvgPool2dSame(nn.AvgPool2d):
    """Average pooling with the input padded so that the output has ceil(size / stride) positions."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]

    def __init__(self, kernel: Sides, stride: Sides | None = None, ceil_mode: bool = False,
                 count_include_pad: bool = True):  # fmt: skip
        super().__init__(pair(kernel), pair(stride or kernel), 0, ceil_mode, count_include_pad)

    def forward(self, x: Tensor) -> Tensor:
        x = pad_same(x, self.kernel_size, self.stride)  # type: ignore[arg-type]
        return F.avg_pool2d(x, self.kernel_size, self.stride, 0, self.ceil_mode, self.count_include_pad)


class MaxPool2dSame(nn.MaxPool2d):
    """Maximum pooling with the input padded so that the output has ceil(size / stride) positions."""

    kernel_size: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]

    def __init__(self, kernel: Sides, stride: Sides | None = None, dilation: Sides = 1):
        super().__init__(pair(kernel), pair(stride or kernel), dilation=pair(dilation))

    def forward(self, x: Tensor) -> Tensor:
        x = pad_same(x, self.kernel_size, self.stride, self.dilation, -math.inf)  # type: ignore[arg-type]
        return F.max_pool2d(x, self.kernel_size, self.stride, 0, self.dilation)


def mean_pool(stride: int, dilation: int = 1) -> nn.Module:
    """The 2x2 mean in front of a shortcut's 1x1 (arXiv:1812.01187), of stride 1 where the stage is dilated.

    A last row or column of its own counts as whole, so that the map is as large as after a strided 3x3.
    """
    if dilation > 1:
        return AvgPool2dSame(2, 1, ceil_mode=True, count_include_pad=False)
    return nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False) if stride > 1 else nn.Identity()


class MedianPool2d(nn.Module):
    """The median of each window, the lower one of two, edges reflected: (B, C, H, W) -> (B, C, H/stride, W/stride).

    `padding` is as of `create_conv`: "" none, "same" as TensorFlow, a number or a pair as given.
    """

    def __init__(self, kernel: Sides = 3, stride: Sides = 1, padding: str | Sides = ""):
        super().__init__()
        self.kernel, self.stride = pair(kernel), pair(stride)
        self.same = padding == "same"
        self.border: tuple[int, int] = (0, 0) if isinstance(padding, str) else pair(padding)

    def forward(self, x: Tensor) -> Tensor:
        high, wide = 2 * self.border[0], 2 * self.border[1]
        if self.same:
            high = same_pad(x.shape[2], self.kernel[0], self.stride[0], 1)
            wide = same_pad(x.shape[3], self.kernel[1], self.stride[1], 1)
        x = F.pad(x, [wide // 2, wide - wide // 2, high // 2, high - high // 2], "reflect")
        windows = x.unfold(2, self.kernel[0], self.stride[0]).unfold(3, self.kernel[1], self.stride[1])
        return windows.flatten(-2).median(-1).values


def binomial_filter(dim: int, size: int) -> Tensor:
    """The same filter for each of `dim` channels: (dim, 1, size, size)."""
    taps = torch.tensor([math.comb(size - 1, i) for i in range(size)], dtype=torch.float32)
    taps = taps / taps.sum()
    return torch.outer(taps, taps)[None, None].repeat(dim, 1, 1, 1)


class BlurPool2d(Tabled):
    """Blur with a binomial filter before subsampling, against aliasing (arXiv:1904.11486)."""

    filter: Tensor
    tables = {"filter": Computed(binomial_filter, "dim", "filter_size")}

    def __init__(self, dim: int, filter_size: int = 3, stride: int = 2, pad_mode: str = "reflect"):
        super().__init__()
        if filter_size < 2:
            raise ValueError(f"a blur filter has at least 2 taps, got {filter_size}")
        self.dim, self.filter_size = dim, filter_size
        self.stride = stride
        self.pad_mode = pad_mode
        self.pad = [((stride - 1) + (filter_size - 1)) // 2] * 4
        self.init_non_persistent_buffers()

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, self.pad, self.pad_mode)
        return F.conv2d(x, self.filter.to(x.dtype), stride=self.stride, groups=self.dim)


def residual_aa(kind: str | None) -> str | None:
    """The kind of anti-aliasing whose map is as large as that of a strided shortcut beside it, whatever the size."""
    return "avg_ceil" if kind in ("avg", "avgpool") else kind


def create_aa(kind: str | None, dim: int, stride: int = 2) -> nn.Module:
    """Anti-aliased subsampling by name: "avg", "blur" (reflected border), "blurpc" (constant border); None for none.

    "avg_ceil" counts a last row or column of its own as whole.
    """
    if not kind:
        return nn.Identity()
    if kind in ("avg", "avgpool"):
        return nn.AvgPool2d(stride)
    if kind == "avg_ceil":
        return mean_pool(stride)
    if kind in ("blur", "blurpool"):
        return BlurPool2d(dim, stride=stride)
    if kind == "blurpc":
        return BlurPool2d(dim, stride=stride, pad_mode="constant")
    raise ValueError(f"unknown anti-aliasing '{kind}'; use avg, blur or blurpc")

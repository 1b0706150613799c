"""Gates that scale places as well as channels of a map: by what stands in a place, in its row or in its column."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .act import Act, create_act
from .conv import ConvNormAct, Pointwise2d
from .norm import GroupNorm1
from .util import make_divisible


class Cbam(nn.Module):
    """Scale channels by their mean and maximum, then places by theirs (CBAM, arXiv:1807.06521): (B, C, H, W) -> the
    same shape; keys `channel.fc1`, `channel.fc2`, `spatial.conv`.

    With `light`, half the sum of mean and maximum is looked at, once, where the paper looks at both.
    """

    def __init__(self, dim: int, rd_ratio: float = 1.0 / 16, rd_channels: int | None = None, rd_divisor: int = 1,
                 kernel: int = 7, act: Act = "relu", gate: Act = "sigmoid", bias: bool = False,
                 light: bool = False):  # fmt: skip
        super().__init__()
        hidden = rd_channels or make_divisible(dim * rd_ratio, rd_divisor, round_limit=0.0)
        self.light = light
        self.channel = nn.Module()
        self.channel.fc1 = Pointwise2d(dim, hidden, bias)
        self.channel.act = create_act(act, inplace=True)
        self.channel.fc2 = Pointwise2d(hidden, dim, bias)
        self.spatial = nn.Module()
        self.spatial.conv = ConvNormAct(1 if light else 2, 1, kernel, apply_act=False)
        self.gate = create_act(gate)

    def channels(self, x: Tensor) -> Tensor:
        """(B, C, 1, 1) -> (B, C, 1, 1)."""
        return self.channel.fc2(self.channel.act(self.channel.fc1(x)))  # type: ignore[operator]

    def forward(self, x: Tensor) -> Tensor:
        mean, most = x.mean((2, 3), keepdim=True), x.amax((2, 3), keepdim=True)
        summed = self.channels(0.5 * (mean + most)) if self.light else self.channels(mean) + self.channels(most)
        x = x * self.gate(summed)
        mean, most = x.mean(1, keepdim=True), x.amax(1, keepdim=True)
        looked_at = 0.5 * (mean + most) if self.light else torch.cat([mean, most], 1)
        return x * self.gate(self.spatial.conv(looked_at))  # type: ignore[operator]


class CoordinateAttention(nn.Module):
    """Means of rows and of columns pass one small layer together and scale their rows and columns (arXiv:2103.02907):
    (B, C, H, W) -> the same shape; keys `conv1`, `bn1`, `conv_h`, `conv_w`. With `skip` the map is added."""

    def __init__(self, dim: int, rd_ratio: float = 1.0 / 16, rd_channels: int | None = None, rd_divisor: int = 8,
                 factor: float = 2.0 / 3, bias: bool = False, act: Act = "hard_swish", gate: Act = "sigmoid",
                 skip: bool = False):  # fmt: skip
        super().__init__()
        hidden = rd_channels or make_divisible(dim * rd_ratio * factor, rd_divisor, round_limit=0.0)
        self.conv1 = nn.Conv2d(dim, hidden, 1, bias=bias)
        self.bn1 = nn.BatchNorm2d(hidden)
        self.act = create_act(act)
        self.conv_h = nn.Conv2d(hidden, dim, 1, bias=bias)
        self.conv_w = nn.Conv2d(hidden, dim, 1, bias=bias)
        self.gate = create_act(gate)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = x.mean(3, keepdim=True), x.mean(2, keepdim=True).transpose(2, 3)
        both = self.act(self.bn1(self.conv1(torch.cat([rows, columns], 2))))
        rows, columns = both.split([x.shape[2], x.shape[3]], 2)
        scaled = x * self.gate(self.conv_h(rows)) * self.gate(self.conv_w(columns.transpose(2, 3)))
        return scaled + x if self.skip else scaled


class SimpleCoordinateAttention(nn.Module):
    """Coordinate attention without a norm, rows and columns added before the gate: (B, C, H, W) -> the same shape; keys
    `fc1`, `fc_h`, `fc_w`."""

    def __init__(self, dim: int, rd_ratio: float = 0.25, rd_channels: int | None = None, rd_divisor: int = 8,
                 factor: float = 2.0 / 3, bias: bool = True, act: Act = "silu", gate: Act = "sigmoid",
                 skip: bool = False):  # fmt: skip
        super().__init__()
        hidden = rd_channels or make_divisible(dim * rd_ratio * factor, rd_divisor, round_limit=0.0)
        self.fc1 = nn.Linear(dim, hidden, bias)
        self.act = create_act(act, inplace=True)
        self.fc_h = nn.Linear(hidden, dim, bias)
        self.fc_w = nn.Linear(hidden, dim, bias)
        self.gate = create_act(gate)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        rows = self.fc_h(self.act(self.fc1(x.mean(3).transpose(1, 2))))  # (B, H, C)
        columns = self.fc_w(self.act(self.fc1(x.mean(2).transpose(1, 2))))  # (B, W, C)
        scaled = x * self.gate(rows.transpose(1, 2)[..., None] + columns.transpose(1, 2)[:, :, None])
        return scaled + x if self.skip else scaled


class EfficientLocalAttention(nn.Module):
    """Each channel's means of rows and of columns pass a short convolution along them and scale rows and columns
    (ELA, arXiv:2403.01123): (B, C, H, W) -> the same shape; keys `conv_h`, `norm_h`, `conv_w`, `norm_w`."""

    def __init__(self, dim: int, kernel: int = 7, bias: bool = False, act: Act = "silu", gate: Act = "sigmoid",
                 norm: Callable[[int], nn.Module] = GroupNorm1, skip: bool = False):  # fmt: skip
        super().__init__()
        self.conv_h = nn.Conv2d(dim, dim, (kernel, 1), padding=(kernel // 2, 0), groups=dim, bias=bias)
        self.conv_w = nn.Conv2d(dim, dim, (1, kernel), padding=(0, kernel // 2), groups=dim, bias=bias)
        self.norm_h, self.norm_w = norm(dim), norm(dim)
        self.act = create_act(act)
        self.gate = create_act(gate)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        rows = self.act(self.norm_h(self.conv_h(x.mean(3, keepdim=True))))
        columns = self.act(self.norm_w(self.conv_w(x.mean(2, keepdim=True))))
        scaled = x * self.gate(rows) * self.gate(columns)
        return scaled + x if self.skip else scaled


class StripAttention(nn.Module):
    """Each channel's means of rows and of columns, added, scale the places where they cross: (B, C, H, W) -> the same
    shape; keys `conv_h`, `conv_w`, which `kernel=None` leaves out (strip pooling, arXiv:2003.13328)."""

    def __init__(self, dim: int, kernel: int | None = 3, bias: bool = False, gate: Act = "sigmoid",
                 skip: bool = False):  # fmt: skip
        super().__init__()
        self.conv_h: nn.Module = nn.Identity()
        self.conv_w: nn.Module = nn.Identity()
        if kernel:
            self.conv_h = nn.Conv2d(dim, dim, (kernel, 1), padding=(kernel // 2, 0), groups=dim, bias=bias)
            self.conv_w = nn.Conv2d(dim, dim, (1, kernel), padding=(0, kernel // 2), groups=dim, bias=bias)
        self.gate = create_act(gate)
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.conv_h(x.mean(3, keepdim=True)), self.conv_w(x.mean(2, keepdim=True))
        scaled = x * self.gate(rows + columns)
        return scaled + x if self.skip else scaled


class GatherExcite(nn.Module):
    """Means of the neighborhood, `extent` places wide, scale each place (arXiv:1810.12348): (B, C, H, W) -> the same
    shape; `extent` 0 looks at the whole map.

    With `size`, the height and width of the maps, the means are learned: depthwise convolutions of stride 2 down to
    `extent`, or one as large as the map. With `mlp` the channels of what is gathered mix in two pointwise layers;
    with `most` half of it is the maximum.
    """

    def __init__(self, dim: int, extent: int = 0, size: tuple[int, int] | None = None, mlp: bool = True,
                 rd_ratio: float = 1.0 / 16, rd_channels: int | None = None, rd_divisor: int = 1, most: bool = False,
                 act: Act = "relu", gate: Act = "sigmoid"):  # fmt: skip
        super().__init__()
        if extent and extent & (extent - 1):
            raise ValueError(f"extent is 0 or a power of 2, got {extent}")
        self.extent, self.most = extent, most
        layers: list[nn.Module] = []
        if size:
            kernel, stride = ((3, 3), 2) if extent else (size, 1)
            for i in range(extent.bit_length() - 1 if extent else 1):
                layers += [create_act(act, inplace=True)] if i else []
                layers.append(nn.Conv2d(dim, dim, kernel, stride, 1 if extent else 0, groups=dim, bias=False))
                layers.append(nn.BatchNorm2d(dim))
        self.gather = nn.Sequential(*layers) if size else None
        self.mlp = nn.Sequential()
        if mlp:
            hidden = rd_channels or make_divisible(dim * rd_ratio, rd_divisor, round_limit=0.0)
            self.mlp.add_module("fc1", Pointwise2d(dim, hidden))
            self.mlp.add_module("act", create_act(act, inplace=True))
            self.mlp.add_module("fc2", Pointwise2d(hidden, dim))
        self.gate = create_act(gate)

    def gathered(self, x: Tensor) -> Tensor:
        if self.gather is not None:
            return self.gather(x)
        if self.extent == 0:
            mean = x.mean((2, 3), keepdim=True)
            return 0.5 * (mean + x.amax((2, 3), keepdim=True)) if self.most else mean
        kernel, pad = 2 * self.extent - 1, self.extent - 1
        mean = F.avg_pool2d(x, kernel, self.extent, pad, count_include_pad=False)
        return 0.5 * (mean + F.max_pool2d(x, kernel, self.extent, pad)) if self.most else mean

    def forward(self, x: Tensor) -> Tensor:
        scales = self.gate(self.mlp(self.gathered(x)))
        return x * (F.interpolate(scales, (x.shape[2], x.shape[3])) if self.extent else scales)

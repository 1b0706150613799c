"""From block strings to stages. A string names a block and its numbers: `ir_r2_k3_s2_e6_c24_se0.25`.

First the type (cn conv, ds or dsa depthwise-separable, ir inverted, er edge, uir universal, mqa attention), then
r repeats, k kernel (k3.5 mixes two), s stride, e expansion, c channels, se gate ratio, a/p kernels before and after,
n.. activation, gs group size, cc experts, fc expansion base, d1 space-to-depth (ds) or d key width (mqa),
h heads, v key stride, skip/noskip.
"""

import math
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from torch import nn

from imgzoo.model import Feature
from imgzoo_layers.util import make_divisible

from .blocks import (
    Common,
    CondConvResidual,
    ConvBnAct,
    DepthwiseSeparable,
    EdgeResidual,
    InvertedResidual,
    MobileAttention,
    UniversalInvertedResidual,
)

ACTS = {"re": "relu", "r6": "relu6", "sw": "silu", "hs": "hard_swish", "mi": "mish", "ge": "gelu"}
TOKEN = re.compile(r"([a-z]+)([0-9.]*)")


class Row(NamedTuple):
    """One decoded block string."""

    kind: str
    repeats: int
    cells: dict[str, str]
    act: str | None
    skip: bool

    def number(self, key: str, default: int = 0) -> int:
        return int(self.cells.get(key, default))

    def ratio(self, key: str, default: float = 1.0) -> float:
        return float(self.cells.get(key, default))

    def kernel(self, key: str, default: int = 1) -> int | list[int]:
        sizes = [int(size) for size in self.cells.get(key, str(default)).split(".")]
        return sizes[0] if len(sizes) == 1 else sizes


def decode(text: str) -> Row:
    """Parse a block string."""
    kind, *tokens = text.split("_")
    cells, act, flags = {}, None, set()
    for token in tokens:
        if token in ("skip", "noskip"):
            flags.add(token)
        elif token[0] == "n" and token[1:] in ACTS:
            act = ACTS[token[1:]]
        else:
            found = TOKEN.fullmatch(token)
            if not found or not found[2]:
                raise ValueError(f"cannot read '{token}' in the block string '{text}'")
            cells[found[1]] = found[2]
    skip = "skip" in flags if kind in ("cn", "dsa") else "noskip" not in flags
    return Row(kind, int(cells.pop("r", "1")), cells, act, skip)


def scale_depth(repeats: Sequence[int], factor: float, rounding: str = "ceil") -> list[int]:
    """Multiply the depth of a stage and share it among its rows, the last first (arXiv:1905.11946, section 3)."""
    left = sum(repeats)
    target = max(1, round(left * factor)) if rounding == "round" else math.ceil(left * factor)
    scaled = []
    for count in reversed(repeats):
        share = max(1, round(count / left * target))
        scaled.append(share)
        left, target = left - count, target - share
    return scaled[::-1]


def decode_stages(
    stages: Sequence[Sequence[str]], depth: float | Sequence[float] = 1.0, rounding: str = "ceil"
) -> list[list[Row]]:
    """Decode all stages and repeat their rows, scaled in depth: one row a block."""
    factors = [depth] * len(stages) if isinstance(depth, int | float) else depth
    decoded = []
    for texts, factor in zip(stages, factors, strict=True):
        rows = [decode(text) for text in texts]
        counts = scale_depth([row.repeats for row in rows], factor, rounding)
        decoded.append([row for row, count in zip(rows, counts) for _ in range(count)])
    # only the first block of a row strides
    return [[_unstride(row, i > 0 and rows[i - 1] is row) for i, row in enumerate(rows)] for rows in decoded]


def _unstride(row: Row, repeated: bool) -> Row:
    return row._replace(cells={**row.cells, "s": "1"}) if repeated else row


class Rounding(NamedTuple):
    """How channel counts are scaled and rounded."""

    multiplier: float = 1.0
    divisor: int = 8
    limit: float = 0.9

    def __call__(self, channels: int) -> int:
        return (
            make_divisible(channels * self.multiplier, self.divisor, None, self.limit) if self.multiplier else channels
        )


class Shape(NamedTuple):
    """What a block has by its place in the network."""

    dim: int
    dim_out: int
    stride: int
    dilation: int
    expansion: float
    s2d: bool


class Walk:
    """The way through the stages: `dim` channels, a map `reduction` times smaller than the image, the `dilation` that
    stands for strides above `output_stride`; `packed` while space is traded for channels (EfficientNet-X)."""

    def __init__(self, dim: int, rounding: Rounding, output_stride: int):
        self.dim, self.rounding, self.output_stride = dim, rounding, output_stride
        self.reduction, self.dilation, self.packed = 2, 1, False

    def halves(self, row: Row) -> bool:
        """Whether the map shrinks at this row, so that a level ends before it."""
        return _packs(row) or (row.number("s", 1) > 1 and not self.packed)

    def step(self, row: Row, first: bool) -> Shape:
        """Walk past a block, the first of its stage or not; returns what it is built with."""
        stride, expansion, s2d = row.number("s", 1), row.ratio("e"), _packs(row) and first
        dim, dim_out, dilation = self.dim, self.rounding(row.number("c")), self.dilation
        if _packs(row):
            dim_out, self.packed = 4 * dim_out, True
            self.reduction *= 2 if s2d else 1
        elif self.packed and stride == 2:
            stride, expansion, self.packed = 1, expansion / 4, False
        if self.reduction * stride > self.output_stride:
            self.dilation, stride = dilation * stride, 1
        self.reduction *= stride
        self.dim = dim_out
        return Shape(dim, dim_out, stride, dilation, expansion, s2d)


def build_stages(
    stages: list[list[Row]], dim: int, rounding: Rounding, common: Common, output_stride: int, drop_path_rate: float,
    group_size: int | None = None, experts: int = 1,
) -> tuple[nn.Sequential, list[Feature]]:  # fmt: skip
    """Make the blocks behind a stem of `dim` channels and stride 2; returns them and the levels they hold."""
    walk, total = Walk(dim, rounding, output_stride), sum(map(len, stages))
    drops = iter(drop_path_rate * i / total for i in range(total))
    built, levels, last = [], [], Feature(dim, 2, "bn1")
    for i, rows in enumerate(stages):
        if walk.halves(rows[0]):
            levels.append(last)
        blocks = []
        for j, row in enumerate(rows):
            shape = walk.step(row, first=j == 0)
            blocks.append(build_block(row, common, shape, next(drops), group_size, experts, rounding))
        built.append(nn.Sequential(*blocks))
        last = Feature(walk.dim, walk.reduction, f"blocks.{i}")
    return nn.Sequential(*built), [*levels, last]


def _packs(row: Row) -> bool:
    """Whether the stage trades space for channels (EfficientNet-X)."""
    return row.kind == "ds" and row.number("d") == 1


def build_block(row: Row, common: Common, shape: Shape, drop_path: float, group_size: int | None, experts: int,
                rounding: Rounding) -> nn.Module:  # fmt: skip
    """The block of one row."""
    dim, dim_out, stride, dilation, expansion, s2d = shape
    act, gate = row.act or common.act, row.ratio("se", 0.0)
    kernel: Any = row.kernel("k")
    if row.kind == "mqa":
        heads, head_dim, kv_stride = row.number("h"), row.number("d"), row.number("v", 1)
        return MobileAttention(common, dim, kernel, heads, head_dim, kv_stride, dilation, drop_path, row.skip)
    shared: dict[str, Any] = dict(common=common, dim=dim, dim_out=dim_out, kernel=kernel, stride=stride,
                                  dilation=dilation, act=act, drop_path=drop_path, skip=row.skip)  # fmt: skip
    if row.kind == "cn":
        return ConvBnAct(**shared, group_size=row.number("gs", 0))
    if row.kind == "er":
        base = rounding(row.number("fc")) if row.number("fc") else 0
        return EdgeResidual(**shared, group_size=row.number("gs", 0), expansion=expansion, gate=gate, base=base)
    size = row.number("gs", group_size or 1)
    if row.kind in ("ds", "dsa"):
        return DepthwiseSeparable(**shared, group_size=size, gate=gate, gate_base=4.0 if s2d else 1.0, s2d=s2d,
                                  act_out=row.kind == "dsa")  # fmt: skip
    if row.number("cc"):
        return CondConvResidual(**shared, expansion=expansion, gate=gate, experts=row.number("cc") * experts)
    extra: dict[str, Any] = dict(group_size=size, expansion=expansion, gate=gate)
    if row.kind == "uir":
        return UniversalInvertedResidual(**shared, **extra, kernel_in=row.number("a", 0), kernel_out=row.number("p", 0))
    if row.kind == "ir":
        return InvertedResidual(**shared, **extra, kernel_in=row.kernel("a"), kernel_out=row.kernel("p"))
    raise ValueError(f"there is no block '{row.kind}'")

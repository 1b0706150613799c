"""Residual networks by a table of stages: GENet (arXiv:2006.14090), RepVGG (arXiv:2101.03697), MobileOne
(arXiv:2206.04040), CLIP's ResNets (arXiv:2103.00020), RegNet Z, tiered ResNets, and with self-attention in the last
stages BoTNet (arXiv:2101.11605), HaloNet (arXiv:2103.12731), LambdaNet (arXiv:2102.08602), MobileViT (arXiv:2110.02178,
arXiv:2206.02680) and their mixes."""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Literal, NamedTuple

from torch import Tensor, nn

from imgzoo.errors import CapabilityError, UsageError
from imgzoo.model import Feature, FeatureInfo, ImageModel
from imgzoo_layers.attention_pool import AttentionPool2d
from imgzoo_layers.bottleneck_attention import BottleneckAttention
from imgzoo_layers.conv import ConvNormAct
from imgzoo_layers.drop import DropBlock2d, DropPath, drop_path_rates
from imgzoo_layers.gate import ContextGate, create_gate
from imgzoo_layers.halo import HaloAttention
from imgzoo_layers.head import ClassifierHead, NormMlpHead
from imgzoo_layers.init import init_conv_per_group_
from imgzoo_layers.lambda_ import GlobalLambdaLayer, LambdaLayer
from imgzoo_layers.norm_act import get_norm_act
from imgzoo_layers.pool import mean_pool, residual_aa
from imgzoo_layers.reparam import reparameterize
from imgzoo_layers.rotary_pool import RotaryAttentionPool2d
from imgzoo_layers.util import Layer, dilate, make_divisible, pair, per_stage

from .byob_blocks import BLOCK, Makers, RepVggBlock, Residual, Sizes
from .mobilevit_blocks import MobileVitBlock, MobileVitV2Block, linear_transformer, transformer

Options = Mapping[str, Any]
Step = tuple[int, int, int]


class ByobNet(ImageModel):
    """`blocks` names the kind of a stage's blocks (several, "bottle self_attn", take turns); an option that is a list
    has one value for each stage. `inverted`: hidden layers widen the input, and no activation follows the sum.
    Stem and blocks get a gate if `gate_after` is 0, else the blocks after that many.

    Args:
        blocks: kinds of block, one name or one for each stage; several in a text take turns
        strides: stride of each stage
        stem: "3x3", "7x7", "deep", "clip", "tiered", "quad", "quad2", or a kind of block
        stem_width: channels of the stem, or of each of its convolutions
        stem_pool: pool behind the stem: "max", "avg" or none
        inverted: hidden layers widen the input, and no activation follows the sum
        extra_conv: one more 3x3 convolution in each bottleneck
        branches: parallel convolutions of a MobileOne block
        gate_options: options of the gate's constructor
        gate_after: blocks at the start without a gate
        self_attn: attention by name, one or one for each stage
        self_attn_options: options of the attention's constructor, one table or one for each stage
        head_norm: a norm behind the pool, which a hidden layer of the head always has
        attention_pool: pool by attention before the classifier; "rotary" for positions that turn, on maps of any size
        drop_block_size: side of what DropBlock zeroes in the last stage; of nearly twice as much in the stage before
    """

    parts = ImageModel.parts._replace(norm=("final_conv",))
    layer_groups = {
        "stem": r"^stem",
        "blocks": [(r"^stages\.(\d+)\.(\d+)", None), (r"^final_conv", (99999,))],
        "coarse": [(r"^stages\.(\d+)", None), (r"^final_conv", (99999,))],
    }

    def __init__(self, blocks: str | Sequence[str] = "bottle", depths: Sequence[int] = (3, 4, 6, 3),
                 dims: Sequence[int] = (256, 512, 1024, 2048), strides: Sequence[int] = (1, 2, 2, 2),
                 bottle_ratio: float | Sequence[float] = 0.25, group_size: int | Sequence[int] = 0,
                 stem: str = "tiered", stem_width: int | Sequence[int] = 64, stem_pool: str | None = None,
                 downsample: Literal["conv1x1", "avg"] | None = "conv1x1", inverted: bool = False,
                 extra_conv: bool = False, branches: int = 1, gate: str | None = None,
                 gate_options: Options | None = None, gate_after: int = 0,
                 self_attn: str | Sequence[str | None] | None = None,
                 self_attn_options: Options | Sequence[Options | None] | None = None, num_features: int = 0,
                 head_hidden: int = 0, head_norm: bool = False,
                 attention_pool: bool | Literal["rotary"] = False, act: str = "relu", norm: str = "batchnorm",
                 norm_group: int | None = None, aa: str | None = None, width: float = 1.0,
                 img_size: int | tuple[int, int] = 224, num_classes: int = 1000, in_chans: int = 3,
                 global_pool: str | None = None, output_stride: int = 32, drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0, drop_block_rate: float = 0.0, drop_block_size: int = 3,
                 zero_init_last: bool = True):  # fmt: skip
        super().__init__(num_classes, in_chans)
        if drop_block_rate and isinstance(norm, str) and norm.startswith("evo"):
            raise CapabilityError("an evolved norm has no place for DropBlock before its activation: leave "
                                  "drop_block_rate out")  # fmt: skip
        make_norm = get_norm_act(norm, act, **({"group_size": norm_group} if norm_group else {}))
        make_conv = partial(ConvNormAct, norm=make_norm)
        conv = partial(make_conv, aa=residual_aa(aa))
        make = Makers(
            norm=make_norm, conv=conv, conv_drop=conv, attention=None,
            gate=partial(create_gate, gate, **(gate_options or {})),
            shortcut=partial(make_shortcut, downsample, conv=conv),
            act=act, act_out=None if inverted else act, inverted=inverted, extra_conv=extra_conv, branches=branches,
        )  # fmt: skip
        plain = [max(gate_after - sum(depths[:i]), 0) for i in range(len(depths))]
        if width != 1.0:
            dims = [make_divisible(dim * width) for dim in dims]
            stem_width, num_features = narrowed(stem_width, width), round(num_features * width)
        shared = (blocks, dims, bottle_ratio, group_size, plain, self_attn, self_attn_options)
        rows = [Stage(*row) for row in zip(*(per_stage(option, len(depths)) for option in shared))]
        plainly = make._replace(conv=make_conv, conv_drop=make_conv, branches=1)
        self.stem, level = make_stem(stem, in_chans, stem_width, stem_pool, ungated(plainly) if gate_after else plainly)
        levels, size = [level], pair(img_size)
        dim = stem_width if isinstance(stem_width, int) else stem_width[-1]
        self.reached = [2 if level.module == "stem" else 4]  # the stride to the image before each stage
        stages = []
        steps = dilate(strides, output_stride, start=self.reached[0])
        for i, ((stride, before, dilation), drops) in enumerate(
            zip(steps, drop_path_rates(drop_path_rate, list(depths)))
        ):
            if strides[i] == 1 and dilation > 1:  # first blocks dilate half as far, in stages that keep the size too
                before = dilation // 2
            if i and strides[i] > 1:
                if levels == [level] and level.reduction == self.reached[-1]:
                    levels.clear()  # the first stage keeps the stem's size and takes its place
                levels.append(Feature(dim, self.reached[-1], f"stages.{i - 1}"))
            grid = grid_of(size, self.reached[-1])
            if drop_block_rate and i >= len(depths) - 2:
                last = i == len(depths) - 1
                side, scale = (drop_block_size, 1.0) if last else (2 * drop_block_size - 1, 0.25)
                drop = partial(DropBlock2d, drop_block_rate, side, scale)
                make = make._replace(conv_drop=partial(conv, norm=partial(make_norm, drop=drop)))
            stage, dim = make_stage(rows[i], dim, (stride, before, dilation), grid, drops, make)
            stages.append(stage)
            self.reached.append(self.reached[-1] * stride)
        self.stages = nn.Sequential(*stages)
        self._refuse_idle(DropPath, drop_path_rate=drop_path_rate)
        self._refuse_idle(DropBlock2d, drop_block_rate=drop_block_rate)
        self.final_conv = make_conv(dim, num_features) if num_features else nn.Identity()
        self.num_features = self.head_hidden_size = dim = num_features or dim
        self.feature_info = FeatureInfo([*levels, Feature(dim, self.reached[-1], "final_conv")])
        self.head: Any
        if attention_pool:
            grid = grid_of(size, self.reached[-1])
            self.head = make_attention_pool(attention_pool, dim, num_classes, grid, drop_rate)
            self._set_pool("token" if global_pool is None else global_pool)
        elif head_hidden or head_norm:
            self.head = NormMlpHead(dim, num_classes, "avg" if global_pool is None else global_pool, drop_rate,
                                    nn.BatchNorm2d, head_hidden, act)  # fmt: skip
            self.head_hidden_size = head_hidden or dim
        else:
            self.head = ClassifierHead(dim, num_classes, "avg" if global_pool is None else global_pool, drop_rate)
            self.head_hidden_size = dim * self.head.global_pool.width
        self.img_size = size
        if not any(self.sized()):
            del self.img_size  # a network without tables takes any size
        init_(self, zero_init_last)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, num_features, H/32, W/32)
        return self.final_conv(self.stages(self.stem(x)))

    def reparameterize(self, inplace: bool = False) -> "ByobNet":
        """A copy for inference with the branches of RepVGG and MobileOne blocks merged; outputs are equal."""
        return reparameterize(self, inplace)

    def sized(self):
        """Modules with a position table, and the size of the map they see."""
        for i, stage in enumerate(self.stages):
            for j, block in enumerate(stage.children()):
                attention = getattr(block, "self_attn", None)
                if hasattr(attention, "set_size"):
                    yield attention, grid_of(self.img_size, self.reached[i + (j > 0)])
        if isinstance(self.head, AttentionPool2d):
            yield self.head, grid_of(self.img_size, self.reached[-1])

    def _heads(self) -> tuple[str, ...]:
        return ("head.proj",) if isinstance(self.head, ATTENTION_POOLS) else super()._heads()

    def _entering(self, x: Any) -> Any:
        return x  # some tables take any size, and those that do not refuse it

    def _behead(self) -> None:
        if isinstance(self.head, ATTENTION_POOLS):  # no level needs what asks the last map
            self.head = ClassifierHead(self.num_features, 0, "")
        super()._behead()

    def pool_kind(self) -> str:
        if isinstance(self.head, ATTENTION_POOLS):
            return "token" if self.head.pool else ""
        return super().pool_kind()

    def _set_pool(self, global_pool: str) -> None:
        if not isinstance(self.head, ATTENTION_POOLS):
            super()._set_pool(global_pool)
        elif global_pool not in ("", "token"):
            raise CapabilityError(f"this network pools by attention: global_pool is 'token' or '', not '{global_pool}'")
        else:
            self.head.pool = global_pool == "token"


class Stage(NamedTuple):
    """A row of the table: `blocks` are kinds that take turns, the first `plain` ones have no gate."""

    blocks: str
    dim: int
    bottle_ratio: float
    group_size: int
    plain: int
    self_attn: str | None
    self_attn_options: Options | None


def grid_of(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """Height and width of the map that an image of this size has after so many strides."""
    return -(size[0] // -stride), -(size[1] // -stride)


def make_stage(row: Stage, dim: int, step: Step, grid: tuple[int, int], drops: list[float],
               make: Makers) -> tuple[nn.Sequential, int]:  # fmt: skip
    """The blocks of a row, the first of which changes width and size, and the width they end with."""
    if row.self_attn:
        make = make._replace(attention=partial(SELF_ATTENTION[row.self_attn], **(row.self_attn_options or {})))
    kinds, blocks, (stride, before, dilation) = row.blocks.split(), [], step
    for j, drop in enumerate(drops):
        cls = BLOCKS[kinds[j % len(kinds)]]
        width = dim if cls.keeps_width else row.dim
        hidden = make_divisible((dim if make.inverted else width) * row.bottle_ratio)
        groups = hidden // row.group_size if row.group_size else 1
        sizes = Sizes(dim, width, hidden, stride, before, dilation, groups, grid)
        blocks.append(cls(sizes, ungated(make) if j < row.plain else make, drop))
        dim, grid, stride, before = width, grid_of(grid, stride), 1, dilation
    return nn.Sequential(*blocks), dim


def ungated(make: Makers) -> Makers:
    return make._replace(gate=nn.Identity)


class StemRow(NamedTuple):
    """Widths of the convolutions relative to the last, their kernel, and how many come without norm and activation."""

    widths: tuple[float, ...]
    kernel: int = 3
    bare: int = 0


STEM = {
    "3x3": StemRow((1.0,)),
    "7x7": StemRow((1.0,), 7),
    "deep": StemRow((1.0, 1.0, 1.0)),
    "clip": StemRow((0.5, 0.5, 1.0)),
    "tiered": StemRow((0.375, 0.5, 1.0)),
    "quad": StemRow((0.125, 0.25, 0.5, 1.0)),
    "quad2": StemRow((0.125, 0.25, 0.5, 1.0), bare=2),
}
POOL = {"max": partial(nn.MaxPool2d, 3, 2, 1), "avg": partial(nn.AvgPool2d, 2)}


def narrowed(dims: int | Sequence[int], width: float) -> int | list[int]:
    """So many times the channels of one layer, or of each of several."""
    return round(dims * width) if isinstance(dims, int) else [round(dim * width) for dim in dims]


def make_stem(kind: str, in_chans: int, dims: int | Sequence[int], pool: str | None,
              make: Makers) -> tuple[nn.Module, Feature]:  # fmt: skip
    """One layer that halves the image, or several (and a pool) that quarter it; and the level of stride 2.

    `dims` are the channels of the last layer, or of each."""
    if kind in BLOCKS:
        if not isinstance(dims, int):
            raise UsageError(f"a stem that is a block has one stem_width, not {list(dims)}")
        sizes = Sizes(in_chans, dims, dims, 2, 1, 1, 1, (0, 0))
        return BLOCKS[kind](sizes, make, 0.0), Feature(dims, 2, "stem")
    row, layers = STEM[kind], OrderedDict()
    widths = [int(dims * width) for width in row.widths] if isinstance(dims, int) else list(dims)
    last = len(widths)
    if last == 1 and not pool:
        return make.conv(in_chans, widths[0], row.kernel, 2), Feature(widths[0], 2, "stem")
    widths.insert(0, in_chans)
    for i in range(1, last + 1):
        stride = 2 if i == 1 or (i == last and not pool) else 1
        make_conv = partial(nn.Conv2d, padding=1, bias=False) if i <= row.bare else make.conv
        layers[f"conv{i}"] = make_conv(widths[i - 1], widths[i], row.kernel, stride)
    if pool:
        layers["pool"] = POOL[pool]()
    level = last if pool else last - 1
    return nn.Sequential(layers), Feature(widths[level], 2, f"stem.conv{level}")


def make_attention_pool(kind: bool | str, dim: int, num_classes: int, grid: tuple[int, int],
                        drop_rate: float) -> nn.Module:  # fmt: skip
    """A pool by attention with the classifier behind, whose places are a table's or turn as on this grid ("rotary")."""
    if kind is True:
        return AttentionPool2d(dim, num_classes, grid, drop_rate=drop_rate)
    return RotaryAttentionPool2d(dim, num_classes, grid, separate=True, drop_rate=drop_rate)


def make_shortcut(kind: str | None, sizes: Sizes, conv: Layer) -> nn.Module | None:
    """What the sum adds: the input, or where width or size changes a 1x1 ("conv1x1"), a mean and a 1x1, or nothing."""
    if sizes.dim_in == sizes.dim and sizes.stride == 1 and sizes.before == sizes.dilation:
        return nn.Identity()
    if kind is None:
        return None
    if kind == "conv1x1":
        return conv(sizes.dim_in, sizes.dim, 1, sizes.stride, apply_act=False)
    wider = ConvNormAct(sizes.dim_in, sizes.dim, apply_act=False)  # batch norm whatever `norm` is, as in the field
    return nn.Sequential(OrderedDict(pool=mean_pool(sizes.stride, sizes.before), conv=wider))


BLOCKS = BLOCK | {"mobilevit": MobileVitBlock, "mobilevit2": MobileVitV2Block}
SELF_ATTENTION: dict[str, Any] = {
    "bottleneck": BottleneckAttention,
    "halo": HaloAttention,
    "lambda": LambdaLayer,
    "lambda_global": GlobalLambdaLayer,
    "transformer": transformer,
    "linear_transformer": linear_transformer,
}
ATTENTION_POOLS = (AttentionPool2d, RotaryAttentionPool2d)
OWN_INIT: tuple[Any, ...] = (ContextGate, *ATTENTION_POOLS, RepVggBlock, BottleneckAttention, HaloAttention,
                             LambdaLayer, GlobalLambdaLayer)  # fmt: skip


def init_(model: Any, zero_init_last: bool) -> None:
    """Convolutions normal by fan-out, classifiers nearly zero, residual branches from nothing; then what layers of
    other papers set themselves."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            init_conv_per_group_(module)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
    for module in model.modules():
        if isinstance(module, Residual) and zero_init_last:
            module.zero_init_last()
        elif isinstance(module, OWN_INIT):
            module.reset_parameters()  # type: ignore[operator]

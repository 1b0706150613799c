"""CoAtNet (arXiv:2106.04803), MaxViT (arXiv:2204.01697) and their forms with ConvNeXt blocks or position networks.

Convolution blocks (C) and attention blocks (T), or both with attention in windows and on a grid (M), make four stages;
attention in windows and on a grid stands in `multi_axis.py`.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.attention import LayerScale2d
from imgzoo_layers.conv import create_conv
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.gate import SqueezeExcite
from imgzoo_layers.head import ClassifierHead, NormMlpHead
from imgzoo_layers.map_attention import Attention2d
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import LayerNorm, LayerNorm2d, Norm, get_norm
from imgzoo_layers.norm_act import NormAct, get_norm_act
from imgzoo_layers.pool import AvgPool2dSame
from imgzoo_layers.rel_pos import RelPosBias, RelPosBiasTf, RelPosMlp
from imgzoo_layers.util import Layer, pair

from .multi_axis import HEAD_DIM, Attention, ParallelAttention, PartitionAttention

Size = tuple[int, int]
PARTITION = 32
"""A window, or a step of the grid, is this fraction of the image."""


class Downsample(nn.Module):
    """Pool to half the size, widen by a pointwise convolution: (B, C, H, W) -> (B, D, H/2, W/2)."""

    def __init__(self, dim: int, dim_out: int, pool: str = "avg2", padding: str = "", bias: bool = True,
                 always: bool = False):  # fmt: skip
        super().__init__()
        if pool == "avg2":
            self.pool = AvgPool2dSame(2, 2) if padding == "same" else nn.AvgPool2d(2, 2)
        else:
            self.pool = nn.MaxPool2d(3, 2, 1) if pool == "max" else nn.AvgPool2d(3, 2, 1)
        self.expand = nn.Conv2d(dim, dim_out, 1, bias=bias) if always or dim != dim_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.expand(self.pool(x))


class MbConv(nn.Module):
    """Inverted residual normalized first, with a channel gate (arXiv:1801.04381, arXiv:1709.01507)."""

    def __init__(self, dim: int, dim_out: int, stride: int, drop_path: float, norm: NormAct, padding: str, bias: bool,
                 pre_norm_act: bool, expand_output: bool, pool_stride: bool, pool: str, gate_early: bool,
                 gate_ratio: float, gate_act: str):  # fmt: skip
        super().__init__()
        hidden = 4 * (dim_out if expand_output else dim)
        gate = int(gate_ratio * (dim_out if expand_output else hidden))
        pooled = pool_stride and stride == 2
        self.shortcut = nn.Identity()
        if stride == 2:
            self.shortcut = Downsample(dim, dim_out, pool, padding, bias, always=pool == "avg3")
        self.pre_norm = norm(dim, apply_act=pre_norm_act)
        self.down = Downsample(dim, dim, padding=padding) if pooled else nn.Identity()
        self.conv1_1x1 = nn.Conv2d(dim, hidden, 1, bias=False)
        self.norm1 = norm(hidden)
        self.conv2_kxk = create_conv(hidden, hidden, 3, 1 if pooled else stride, padding, groups=hidden)
        make_gate = partial(SqueezeExcite, hidden, rd_channels=gate, act=gate_act)
        self.se_early = make_gate() if gate_early else nn.Identity()
        self.norm2 = norm(hidden)
        self.se = nn.Identity() if gate_early else make_gate()
        self.conv3_1x1 = nn.Conv2d(hidden, dim_out, 1, bias=bias)
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm1(self.conv1_1x1(self.down(self.pre_norm(x))))
        y = self.conv3_1x1(self.se(self.norm2(self.se_early(self.conv2_kxk(y)))))
        return self.shortcut(x) + self.drop_path(y)


class ConvNeXt(nn.Module):
    """Depthwise 7x7 convolution, norm, mlp, scaled per channel (arXiv:2201.03545)."""

    def __init__(self, dim: int, dim_out: int, stride: int, drop_path: float, layer_scale: float, act: str):
        super().__init__()
        self.shortcut = Downsample(dim, dim_out) if stride == 2 else nn.Identity()
        self.conv_dw = nn.Conv2d(dim, dim_out, 7, stride, 3, groups=dim)
        self.norm = LayerNorm2d(dim_out)
        self.mlp = Mlp(dim_out, 4 * dim_out, act=act, conv=True)
        self.ls = LayerScale2d(dim_out, layer_scale)
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return self.shortcut(x) + self.drop_path(self.ls(self.mlp(self.norm(self.conv_dw(x)))))


class Transformer(nn.Module):
    """Attention over the map, then mlp, with pooling in front where the stage begins."""

    def __init__(self, dim: int, dim_out: int, stride: int, drop_path: float, window: Size, rel_pos: Layer, norm: Norm,
                 pool: str, shortcut_bias: bool, expand_first: bool, layer_scale: float | None, act: str):  # fmt: skip
        super().__init__()
        if stride == 2:
            self.shortcut = Downsample(dim, dim_out, pool, bias=shortcut_bias)
            self.norm1 = nn.Sequential()
            self.norm1.add_module("norm", norm(dim))
            self.norm1.add_module("down", Downsample(dim, dim, pool))
        else:
            self.shortcut = nn.Identity()
            self.norm1 = norm(dim)
        inner = dim_out if expand_first else dim
        self.attn = Attention2d(dim, dim_out, inner // HEAD_DIM, expand_first=expand_first, head_first=True,
                                rel_pos=partial(rel_pos, window))  # fmt: skip
        self.ls1 = LayerScale2d(dim_out, layer_scale) if layer_scale else nn.Identity()
        self.drop_path1 = drop_path_of(drop_path)
        self.norm2 = norm(dim_out)
        self.mlp = Mlp(dim_out, 4 * dim_out, act=act, conv=True)
        self.ls2 = LayerScale2d(dim_out, layer_scale) if layer_scale else nn.Identity()
        self.drop_path2 = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.shortcut(x) + self.drop_path1(self.ls1(self.attn(self.norm1(x))))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class MaxViTBlock(nn.Module):
    """Convolution, attention near (left out by some), attention far: (B, C, H, W) -> (B, D, H/s, W/s)."""

    def __init__(self, conv: nn.Module, near: nn.Module | None, far: nn.Module):
        super().__init__()
        self.conv = conv
        self.attn_block = near if near is not None else nn.Identity()
        self.attn_grid = far

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).permute(0, 2, 3, 1)
        return self.attn_grid(self.attn_block(x)).permute(0, 3, 1, 2)


class ParallelMaxViTBlock(nn.Module):
    """Two convolution blocks, then both attentions at once."""

    def __init__(self, convs: list[nn.Module], attn: nn.Module):
        super().__init__()
        self.conv = nn.Sequential(*convs)
        self.attn = attn

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(self.conv(x).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Stem(nn.Module):
    """Two convolutions, the first strided: (B, 3, H, W) -> (B, C, H/2, W/2)."""

    def __init__(self, in_chans: int, dims: Size, norm: NormAct, padding: str, bias: bool):
        super().__init__()
        self.conv1 = create_conv(in_chans, dims[0], 3, 2, padding, bias=bias)
        self.norm1 = norm(dims[0])
        self.conv2 = create_conv(dims[0], dims[1], 3, 1, padding, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(self.norm1(self.conv1(x)))


class Stage(nn.Module):
    def __init__(self, blocks: list[nn.Module]):
        super().__init__()
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class MaxxVit(ImageModel):
    """Args:
    blocks: "C" (convolution), "T" (attention), "M" (windows, then grid), "PM" (both at once); the last repeats
    stem_bias: biases of the stem
    conv: convolution blocks: "mbconv" or "convnext"
    conv_bias: biases of their convolutions
    pre_norm_act: an activation behind their first norm
    expand_output: widen from the output's channels, not the input's
    pool_stride: halve by the pool, not by a convolution
    pool: how shortcuts are halved: "avg2", "max", or "avg3", the mean of 3x3, with a 1x1 behind it everywhere
    gate_early: gate before the norm of the 3x3 convolution, not behind it
    conv_scale: layer scale of the ConvNeXt blocks
    rel_pos: positions: "bias", "bias_tf" or "mlp"
    head_first: heads before queries, keys and values among the channels
    expand_first: widen in the projection to queries, keys and values
    shortcut_bias: bias of the shortcut's projection
    block_attn: attention in windows before that in a grid
    attn_norm: norm of the maps that attend
    attn_eps: epsilon of the attention's norms
    attn_act: activation of the attention's mlps
    init: initial weights: "normal" of deviation 0.02, or "fans", by the size of each layer
    """

    parts = Parts(norm=("norm",))
    layer_groups = {"stem": r"^stem", "blocks": [(r"^stages\.(\d+)", None), (r"^norm", (99999,))]}
    no_decay = ("*.rel_pos.*",)

    def __init__(self, img_size: int | Size = 224, dims: Sequence[int] = (64, 128, 256, 512),
                 depths: Sequence[int] = (2, 2, 5, 2), blocks: Sequence[str] = ("M", "M", "M", "M"),
                 stem_dims: Sequence[int] = (32, 64), stem_bias: bool = False,
                 conv: Literal["mbconv", "convnext"] = "mbconv", act: str = "silu", eps: float = 1e-5,
                 padding: Literal["", "same"] = "", conv_bias: bool = False, pre_norm_act: bool = False,
                 expand_output: bool = False, pool_stride: bool = False, pool: Literal["avg2", "max", "avg3"] = "avg2",
                 gate_early: bool = False, gate_ratio: float = 0.25, gate_act: str = "silu", conv_scale: float = 1e-6,
                 rel_pos: str = "bias", rel_pos_dim: int = 512, head_first: bool = True, expand_first: bool = False,
                 shortcut_bias: bool = True, block_attn: bool = True, layer_scale: float | None = None,
                 attn_norm: str = "layernorm2d", attn_eps: float = 1e-6, attn_act: str = "gelu",
                 head_hidden: int | None = None, init: Literal["normal", "fans"] = "fans", num_classes: int = 1000,
                 in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.img_size = pair(img_size)
        check_multiple(self.img_size)
        norm2d = get_norm(attn_norm, eps=attn_eps)
        if conv == "convnext":
            norm_act = get_norm_act("layernorm2d", act, eps=1e-6)
            make_conv: Callable = partial(ConvNeXt, layer_scale=conv_scale, act=act)
        else:
            norm_act = get_norm_act("batchnorm2d", act, eps=eps)
            make_conv = partial(MbConv, norm=norm_act, padding=padding, bias=conv_bias, pre_norm_act=pre_norm_act,
                                expand_output=expand_output, pool_stride=pool_stride, pool=pool, gate_early=gate_early,
                                gate_ratio=gate_ratio, gate_act=gate_act)  # fmt: skip
        kinds = {"bias": RelPosBias, "bias_tf": RelPosBiasTf, "mlp": partial(RelPosMlp, hidden=rel_pos_dim)}
        position = kinds[rel_pos]
        make_attn = partial(Attention, rel_pos=position, head_first=head_first)
        make_global = partial(Transformer, rel_pos=position, norm=norm2d, pool=pool, shortcut_bias=shortcut_bias,
                              expand_first=expand_first, layer_scale=layer_scale, act=attn_act)  # fmt: skip
        shared: dict[str, Any] = dict(attn=make_attn, norm=partial(LayerNorm, eps=attn_eps), act=attn_act)
        make_partition = partial(PartitionAttention, layer_scale=layer_scale, **shared)

        def make_block(kind: str, dim: int, dim_out: int, stride: int, drop: float, stage: int) -> nn.Module:
            if kind == "C":
                return make_conv(dim, dim_out, stride, drop)
            window = self.window(kind, stage)
            if kind == "T":
                return make_global(dim, dim_out, stride, drop, window)
            first = make_conv(dim, dim_out, stride, drop)
            if kind == "PM":
                attn = ParallelAttention(dim_out, window, drop_path=drop, **shared)
                return ParallelMaxViTBlock([first, make_conv(dim_out, dim_out, 1, drop)], attn)
            near = make_partition(dim_out, False, window, drop_path=drop) if block_attn else None
            return MaxViTBlock(first, near, make_partition(dim_out, True, window, drop_path=drop))

        self.stem = Stem(in_chans, (stem_dims[0], stem_dims[-1]), norm_act, padding, stem_bias)
        levels, stages, dim = [Feature(stem_dims[-1], 2, "stem")], [], stem_dims[-1]
        self.kinds = [kinds_of(blocks[i], depth) for i, depth in enumerate(depths)]
        for i, drops in enumerate(drop_path_rates(drop_path_rate, list(depths))):
            made = []
            for j, drop in enumerate(drops):
                made.append(make_block(self.kinds[i][j], dim, dims[i], 1 if j else 2, drop, i))
                dim = dims[i]
            stages.append(Stage(made))
            levels.append(Feature(dim, 4 * 2**i, f"stages.{i}"))
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim
        self.norm = nn.Identity() if head_hidden else norm2d(dim)
        if head_hidden:
            self.head = NormMlpHead(dim, num_classes, global_pool, drop_rate, norm2d, head_hidden, "tanh")
        else:
            self.head = ClassifierHead(dim, num_classes, global_pool, drop_rate)
        self.head_hidden_size = head_hidden or dim * self.head.global_pool.width
        self.init_weights(init)

    def window(self, kind: str, stage: int) -> Size:
        """What attention sees at once: the whole map of a stage, or one partition."""
        step = 4 * 2**stage if kind == "T" else PARTITION
        return self.img_size[0] // step, self.img_size[1] // step

    def init_weights(self, init: str) -> None:
        """`fans`: convolutions by He, attention and its mlps by Glorot; `normal`: std 0.02. Heads keep torch's."""
        parts: list[tuple[nn.Module, bool]] = [(self.stem, False)]
        stages: Any = self.stages
        for block in (block for stage in stages for block in stage.blocks):
            if isinstance(block, MaxViTBlock):
                parts += [(block.conv, False), (block.attn_block, True), (block.attn_grid, True)]
            elif isinstance(block, ParallelMaxViTBlock):
                parts += [(block.conv, False), (block.attn, True)]
            elif not isinstance(block, ConvNeXt):  # which keeps torch's where it stands alone
                parts.append((block, isinstance(block, Transformer)))
        for part, attends in parts:
            for name, module in part.named_modules():
                if isinstance(module, nn.Conv2d | nn.Linear):
                    init_layer(module, init, attends, attends and init == "fans" and "mlp" in name)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.norm(self.stages(self.stem(self.sized_input(x))))

    def sized(self):
        stage: Any
        for i, stage in enumerate(self.stages):
            for kind, block in zip(self.kinds[i], stage.blocks):
                yield from ((part, self.window(kind, i)) for part in block.modules() if hasattr(part, "set_size"))

    def fit_size(self, img_size: Size, **options: Any) -> None:
        check_multiple(img_size)
        super().fit_size(img_size, **options)


def check_multiple(img_size: Size) -> None:
    if img_size[0] % PARTITION or img_size[1] % PARTITION:
        raise ValueError(f"img_size must be a multiple of {PARTITION}, for whole windows, not {img_size}")


def kinds_of(text: str, depth: int) -> list[str]:
    """Kinds of a stage's blocks, the last repeated: ("C T", 3) -> C, T, T."""
    kinds = text.split()
    if not kinds or not {*kinds} <= {"C", "T", "M", "PM"}:
        raise ValueError(f"blocks are C, T, M and PM, as 'C T' for a stage, not {text!r}")
    return kinds + [kinds[-1]] * (depth - len(kinds))


def init_layer(layer: nn.Conv2d | nn.Linear, init: str, attends: bool, noisy_bias: bool) -> None:
    if init == "normal":
        nn.init.normal_(layer.weight, std=0.02)
    elif attends:
        nn.init.xavier_uniform_(layer.weight)
    elif isinstance(layer, nn.Conv2d):  # the fan of a depthwise layer is that of one group
        fan = layer.weight[0, 0].numel() * layer.out_channels // layer.groups
        nn.init.normal_(layer.weight, std=(2 / fan) ** 0.5)
    if layer.bias is not None:
        if noisy_bias:
            nn.init.normal_(layer.bias, std=1e-6)
        else:
            nn.init.zeros_(layer.bias)

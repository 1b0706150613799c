"""Global Context Vision Transformer: windows ask their own tokens, then the whole map in turn (arXiv:2206.09959)."""

from collections.abc import Sequence

from torch import Tensor, nn

from imgzoo.errors import UsageError
from imgzoo.model import Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.attention import head_width, layer_scale_of
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Acts, Norms
from imgzoo_layers.gate import SqueezeExcite
from imgzoo_layers.head import ClassifierHead
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import LayerNorm2d
from imgzoo_layers.padding import pad_to_multiple
from imgzoo_layers.rel_pos import RelPosBias
from imgzoo_layers.tables import Size, Tabled
from imgzoo_layers.util import pair, per_stage
from imgzoo_layers.window import WindowAttending, from_windows, to_windows

EPS = 1e-5


class MbConvBlock(nn.Module):
    """Depthwise convolution, gate, pointwise convolution, on a residual: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv_dw = nn.Conv2d(dim, dim, 3, padding=1, groups=dim, bias=False)
        self.act = nn.GELU()
        self.se = SqueezeExcite(dim, 1 / 4, act="gelu", bias=False)
        self.conv_pw = nn.Conv2d(dim, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_pw(self.se(self.act(self.conv_dw(x))))


class Downsample2d(nn.Module):
    """Halve a map between two norms: (B, C, H, W) -> (B, C', H/2, W/2)."""

    def __init__(self, dim: int, dim_out: int):
        super().__init__()
        self.norm1 = LayerNorm2d(dim, EPS)
        self.conv_block = MbConvBlock(dim)
        self.reduction = nn.Conv2d(dim, dim_out, 3, 2, 1, bias=False)
        self.norm2 = LayerNorm2d(dim_out, EPS)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.reduction(self.conv_block(self.norm1(x))))


class Stem(nn.Module):
    """(B, 3, H, W) -> (B, C, H/4, W/4)"""

    def __init__(self, in_chans: int, dim: int):
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, dim, 3, 2, 1)
        self.down = Downsample2d(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.conv1(x))


class FeatureBlock(nn.Module):
    """Make of a map the queries that all its windows share: (B, C, H, W) -> (B, h, w, C), halved `halvings` times."""

    def __init__(self, dim: int, halvings: int):
        super().__init__()
        self.blocks = nn.Sequential()
        for i in range(max(halvings, 1)):
            self.blocks.add_module(f"conv{i + 1}", MbConvBlock(dim))
            if halvings:
                self.blocks.add_module(f"pool{i + 1}", nn.MaxPool2d(3, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x).permute(0, 2, 3, 1)


class WindowAttention(WindowAttending):
    """Attention in windows (B * windows, N, C) with a bias by offset; with `shared` queries (B, h, w, C) come from
    outside, the same for all windows of an image."""

    def __init__(self, dim: int, heads: int, window: Size, shared: bool, qkv_bias: bool, attn_drop: float,
                 proj_drop: float):  # fmt: skip
        super().__init__(heads, head_width(dim, heads), attn_drop)
        self.shared = shared
        self.rel_pos = RelPosBias(window, heads)
        self.qkv = nn.Linear(dim, (2 if shared else 3) * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, query: Tensor) -> Tensor:
        qkv = self.qkv(x).unflatten(2, (-1, self.num_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        q = qkv[0]
        if self.shared:
            query = query.flatten(1, 2).unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)
            q = query.repeat_interleave(x.shape[0] // query.shape[0], dim=0)
        return self.proj_drop(self.proj(self.attend_windows(q, qkv[-2], qkv[-1], self.rel_pos(), None)))


class Block(Tabled):
    """Attention in windows, then mlp, each normalized first: (B, H, W, C) -> (B, H, W, C)."""

    sized_by = "window"

    def __init__(self, dim: int, heads: int, window: Size, shared: bool, mlp_ratio: float, qkv_bias: bool,
                 layer_scale: float | None, drop: float, attn_drop: float, drop_path: float):  # fmt: skip
        super().__init__()
        self.window = window
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, heads, window, shared, qkv_bias, attn_drop, drop)
        self.ls1 = layer_scale_of(dim, layer_scale)
        self.drop_path1 = drop_path_of(drop_path)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=drop)
        self.ls2 = layer_scale_of(dim, layer_scale)
        self.drop_path2 = drop_path_of(drop_path)

    def attend(self, x: Tensor, query: Tensor) -> Tensor:
        height, width = x.shape[1], x.shape[2]
        x = pad_to_multiple(x, self.window)
        high, wide = x.shape[1], x.shape[2]
        x = self.attn(to_windows(x, self.window), query)
        return from_windows(x, self.window, high, wide)[:, :height, :width]

    def forward(self, x: Tensor, query: Tensor) -> Tensor:
        x = x + self.drop_path1(self.ls1(self.attend(self.norm1(x), query)))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))


class Stage(nn.Module):
    """Halve the map, make the shared queries, run the blocks: (B, C, H, W) -> (B, C', H/2, W/2)."""

    def __init__(self, downsample: nn.Module, global_block: nn.Module, blocks: Sequence[Block], norm: nn.Module):
        super().__init__()
        self.downsample = downsample
        self.global_block = global_block
        self.blocks = nn.ModuleList(blocks)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        query, x = self.global_block(x), x.permute(0, 2, 3, 1)
        for block in self.blocks:
            x = block(x, query)
        return self.norm(x).permute(0, 3, 1, 2)


class GlobalContextVit(ImageModel):
    """Windows of a stage are the image divided by its `window_ratio`, its stride or that times a power of two.

    Args:
        window_ratio: windows of a stage are the image divided by this
        window_size: side of the windows of each stage, in place of `window_ratio`
    """

    exchanged = (
        Acts("gelu", ("!*.global_block.*", "!stages.*.conv_block.*")),
        Norms("layernorm*", options=("eps",)),
        Norms("layernorm2d", options=("norm",)),
        Norms("layernorm", options=("token_norm",)),
    )
    parts = Parts(stem=("stem",), stages=("stages",))
    layer_groups = {"stem": r"^stem", "blocks": r"^stages\.(\d+)"}
    no_decay = ("*relative_position_bias_table",)
    layout = "plain"

    def __init__(self, img_size: int | Size = 224, window_ratio: Sequence[int] = (32, 32, 16, 32), embed_dim: int = 64,
                 depths: Sequence[int] = (3, 4, 19, 5), num_heads: Sequence[int] = (2, 4, 8, 16),
                 mlp_ratio: float = 3.0, qkv_bias: bool = True, layer_scale: float | None = None,
                 window_size: int | Sequence[int] | None = None, num_classes: int = 1000, in_chans: int = 3,
                 global_pool: str = "avg", drop_rate: float = 0.0,
                 proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.img_size, self.window_ratio = pair(img_size), per_stage(window_ratio, len(depths))
        if window_size is not None:
            self.window_ratio = [ratio_of(self.img_size, window) for window in per_stage(window_size, len(depths))]
        self.stem = Stem(in_chans, embed_dim)
        stages, levels, dim = [], [], embed_dim
        for i, drops in enumerate(drop_path_rates(drop_path_rate, depths)):
            before, dim, stride, last = dim, embed_dim * 2**i, 4 * 2**i, i == len(depths) - 1
            blocks = [Block(dim, num_heads[i], self.window(i), j % 2 == 1, mlp_ratio, qkv_bias, layer_scale,
                            proj_drop_rate, attn_drop_rate, drop) for j, drop in enumerate(drops)]  # fmt: skip
            stages.append(Stage(Downsample2d(before, dim) if i else nn.Identity(),
                                FeatureBlock(dim, halvings(self.window_ratio[i], stride)), blocks,
                                nn.LayerNorm(dim) if last else nn.Identity()))  # fmt: skip
            levels.append(Feature(dim, stride, f"stages.{i}"))
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim
        self.head = ClassifierHead(dim, num_classes, global_pool, drop_rate)
        self.head_hidden_size = dim * self.head.global_pool.width

    def window(self, stage: int) -> Size:
        ratio = self.window_ratio[stage]
        return -(self.img_size[0] // -ratio), -(self.img_size[1] // -ratio)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.stages(self.stem(self.sized_input(x)))

    def sized(self):
        for i, (_, stage) in enumerate(self._stages()):
            for block in stage.blocks:
                yield block, self.window(i)
                yield block.attn.rel_pos, self.window(i)


def ratio_of(size: Size, window: int) -> int:
    """How many times larger than a window an image is."""
    if window < 1 or size[0] != size[1] or size[0] % window:
        raise UsageError(f"window_size divides a square image into windows, and {window} does not divide {size}")
    return size[0] // window


def halvings(ratio: int, stride: int) -> int:
    """How often a map of that stride is halved until it has the size of a window."""
    count = (ratio // stride).bit_length() - 1
    if count < 0 or ratio != stride * 2**count:
        raise ValueError(f"window_ratio of a stage of stride {stride} is that times a power of two, not {ratio}")
    return count

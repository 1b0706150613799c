"""DaViT: attention in windows, then between channels (arXiv:2204.03645); as Florence-2 trains it (2311.06242)."""

from collections import OrderedDict
from collections.abc import Sequence
from functools import partial

from torch import Tensor, nn

from imgzoo.errors import UsageError
from imgzoo.model import Feature, FeatureInfo, ImageModel
from imgzoo_layers.attention import Attending, head_width
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Biases, Norms
from imgzoo_layers.head import norm_and_head
from imgzoo_layers.init import init_linear_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import LayerNorm2d, Norm
from imgzoo_layers.padding import pad_to_multiple
from imgzoo_layers.stage import Stage
from imgzoo_layers.window import LocalAttention


class ChannelAttention(Attending):
    """Channels of a group attend to one another: (B, H, W, C) -> (B, H, W, C). `by_area` scales by the number of
    positions instead of the channels'."""

    def __init__(self, dim: int, groups: int, by_area: bool):
        super().__init__(groups, head_width(dim, groups))
        self.by_area = by_area
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        size = (x.shape[1], x.shape[2])
        qkv = self.qkv(x.flatten(1, 2)).unflatten(2, (3, self.num_heads, -1))
        q, k, v = qkv.permute(2, 0, 3, 4, 1).unbind(0)  # (B, groups, D, N)
        if self.by_area:
            x = self.attn_drop(((q * (size[0] * size[1]) ** -0.5) @ k.transpose(-2, -1)).softmax(dim=-1)) @ v
        else:  # keys ask values, and queries are mixed: the names of the first checkpoints
            x = self.attn_drop(((k * self.scale) @ v.transpose(-2, -1)).softmax(dim=-1)) @ q
        return self.proj(x.flatten(1, 2).transpose(1, 2)).unflatten(1, size)


class ConvPosition(nn.Module):
    """A depthwise convolution, perhaps with a GELU, tells where things are: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, act: bool):
        super().__init__()
        self.proj = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.act = nn.GELU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.act(self.proj(x))


class Block(nn.Module):
    """Attention of either kind, then mlp, each behind a convolution for position: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, attn: nn.Module, mlp_ratio: float, cpe_act: bool, eps: float, drop_path: float):
        super().__init__()
        self.cpe1 = ConvPosition(dim, cpe_act)
        self.norm1 = nn.LayerNorm(dim, eps)
        self.attn = attn
        self.drop_path1 = drop_path_of(drop_path)
        self.cpe2 = ConvPosition(dim, cpe_act)
        self.norm2 = nn.LayerNorm(dim, eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path2 = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.cpe1(x).permute(0, 2, 3, 1)
        x = x + self.drop_path1(self.attn(self.norm1(x)))
        x = self.cpe2(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return (x + self.drop_path2(self.mlp(self.norm2(x)))).permute(0, 3, 1, 2)


class Downsample(nn.Module):
    """Norm, then a strided convolution: (B, C, H, W) -> (B, C', H/2, W/2)."""

    def __init__(self, dim: int, dim_out: int, kernel: int, norm: Norm):
        super().__init__()
        self.norm = norm(dim)
        self.conv = nn.Conv2d(dim, dim_out, kernel, 2, kernel // 2 if kernel % 2 else 0)
        self.even = kernel % 2 == 0

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(x)
        if self.even:  # every pixel takes part
            x = pad_to_multiple(x.permute(0, 2, 3, 1), (2, 2)).permute(0, 3, 1, 2)
        return self.conv(x)


class DaVit(ImageModel):
    """Florence-2 has `named_blocks` and attention of channels `by_area`.

    Args:
        attentions: what each block of a stage has one after another, "spatial" and "channel"
        by_area: attention of channels is scaled by the number of positions, not by that of channels
        named_blocks: blocks are called by their attention, not counted
        cpe_act: a GELU behind the convolutions that tell positions
        head_norm_first: norm before the pool
    """

    exchanged = (
        Norms("layernorm2d", options=("norm",)),
        Norms("layernorm", options=("token_norm",)),
        Biases(("*.attn.qkv",)),
    )
    parts = ImageModel.parts._replace(norm=("norm_pre",))

    layer_groups = {
        "stem": r"^stem",
        "blocks": [(r"^stages\.(\d+).downsample", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None),
                   (r"^norm_pre", (99999,))],
        "coarse": r"^stages\.(\d+)",
    }  # fmt: skip

    def __init__(self, depths: Sequence[int] = (1, 1, 3, 1), embed_dims: Sequence[int] = (96, 192, 384, 768),
                 num_heads: Sequence[int] = (3, 6, 12, 24), window_size: int = 7, mlp_ratio: float = 4.0,
                 attentions: Sequence[str] = ("spatial", "channel"), down_kernel: int = 2, by_area: bool = False,
                 named_blocks: bool = False, cpe_act: bool = False, eps: float = 1e-5, head_norm_first: bool = False,
                 num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        unknown = {*attentions} - {"spatial", "channel"}
        if unknown or not attentions:
            raise UsageError(f"attentions are 'spatial' and 'channel', or one of them, not {list(attentions)}")
        norm = partial(LayerNorm2d, eps=eps)
        stem = nn.Conv2d(in_chans, embed_dims[0], 7, 4, 3)
        self.stem = nn.Sequential(OrderedDict(conv=stem, norm=norm(embed_dims[0])))
        names = [f"{kind}_block" if named_blocks else str(i) for i, kind in enumerate(attentions)]
        stages, levels, before = [], [], embed_dims[0]
        for i, drops in enumerate(drop_path_rates(drop_path_rate, depths)):
            dim, heads, blocks = embed_dims[i], num_heads[i], []
            attend = {
                "spatial": partial(LocalAttention, dim, heads, window_size),
                "channel": partial(ChannelAttention, dim, heads, by_area),
            }
            for drop in drops:
                turns = (Block(dim, attend[kind](), mlp_ratio, cpe_act, eps, drop) for kind in attentions)
                blocks.append(nn.Sequential(OrderedDict(zip(names, turns, strict=True))))
            stages.append(Stage(Downsample(before, dim, down_kernel, norm) if i else nn.Identity(), *blocks))
            levels.append(Feature(dim, 4 * 2**i, f"stages.{i}"))
            before = dim
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = before
        self.norm_pre, self.head = norm_and_head(before, num_classes, global_pool, drop_rate, norm, head_norm_first)
        self.head_hidden_size = before * self.head.global_pool.width
        init_linear_(self)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self.norm_pre(self.stages(self.stem(x)))

"""The vision tower of Gemma 4 (Google's model card, 2026): patches without convolution, places by axis, norms around.

We know no arXiv number of it; the weights are those of the language models' towers (Gemma 4 E4B and 31B).
"""

from functools import partial

import torch
import torch.fx
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo_layers.act import create_act
from imgzoo_layers.attention import Attending
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.exchange import Acts
from imgzoo_layers.init import trunc_normal_tf_
from imgzoo_layers.norm import Norm, RmsNorm
from imgzoo_layers.rotary import AnyGridRotary, rotate
from imgzoo_layers.tables import Size

from .vision_encoder import Blocks, Classifier, Encoder, State, whole

BOUNDS = ("input_min", "input_max", "output_min", "output_max")


class ClippedLinear(nn.Module):
    """A linear layer whose input and output are kept within published bounds, where `clips`; key `linear`."""

    input_min: Tensor
    input_max: Tensor
    output_min: Tensor
    output_max: Tensor

    def __init__(self, dim: int, dim_out: int, clips: bool):
        super().__init__()
        self.clips = clips
        for name in BOUNDS if clips else ():
            self.register_buffer(name, torch.tensor(float("-inf" if name.endswith("min") else "inf")))
        self.linear = nn.Linear(dim, dim_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        if not self.clips:
            return self.linear(x)
        lo, hi = self.input_min.expand(x.shape[-1]), self.input_max.expand(x.shape[-1])
        # bounds that look like vectors: ONNX's optimizer mixes up scalar ones of layers that read the same tensor
        return self.linear(x.clamp(lo, hi)).clamp(self.output_min, self.output_max)


class GemmaPatchEmbed(nn.Module):
    """Pixels of a patch, from -1 to 1, through a linear layer, with a place for the column and one for the row."""

    def __init__(self, patch: Size, in_chans: int, dim: int, places: int):
        super().__init__()
        self.patch = patch
        self.position_embedding_table = nn.Parameter(torch.empty(2, places, dim))
        self.input_proj = nn.Linear(patch[0] * patch[1] * in_chans, dim, bias=False)

    def forward(self, x: Tensor, grid: Size) -> Tensor:  # (B, C, H, W) -> (B, N, D)
        x = x.unflatten(3, (-1, self.patch[1])).unflatten(2, (-1, self.patch[0]))
        x = x.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
        return self.input_proj(2 * x - 1) + axis_places(self.position_embedding_table, grid)


class GemmaAttention(Attending):
    """Queries, keys and values normalized per head; the two axes turn a half of each head: (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int, heads: int, head_dim: int, clips: bool, norm: Norm, attn_drop: float,
                 proj_drop: float):  # fmt: skip
        if head_dim % 4:
            raise ValueError(f"head_dim is a multiple of 4, two numbers a wave on each axis, not {head_dim}")
        super().__init__(heads, head_dim, attn_drop)
        self.scale = 1.0
        self.q_proj = ClippedLinear(dim, heads * head_dim, clips)
        self.k_proj = ClippedLinear(dim, heads * head_dim, clips)
        self.v_proj = ClippedLinear(dim, heads * head_dim, clips)
        self.o_proj = ClippedLinear(heads * head_dim, dim, clips)
        self.q_norm, self.k_norm, self.v_norm = norm(head_dim), norm(head_dim), norm(head_dim, affine=False)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        q = self.turned(self.q_norm(self.apart(self.q_proj(x))), table)
        k = self.turned(self.k_norm(self.apart(self.k_proj(x))), table)
        x = self.attend(q, k, self.v_norm(self.apart(self.v_proj(x))))
        return self.proj_drop(self.o_proj(x.transpose(1, 2).flatten(2)))

    def apart(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.num_heads, self.head_dim)).transpose(1, 2)

    def turned(self, x: Tensor, table: Tensor) -> Tensor:
        return rotate(x.unflatten(3, (2, -1)), table, halves=True).flatten(3)


class GemmaMlp(nn.Module):
    """act(gate(x)) * up(x), down."""

    def __init__(self, dim: int, hidden: int, clips: bool):
        super().__init__()
        self.gate_proj = ClippedLinear(dim, hidden, clips)
        self.up_proj = ClippedLinear(dim, hidden, clips)
        self.down_proj = ClippedLinear(hidden, dim, clips)
        self.act = create_act("gelu_tanh")

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.act(self.gate_proj(x)) * self.up_proj(x))


class GemmaBlock(nn.Module):
    """Attention, then mlp, each normalized before and after: (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int, attn: nn.Module, mlp: nn.Module, norm: Norm, drop_path: float):
        super().__init__()
        self.norm1 = norm(dim)
        self.attn = attn
        self.norm2 = norm(dim)
        self.norm3 = norm(dim)
        self.mlp = mlp
        self.norm4 = norm(dim)
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor, table: Tensor) -> Tensor:
        x = x + self.drop_path(self.norm2(self.attn(self.norm1(x), table)))
        return x + self.drop_path(self.norm4(self.mlp(self.norm3(x))))


class SoftPool(nn.Module):
    """The mean of squares of tokens, times the root of the width: (B, h, w, C) -> (B, h/s * w/s, C)."""

    def __init__(self, dim: int, side: int):
        super().__init__()
        self.side, self.scale = side, dim**0.5

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x.permute(0, 3, 1, 2), self.side).flatten(2).transpose(1, 2) * self.scale


class Gemma4Encoder(Encoder):
    """Returns soft tokens (B, h/3 * w/3, C), the features being (B, h, w, C); `pool_side` 0 leaves tokens apart.

    With `standardize` soft tokens are (x - std_bias) * std_scale. A classifier that is grown reads their mean.

    Args:
        hidden: hidden channels of the mlps
        pool_side: side of the square of patches that becomes one token; 0 for none
        standardize: shift and scale soft tokens by values of the file
        clips: clip what enters and leaves linear layers
        places: rows and columns of the position tables
    """

    exchanged = (Acts("gelu_tanh"),)
    merging = "soft"
    parts = Encoder.parts._replace(tail=("pooler",))
    layer_groups = {
        "stem": r"^patch_embed|^rotary_emb",
        "blocks": [(r"^blocks\.(\d+)", None), (r"^pooler|^std_", (99999,))],
    }
    no_decay = ("patch_embed.position_embedding_table",)
    planes_apart, black = True, 0.5

    def __init__(self, patch_size: int = 16, in_chans: int = 3, num_classes: int = 0, global_pool: str | None = None,
                 embed_dim: int = 768, depth: int = 16, num_heads: int = 12, head_dim: int = 64, hidden: int = 3072,
                 pool_side: int = 3, standardize: bool = False, clips: bool = False, places: int = 10240,
                 rope_theta: float = 100.0, eps: float = 1e-6, drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
                 attn_drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.patch_size, self.embed_dim, dim = (patch_size, patch_size), embed_dim, embed_dim
        self.step, self.merges = (patch_size * (pool_side or 1), patch_size * (pool_side or 1)), bool(pool_side)
        self.register_buffer("std_bias", torch.zeros(dim) if standardize else None)
        self.register_buffer("std_scale", torch.ones(dim) if standardize else None)
        norm = partial(RmsNorm, eps=eps)
        self.patch_embed = GemmaPatchEmbed(self.patch_size, in_chans, dim, places)
        self.rotary_emb = AnyGridRotary(head_dim, rope_theta, apart=True)
        self.blocks = Blocks(*(
            GemmaBlock(dim, GemmaAttention(dim, num_heads, head_dim, clips, norm, attn_drop_rate, proj_drop_rate),
                       GemmaMlp(dim, hidden, clips), norm, drop)
            for drop in drop_path_rates(drop_path_rate, depth)[0]
        ))  # fmt: skip
        self.pooler = SoftPool(dim, pool_side) if pool_side else nn.Identity()
        self.add_head(dim, global_pool, drop_rate)
        init_gemma_(self)

    def embed(self, x: Tensor) -> State:
        grid = self.grid_of(x)
        return self.patch_embed(whole(x, self.step), grid), self.rotary_emb(grid), grid

    def merged(self, x: Tensor) -> Tensor:
        x = self.pooler(x)
        if not self.merges or self.std_bias is None or self.std_scale is None:
            return x
        return (x - self.std_bias) * self.std_scale

    def _behead(self) -> None:
        self.std_bias = self.std_scale = None  # of soft tokens only
        super()._behead()


class Gemma4ViT(Classifier):
    """The mean of the tokens, soft ones where `merges`, through an RMS norm without weights to a classifier.

    Args:
        hidden: hidden channels of the mlps
        pool_side: side of the square of patches that becomes one token where they are merged
        standardize: shift and scale soft tokens by values of the file
        clips: clip what enters and leaves linear layers
        places: rows and columns of the position tables
    """

    exchanged = (Acts("gelu_tanh"),)
    parts = Classifier.parts._replace(tail=("encoder.pooler", "norm"))
    layer_groups = {
        "stem": r"^encoder\.patch_embed|^encoder\.rotary_emb",
        "blocks": [(r"^encoder\.blocks\.(\d+)", None), (r"^encoder\.(?:pooler|std_)", (99999,))],
    }
    no_decay = ("encoder.patch_embed.position_embedding_table",)
    planes_apart, black = True, 0.5

    def __init__(self, patch_size: int = 16, in_chans: int = 3, num_classes: int = 1000, global_pool: str = "avg",
                 merges: bool = False, embed_dim: int = 768, depth: int = 16, num_heads: int = 12, head_dim: int = 64,
                 hidden: int = 3072, pool_side: int = 3, standardize: bool = False, clips: bool = False,
                 places: int = 10240, rope_theta: float = 100.0, eps: float = 1e-6, drop_rate: float = 0.0,
                 proj_drop_rate: float = 0.0, attn_drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        side = pool_side if merges else 0
        encoder = Gemma4Encoder(patch_size, in_chans, 0, "", embed_dim, depth, num_heads, head_dim, hidden, side,
                                standardize, clips, places, rope_theta, eps, 0.0, proj_drop_rate, attn_drop_rate,
                                drop_path_rate)  # fmt: skip
        super().__init__(encoder, RmsNorm(embed_dim, eps=eps, affine=False), bool(side), num_classes, global_pool,
                         drop_rate)  # fmt: skip
        init_gemma_(self)

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, N, C)."""
        return self.encoder(x)

    def _final_norm(self, x: State) -> Tensor:
        return super()._final_norm(x).flatten(1, -2)


def init_gemma_(model: nn.Module) -> None:
    """Layers and tables normal of std 0.02, cut off at twice that."""
    for module in model.modules():
        if isinstance(module, nn.Linear):
            trunc_normal_tf_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, GemmaPatchEmbed):
            trunc_normal_tf_(module.position_embedding_table, std=0.02)


def axis_places(table: Tensor, grid: Size) -> Tensor:
    """Rows for columns and for rows (2, places, C) added over a grid: (h * w, C)."""
    return (table[1, : grid[0], None] + table[0, None, : grid[1]]).flatten(0, 1)


torch.fx.wrap("axis_places")

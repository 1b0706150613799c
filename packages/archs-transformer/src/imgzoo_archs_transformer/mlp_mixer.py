"""MLP-Mixer: patches are mixed by mlps alone (arXiv:2105.01601); ResMLP (arXiv:2105.03404), gMLP (arXiv:2105.08050)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.model import TokenModel
from imgzoo_layers.act import create_act
from imgzoo_layers.drop import drop_path_of
from imgzoo_layers.exchange import Acts, Norms
from imgzoo_layers.init import variance_scaling_
from imgzoo_layers.mlp import GluMlp, Mlp
from imgzoo_layers.norm import LayerNorm
from imgzoo_layers.patch_embed import PatchEmbed
from imgzoo_layers.tables import Size, Table, Tabled, square
from imgzoo_layers.util import pair


class TokenWeight(Table):
    """Weight or bias of a layer over the patches: `axes` run over the grid. Reading more patches, each counts less."""

    def __init__(self, *axes: int):
        super().__init__()
        self.axes = axes

    def resize(self, table: Tensor, old: Size, new: Size) -> Tensor:
        wide = table.float()
        for axis in self.axes:
            rows = wide.movedim(axis, -1)
            maps = rows.reshape(1, -1, *old)
            maps = F.interpolate(maps, size=new, mode="bicubic", antialias=True)
            wide = maps.reshape(*rows.shape[:-1], -1).movedim(-1, axis)
        if 1 in self.axes:
            wide = wide * (old[0] * old[1] / (new[0] * new[1]))
        return wide.to(table.dtype).contiguous()

    def size_of(self, table: Tensor, own: Tensor, size: Size) -> Size | None:
        return square(table.shape[self.axes[0]])

    def place(self, owner: nn.Module, name: str, table: Tensor, size: Size) -> None:
        super().place(owner, name, table, size)
        if table.ndim == 2:
            owner.out_features, owner.in_features = table.shape  # type: ignore[assignment]


class Affine(nn.Module):
    """Scale and shift each channel: (B, N, C) -> (B, N, C)."""

    def __init__(self, dim: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(1, 1, dim))
        self.beta = nn.Parameter(torch.zeros(1, 1, dim))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.beta, self.alpha, x)


class MixerBlock(Tabled):
    """An mlp over the patches of each channel, then one over the channels of each patch, each on a residual."""

    tables = {
        "mlp_tokens.fc1.weight": TokenWeight(1),
        "mlp_tokens.fc2.weight": TokenWeight(0),
        "mlp_tokens.fc2.bias": TokenWeight(0),
    }

    def __init__(self, dim: int, grid: Size, token_ratio: float, mlp_ratio: float, gated: bool, drop: float,
                 drop_path: float):  # fmt: skip
        super().__init__()
        self.grid, area = grid, grid[0] * grid[1]
        hidden, wide = int(token_ratio * dim), int(mlp_ratio * dim)
        self.norm1 = LayerNorm(dim)
        self.mlp_tokens = GluMlp(area, hidden, drop=drop, gate_last=True) if gated else Mlp(area, hidden, drop=drop)
        self.drop_path = drop_path_of(drop_path)
        self.norm2 = LayerNorm(dim)
        self.mlp_channels = GluMlp(dim, wide, drop=drop, gate_last=True) if gated else Mlp(dim, wide, drop=drop)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.mlp_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2))
        return x + self.drop_path(self.mlp_channels(self.norm2(x)))


class ResBlock(Tabled):
    """A linear layer over the patches, then an mlp, with scales in place of norms."""

    tables = {"linear_tokens.weight": TokenWeight(0, 1), "linear_tokens.bias": TokenWeight(0)}

    def __init__(self, dim: int, grid: Size, mlp_ratio: float, layer_scale: float, drop: float, drop_path: float):
        super().__init__()
        self.grid = grid
        self.norm1 = Affine(dim)
        self.linear_tokens = nn.Linear(grid[0] * grid[1], grid[0] * grid[1])
        self.drop_path = drop_path_of(drop_path)
        self.norm2 = Affine(dim)
        self.mlp_channels = Mlp(dim, int(mlp_ratio * dim), drop=drop)
        self.ls1 = nn.Parameter(torch.full((dim,), layer_scale))
        self.ls2 = nn.Parameter(torch.full((dim,), layer_scale))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.ls1 * self.linear_tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2))
        return x + self.drop_path(self.ls2 * self.mlp_channels(self.norm2(x)))


class SpatialGatingUnit(Tabled):
    """Half of the channels, mixed over the patches, gate the others: (B, N, C) -> (B, N, C / 2); starts as a copy."""

    tables = {"proj.weight": TokenWeight(0, 1), "proj.bias": TokenWeight(0)}

    def __init__(self, dim: int, grid: Size):
        super().__init__()
        self.grid = grid
        self.norm = nn.LayerNorm(dim // 2)
        self.proj = nn.Linear(grid[0] * grid[1], grid[0] * grid[1])

    def forward(self, x: Tensor) -> Tensor:
        x, gate = x.chunk(2, dim=-1)
        return x * self.proj(self.norm(gate).transpose(1, 2)).transpose(1, 2)


class GatedMlp(nn.Module):
    def __init__(self, dim: int, hidden: int, grid: Size, drop: float):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.act = create_act("gelu")
        self.drop1 = nn.Dropout(drop)
        self.gate = SpatialGatingUnit(hidden, grid)
        self.fc2 = nn.Linear(hidden // 2, dim)
        self.drop2 = nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop2(self.fc2(self.gate(self.drop1(self.act(self.fc1(x))))))


class SpatialGatingBlock(nn.Module):
    """One mlp, gated inside by what is at other patches."""

    def __init__(self, dim: int, grid: Size, mlp_ratio: float, drop: float, drop_path: float):
        super().__init__()
        self.norm = LayerNorm(dim)
        self.mlp_channels = GatedMlp(dim, int(mlp_ratio * dim), grid, drop)
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.mlp_channels(self.norm(x)))


class MlpMixer(TokenModel):
    """`block` is "mixer", "glu" (a mixer with gated mlps), "res" or "gate"; `token_ratio` is the mixers' own.

    Args:
        num_blocks: number of blocks
        stem_norm: a norm behind the patches
        block: "mixer", "glu" (gated mlps), "res" or "gate"
        token_ratio: hidden channels of the mlp between tokens as a multiple of their number
    """

    exchanged = (Acts(("gelu", "silu")), Norms("layernorm", ("!*.gate.norm",)))
    layer_groups = {"stem": r"^stem", "blocks": [(r"^blocks\.(\d+)", None), (r"^norm", (99999,))]}
    no_decay = ()
    pools = ("avg", "max", "avgmax")

    def __init__(self, img_size: int | Size = 224, patch_size: int | Size = 16, num_blocks: int = 8,
                 embed_dim: int = 512, block: str = "mixer", mlp_ratio: float = 4.0, token_ratio: float = 0.5,
                 layer_scale: float = 1e-4, stem_norm: bool = False, num_classes: int = 1000, in_chans: int = 3,
                 global_pool: str = "avg", drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans, img_size, patch_size, embed_dim, num_blocks, global_pool, False)
        self.stem = PatchEmbed(pair(patch_size), in_chans, embed_dim, LayerNorm if stem_norm else None)
        options, drops = (embed_dim, self.grid), (proj_drop_rate, drop_path_rate)
        makers = {
            "mixer": lambda: MixerBlock(*options, token_ratio, mlp_ratio, False, *drops),
            "glu": lambda: MixerBlock(*options, token_ratio, mlp_ratio, True, *drops),
            "res": lambda: ResBlock(*options, mlp_ratio, layer_scale, *drops),
            "gate": lambda: SpatialGatingBlock(*options, mlp_ratio, *drops),
        }
        if block not in makers:
            raise ValueError(f"block is one of {', '.join(makers)}, not '{block}'")
        self.blocks = nn.Sequential(*(makers[block]() for _ in range(num_blocks)))
        self.norm = Affine(embed_dim) if block == "res" else LayerNorm(embed_dim)
        self.add_head(drop_rate)
        self.init_weights()

    def init_weights(self) -> None:
        """Xavier; gates start open, the classifier at zero."""
        for name, module in self.named_modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.normal_(module.bias, std=1e-6) if "mlp" in name else nn.init.zeros_(module.bias)
        for module in self.modules():
            if isinstance(module, SpatialGatingUnit):
                nn.init.normal_(module.proj.weight, std=1e-6)
                nn.init.ones_(module.proj.bias)
            elif isinstance(module, GluMlp):
                half = module.fc1.out_features // 2
                nn.init.normal_(module.fc1.weight[half:], std=1e-6)
                nn.init.ones_(module.fc1.bias[half:])
        variance_scaling_(self.stem.proj.weight, kind="truncated_normal")
        if self.stem.proj.bias is not None:
            nn.init.zeros_(self.stem.proj.bias)
        if isinstance(self.head, nn.Linear):
            nn.init.zeros_(self.head.weight)

    def embed(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, N, C)
        return self.stem(self.sized_input(x))

    def forward_features(self, x: Tensor) -> Tensor:
        return self.norm(self.blocks(self.embed(x)))

    def sized(self):
        return [(module, self.grid) for module in self.blocks.modules() if isinstance(module, Tabled)]

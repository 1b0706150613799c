"""Sequencer2D: LSTMs along columns and rows mix positions (arXiv:2205.01972).

`torch.compile` takes no LSTM into its graph: "compile" is not among the capabilities.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel
from imgzoo_layers.drop import drop_path_of
from imgzoo_layers.exchange import Acts, Norms
from imgzoo_layers.head import ClassifierHead
from imgzoo_layers.init import lecun_normal_
from imgzoo_layers.mlp import Mlp
from imgzoo_layers.norm import LayerNorm
from imgzoo_layers.stage import Stage


class Lstm2d(nn.Module):
    """Two-way LSTMs along columns and along rows, joined: (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int, hidden: int, layers: int):
        super().__init__()
        self.fc = nn.Linear(4 * hidden, dim)
        self.rnn_v = nn.LSTM(dim, hidden, layers, batch_first=True, bidirectional=True)
        self.rnn_h = nn.LSTM(dim, hidden, layers, batch_first=True, bidirectional=True)

    def forward(self, x: Tensor) -> Tensor:
        batch, height, width = x.shape[:3]
        down = self.rnn_v(x.transpose(1, 2).flatten(0, 1))[0].unflatten(0, (batch, width)).transpose(1, 2)
        across = self.rnn_h(x.flatten(0, 1))[0].unflatten(0, (batch, height))
        return self.fc(torch.cat([down, across], dim=-1))


class Block(nn.Module):
    """Mix positions, then channels: (B, H, W, C) -> (B, H, W, C)."""

    def __init__(self, dim: int, hidden: int, layers: int, mlp_ratio: float, drop: float, drop_path: float):
        super().__init__()
        self.norm1 = LayerNorm(dim)
        self.rnn_tokens = Lstm2d(dim, hidden, layers)
        self.drop_path = drop_path_of(drop_path)
        self.norm2 = LayerNorm(dim)
        self.mlp_channels = Mlp(dim, int(dim * mlp_ratio), drop=drop)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.rnn_tokens(self.norm1(x)))
        return x + self.drop_path(self.mlp_channels(self.norm2(x)))


class Patches(nn.Module):
    """Cut the image into patches: (B, 3, H, W) -> (B, H/size, W/size, C)."""

    def __init__(self, in_chans: int, dim: int, size: int, norm: bool):
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, size, size)
        self.norm = LayerNorm(dim) if norm else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class Downsample(nn.Module):
    """Merge squares of positions: (B, H, W, C) -> (B, H/size, W/size, dim_out)."""

    def __init__(self, dim: int, dim_out: int, size: int):
        super().__init__()
        self.down = nn.Conv2d(dim, dim_out, size, size)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class Sequencer2d(ImageModel):
    """Args:
    patch_sizes: how much each stage reduces the map, along a side
    stem_norm: a norm behind the stem
    rnn_layers: recurrent layers on top of one another
    hidden_sizes: states of each direction of the recurrent layers
    drop_path_rate: stochastic depth: probability that a block is skipped, the same for all
    """

    exchanged = (Acts("gelu"), Norms("layernorm"))
    default_levels = (0, 1, 2)
    parts = ImageModel.parts._replace(norm=("norm",))
    channels_last = True
    formats = ("NCHW", "NHWC")
    layer_groups = {
        "stem": r"^stem",
        "blocks": [
            (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            (r"^stages\.(\d+)\.downsample", (0,)),
            (r"^norm", (99999,)),
        ],
        "coarse": [(r"^stages\.(\d+)", None), (r"^norm", (99999,))],
    }

    def __init__(self, depths: Sequence[int] = (4, 3, 8, 3), patch_sizes: Sequence[int] = (7, 2, 1, 1),
                 embed_dims: Sequence[int] = (192, 384, 384, 384), hidden_sizes: Sequence[int] = (48, 96, 96, 96),
                 rnn_layers: int = 1, mlp_ratio: float = 3.0, stem_norm: bool = False, num_classes: int = 1000,
                 in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0, proj_drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.stem = Patches(in_chans, embed_dims[0], patch_sizes[0], stem_norm)
        stages, levels, reached = [], [], patch_sizes[0]
        for i, depth in enumerate(depths):
            dim, down = embed_dims[i], nn.Identity()
            if i:
                down, reached = Downsample(embed_dims[i - 1], dim, patch_sizes[i]), reached * patch_sizes[i]
            options = (dim, hidden_sizes[i], rnn_layers, mlp_ratio, proj_drop_rate, drop_path_rate)
            stages.append(Stage(down, *(Block(*options) for _ in range(depth))))
            levels.append(Feature(dim, reached, f"stages.{i}"))
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = dim = embed_dims[-1]
        self.norm = LayerNorm(dim)
        self.head = ClassifierHead(dim, num_classes, global_pool, drop_rate, channels_last=True)
        self.head_hidden_size = dim * self.head.global_pool.width
        init_(self)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, H/14, W/14, C)
        return self.norm(self.stages(self.stem(x)))


def init_(model: Sequencer2d) -> None:
    """Xavier's law for linear layers, LeCun's for convolutions, a classifier of zeros (MLP-Mixer, appendix)."""
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            hidden = "mlp_channels" in name
            nn.init.normal_(module.bias, std=1e-6) if hidden else nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            lecun_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    if isinstance(model.head.fc, nn.Linear):
        nn.init.zeros_(model.head.fc.weight)

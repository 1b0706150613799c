"""MetaFormer: blocks whose token mixer is a mean, a convolution or attention (arXiv:2111.11418, arXiv:2210.13452)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from imgzoo.model import Feature, FeatureInfo, ImageModel
from imgzoo_layers.act import create_act
from imgzoo_layers.attention import Attention
from imgzoo_layers.drop import drop_path_of, drop_path_rates, dropout_of
from imgzoo_layers.exchange import Biases
from imgzoo_layers.head import NormMlpHead
from imgzoo_layers.init import trunc_normal_
from imgzoo_layers.mlp import pointwise
from imgzoo_layers.norm import GroupNorm1, LayerNorm, LayerNorm2d
from imgzoo_layers.util import per_stage


class StarReLU(nn.Module):
    """scale * relu(x)^2 + bias, both learned (arXiv:2210.13452, equation 5)."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * x.relu().square() + self.bias


class Scale(nn.Module):
    """Scale each channel of maps (B, C, H, W), or of tokens (B, N, C)."""

    def __init__(self, dim: int, init: float, tokens: bool):
        super().__init__()
        self.shape = (dim,) if tokens else (dim, 1, 1)
        self.scale = nn.Parameter(torch.full((dim,), float(init)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale.view(self.shape)


class Pooling(nn.Module):
    """The mean of 3x3 neighbors without the value itself: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int):
        super().__init__()
        self.pool = nn.AvgPool2d(3, 1, 1, count_include_pad=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(x) - x


class SepConv(nn.Module):
    """Widen, 7x7 over each channel, narrow (MobileNetV2's, arXiv:1801.04381): (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int):
        super().__init__()
        self.pwconv1 = nn.Conv2d(dim, 2 * dim, 1, bias=False)
        self.act1 = StarReLU()
        self.dwconv = nn.Conv2d(2 * dim, 2 * dim, 7, padding=3, groups=2 * dim, bias=False)
        self.pwconv2 = nn.Conv2d(2 * dim, dim, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.pwconv2(self.dwconv(self.act1(self.pwconv1(x))))


def make_mixer(kind: str, dim: int, drop: float) -> nn.Module:
    if kind == "attention":
        return Attention(dim, dim // 32, qkv_bias=False, proj_bias=False, proj_drop=drop)
    return {"pool": Pooling, "conv": SepConv}[kind](dim)


class Mlp(nn.Module):
    """Widen fourfold, activate, narrow."""

    def __init__(self, dim: int, act: str | None, legacy: bool, tokens: bool, drop: float):
        super().__init__()
        self.fc1 = pointwise(dim, 4 * dim, legacy, conv=not tokens)
        self.act: nn.Module = create_act(act) if act else nn.GELU() if legacy else StarReLU()
        self.drop1 = dropout_of(drop)
        self.fc2 = pointwise(4 * dim, dim, legacy, conv=not tokens)
        self.drop2 = dropout_of(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop2(self.fc2(self.drop1(self.act(self.fc1(x)))))


class Block(nn.Module):
    """Mix positions, then channels, on scaled skips or branches: maps, or tokens (B, N, C) for attention."""

    def __init__(self, dim: int, mixer: str, act: str | None, legacy: bool, layer_scale: float | None,
                 res_scale: float | None, drop: float, drop_path: float):  # fmt: skip
        super().__init__()
        tokens = mixer == "attention"
        scales = [Scale(dim, layer_scale, tokens) if layer_scale else nn.Identity() for _ in range(2)]
        skips = [Scale(dim, res_scale, tokens) if res_scale else nn.Identity() for _ in range(2)]
        self.norm1 = block_norm(dim, mixer, legacy)
        self.token_mixer = make_mixer(mixer, dim, drop)
        self.drop_path1, self.layer_scale1, self.res_scale1 = drop_path_of(drop_path), scales[0], skips[0]
        self.norm2 = block_norm(dim, mixer, legacy)
        self.mlp = Mlp(dim, act, legacy, tokens, drop)
        self.drop_path2, self.layer_scale2, self.res_scale2 = drop_path_of(drop_path), scales[1], skips[1]

    def forward(self, x: Tensor) -> Tensor:
        x = self.res_scale1(x) + self.layer_scale1(self.drop_path1(self.token_mixer(self.norm1(x))))
        return self.res_scale2(x) + self.layer_scale2(self.drop_path2(self.mlp(self.norm2(x))))


class Stage(nn.Module):
    """Halve the map, then blocks; those that attend see its positions as tokens."""

    def __init__(self, downsample: nn.Module, blocks: list[nn.Module], tokens: bool):
        super().__init__()
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)
        self.tokens = tokens

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        if not self.tokens:
            return self.blocks(x)
        height, width = x.shape[2:]
        return self.blocks(x.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, (height, width))


class Stem(nn.Module):
    """(B, 3, H, W) -> (B, dim, H/4, W/4)."""

    def __init__(self, in_chans: int, dim: int, norm: nn.Module):
        super().__init__()
        self.conv = nn.Conv2d(in_chans, dim, 7, 4, 2)
        self.norm = norm

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))


class Downsample(nn.Module):
    """(B, C, H, W) -> (B, dim_out, H/2, W/2)."""

    def __init__(self, dim: int, dim_out: int, norm: nn.Module):
        super().__init__()
        self.norm = norm
        self.conv = nn.Conv2d(dim, dim_out, 3, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.norm(x))


class SquaredReLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.relu().square()


class MlpHead(nn.Module):
    """A classifier with a hidden layer: (B, C) -> (B, classes)."""

    def __init__(self, dim: int, num_classes: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, 4 * dim)
        self.act = SquaredReLU()
        self.norm = LayerNorm(4 * dim)
        self.fc2 = nn.Linear(4 * dim, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.norm(self.act(self.fc1(x))))


class MetaFormer(ImageModel):
    """`token_mixers` is "pool", "conv" or "attention", one for all stages or one each.

    `legacy` is the first paper's block: GELU, biases, no norm where the size changes.

    Args:
        token_mixers: "pool", "conv" or "attention", one name or one for each stage
        mlp_act: activation of the mlps; none for what `legacy` says
        legacy: the first paper's block: GELU, biases, no norm where the size changes
        res_scale: initial value of a learned scale on the shortcut, by stage; none for no scale
        mlp_head: an mlp as the classifier
    """

    exchanged = (Biases(("stages.*.mlp.fc[12]",), ("mlp_bias",)),)
    layer_groups = {
        "stem": r"^stem",
        "blocks": [(r"^stages\.(\d+)\.downsample", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)],
        "coarse": r"^stages\.(\d+)",
    }

    def __init__(self, depths: Sequence[int] = (3, 3, 9, 3), dims: Sequence[int] = (64, 128, 320, 512),
                 token_mixers: str | Sequence[str] = "conv", mlp_act: str | None = None, legacy: bool = False,
                 layer_scale: float | None = None, res_scale: Sequence[float | None] = (None, None, 1.0, 1.0),
                 mlp_head: bool = True, num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg",
                 drop_rate: float = 0.0, proj_drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        self.mlp_head = mlp_head
        self.stem = Stem(in_chans, dims[0], size_norm(dims[0], legacy))
        mixers = per_stage(token_mixers, len(dims))
        stages, levels = [], []
        for i, drops in enumerate(drop_path_rates(drop_path_rate, depths)):
            dim, mixer, skip = dims[i], mixers[i], None if legacy else res_scale[i]
            down = Downsample(dims[i - 1], dim, size_norm(dims[i - 1], legacy)) if i else nn.Identity()
            common = (dim, mixer, mlp_act, legacy, layer_scale, skip, proj_drop_rate)
            blocks: list[nn.Module] = [Block(*common, drop) for drop in drops]
            stages.append(Stage(down, blocks, mixer == "attention"))
            levels.append(Feature(dim, 4 * 2**i, f"stages.{i}"))
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        self.num_features = self.head_hidden_size = dims[-1]
        self.head = NormMlpHead(dims[-1], 0 if mlp_head else num_classes, global_pool, drop_rate, LayerNorm2d,
                                convs=False)  # fmt: skip
        if mlp_head and num_classes:
            self.head.fc = MlpHead(dims[-1], num_classes)
        for module in self.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, C, H/32, W/32)
        return self._through_stages(self.stem(x))

    def _heads(self) -> tuple[str, ...]:
        return ("head.fc.fc2",) if isinstance(self.head.fc, MlpHead) else ("head.fc",)

    def _new_head(self, index: int, num_classes: int, bias: bool) -> nn.Module:
        if isinstance(self.head.fc, MlpHead):
            return nn.Linear(self.head.fc.fc1.out_features, num_classes)
        if self.mlp_head:
            return MlpHead(self.head_hidden_size, num_classes)
        return super()._new_head(index, num_classes, bias)

    @torch.jit.ignore  # pyright: ignore[reportArgumentType]
    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """As everywhere; the hidden layer stays, and goes with the last class."""
        super().reset_classifier(num_classes, global_pool)
        if not num_classes:
            self.head.fc = nn.Identity()

    @torch.jit.ignore  # pyright: ignore[reportArgumentType]
    def fit_state(self, state: dict[str, Tensor]) -> list[str]:
        """Without classes the hidden layer before them has no place."""
        for key in [key for key in state if key.startswith("head.fc.") and not self.num_classes]:
            del state[key]
        return super().fit_state(state)


def unbiased(norm: nn.Module) -> nn.Module:
    norm.register_parameter("bias", None)
    return norm


def size_norm(dim: int, legacy: bool) -> nn.Module:
    """The norm beside a convolution that changes the size."""
    return nn.Identity() if legacy else unbiased(LayerNorm2d(dim))


def block_norm(dim: int, mixer: str, legacy: bool) -> nn.Module:
    """Over everything where the mixer is a mean, else over channels."""
    if legacy:
        return GroupNorm1(dim)
    if mixer == "pool":
        return unbiased(GroupNorm1(dim, eps=1e-6))
    return unbiased(LayerNorm(dim) if mixer == "attention" else LayerNorm2d(dim))

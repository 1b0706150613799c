"""EfficientViM (arXiv:2411.15241): state space mixers whose channels meet in a few hidden states."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from imgzoo.errors import UsageError
from imgzoo.model import Distilled, Feature, FeatureInfo, ImageModel, Parts
from imgzoo_layers.drop import drop_path_of, drop_path_rates
from imgzoo_layers.gate import SqueezeExcite
from imgzoo_layers.head import linear_or_none
from imgzoo_layers.init import init_linear_
from imgzoo_layers.norm import LayerNorm, LayerNorm2d
from imgzoo_layers.pool import GlobalPool


class ConvNorm(nn.Sequential):
    """Convolution, batch norm, perhaps ReLU; keys `conv` and `norm`."""

    def __init__(self, dim: int, dim_out: int, kernel: int = 1, stride: int = 1, groups: int = 1, act: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim_out, kernel, stride, kernel // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(dim_out)
        if act:
            self.act = nn.ReLU()


def depthwise(dim: int) -> ConvNorm:
    return ConvNorm(dim, dim, 3, groups=dim)


class Bare1d(nn.Sequential):
    """A pointwise convolution over tokens (B, C, N) -> (B, D, N); key `conv`."""

    def __init__(self, dim: int, dim_out: int):
        super().__init__()
        self.conv = nn.Conv1d(dim, dim_out, 1, bias=False)


class Bare2d(nn.Sequential):
    """A depthwise 3x3 convolution; key `conv`."""

    def __init__(self, dim: int):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim, 3, 1, 1, groups=dim, bias=False)


class HiddenStateMixer(nn.Module):
    """The HSM-SSD layer (section 3.2): gather the map into `states` vectors, mix their channels, spread them again.

    (B, C, H, W) -> the map and the hidden states (B, C, states).
    """

    def __init__(self, dim: int, states: int, expand: float):
        super().__init__()
        wide = int(expand * dim)
        self.A = nn.Parameter(torch.empty(states).uniform_(1, 16))
        self.D = nn.Parameter(torch.ones(1))
        self.BCdt_proj = Bare1d(dim, 3 * states)
        self.dw = Bare2d(3 * states)
        self.hz_proj = Bare1d(dim, 2 * wide)
        self.out_proj = Bare1d(wide, dim)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        size, x = (x.shape[2], x.shape[3]), x.flatten(2)
        gather, spread, step = self.dw(self.BCdt_proj(x).unflatten(2, size)).flatten(2).chunk(3, dim=1)
        weights = (step + self.A[:, None]).softmax(-1) * gather  # (B, states, HW)
        hidden, gate = self.hz_proj(x @ weights.transpose(1, 2)).chunk(2, dim=1)
        hidden = self.out_proj(hidden * (F.silu(gate) + self.D))
        return (hidden @ spread).unflatten(2, size), hidden


class Mlp(nn.Module):
    """Two pointwise convolutions with norms: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = ConvNorm(dim, hidden, act=True)
        self.fc2 = ConvNorm(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.fc1(x))


class Block(nn.Module):
    """Depthwise, mixer, depthwise, mlp; each takes a learned share of every channel. -> the map and hidden states."""

    def __init__(self, dim: int, mlp_ratio: float, states: int, expand: float, drop_path: float):
        super().__init__()
        self.alpha = nn.Parameter(torch.full((4, dim), 1e-4))
        self.mixer = HiddenStateMixer(dim, states, expand)
        self.norm = LayerNorm2d(dim, eps=1e-5)
        self.dwconv1 = depthwise(dim)
        self.dwconv2 = depthwise(dim)
        self.ffn = Mlp(dim, int(dim * mlp_ratio))
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        share = self.alpha.sigmoid()[:, :, None, None]
        x = x + self.drop_path(share[0] * (self.dwconv1(x) - x))  # what is skipped leaves x as it is
        y, hidden = self.mixer(self.norm(x))
        x = x + self.drop_path(share[1] * (y - x))
        x = x + self.drop_path(share[2] * (self.dwconv2(x) - x))
        return x + self.drop_path(share[3] * (self.ffn(x) - x)), hidden


class PatchMerging(nn.Module):
    """Halve the map: (B, C, H, W) -> (B, D, H/2, W/2)."""

    def __init__(self, dim: int, dim_out: int, ratio: float = 4.0):
        super().__init__()
        hidden = int(dim_out * ratio)
        self.conv = nn.Sequential(ConvNorm(dim, hidden, act=True), ConvNorm(hidden, hidden, 3, 2, hidden, act=True),
                                  SqueezeExcite(hidden, 0.25), ConvNorm(hidden, dim_out))  # fmt: skip
        self.dwconv1 = depthwise(dim)
        self.dwconv2 = depthwise(dim_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x + self.dwconv1(x))
        return x + self.dwconv2(x)


class Stem(nn.Module):
    """Four strided convolutions: (B, 3, H, W) -> (B, C, H/16, W/16)."""

    def __init__(self, widths: Sequence[int]):
        super().__init__()
        last = len(widths) - 2
        self.conv = nn.Sequential(*(
            ConvNorm(dim, out, 3, 2, act=i < last) for i, (dim, out) in enumerate(pairwise(widths))
        ))  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Stage(nn.Module):
    """Blocks, then a smaller map. -> what blocks made, the smaller map, the last hidden states."""

    def __init__(self, dim: int, dim_out: int, blocks: list[nn.Module]):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        self.downsample = PatchMerging(dim, dim_out) if dim_out else nn.Identity()

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = x
        for block in self.blocks:
            x, hidden = block(x)
        return x, self.downsample(x), hidden


class EfficientViM(ImageModel):
    """Every stage's hidden states and the last map have a classifier; their logits are weighed.

    Args:
        state_dim: hidden states of each stage
        ssd_expand: channels of the hidden states while they meet as a multiple of those of the map
    """

    parts = Parts(stem=("patch_embed",), pool="", head=tuple(f"heads.{i}" for i in range(4)), tail=())
    layer_groups = {
        "stem": r"^patch_embed",
        "blocks": [(r"^stages\.(\d+)\.blocks\.(\d+)", None), (r"^stages\.(\d+)\.downsample", (99999,)),
                   (r"^norm", (99999,))],
        "coarse": r"^stages\.(\d+)",
    }  # fmt: skip
    no_decay = ("*.mixer.D",)
    weighing = ("weights",)
    """The shares of the classifiers, one set for each set of them."""
    layout = "plain"

    def __init__(self, embed_dim: Sequence[int] = (128, 192, 320), depths: Sequence[int] = (2, 2, 2),
                 state_dim: Sequence[int] = (49, 25, 9), mlp_ratio: float = 4.0, ssd_expand: float = 1.0,
                 num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg", drop_rate: float = 0.0,
                 drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        dims, drops = list(embed_dim), drop_path_rates(drop_path_rate, list(depths))
        self._register_weights()
        widths = [in_chans, *(dims[0] // share for share in (8, 4, 2, 1))]
        self.patch_embed = Stem(widths)
        self.stages = nn.ModuleList(
            Stage(dim, after, [Block(dim, mlp_ratio, state_dim[i], ssd_expand, drop) for drop in drops[i]])
            for i, (dim, after) in enumerate(zip(dims, [*dims[1:], 0], strict=True))
        )
        self.feature_info = FeatureInfo(Feature(dim, 16 * 2**i, f"stages.{i}") for i, dim in enumerate(dims))
        self.norm = nn.ModuleList([*(LayerNorm(dim, eps=1e-5) for dim in dims), LayerNorm2d(dims[-1], eps=1e-5)])
        self.widths = [*dims, dims[-1]]
        self.num_features = self.head_hidden_size = sum(self.widths)
        self.pool = GlobalPool()
        self._set_pool(global_pool)
        self.head_drop = nn.Dropout(drop_rate)
        self.heads = nn.ModuleList(linear_or_none(dim, num_classes) for dim in self.widths)
        self._add_heads()
        init_linear_(self)

    def _register_weights(self) -> None:
        self.weights = nn.Parameter(torch.ones(4), requires_grad=self.num_classes > 0)

    def _add_heads(self) -> None:
        """Further classifiers of a subclass."""

    def forward_features(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]
        """(B, 3, H, W) -> normalized hidden states (B, C, states) of every stage, and the last map (B, C, N)."""
        x, hidden = self.patch_embed(x), []
        for stage in self.stages:
            _, x, states = stage(x)
            hidden.append(states)
        return self._normalized(x, hidden)

    def _normalized(self, x: Tensor, hidden: list[Tensor]) -> list[Tensor]:
        parts: list[Tensor] = []
        for i, norm in enumerate(self.norm):
            last = i == len(hidden)
            parts.append(norm(x).flatten(2) if last else norm(hidden[i].transpose(1, 2)).transpose(1, 2))
        return parts

    def forward_head(self, x: list[Tensor], pre_logits: bool = False) -> Tensor:  # type: ignore[override]
        pooled = [self.head_drop(part.mean(-1)) for part in x]
        if pre_logits or self.num_classes == 0:
            return torch.cat(pooled, dim=1)
        return self._logits(pooled)

    def _logits(self, x: list[Tensor]) -> Tensor:
        return weighed([head(x[i]) for i, head in enumerate(self.heads)], self.weights)

    def _advance(self, path: str, step: Any, x: Any) -> tuple[Any, dict[str, Any]]:
        """The state is the map and the hidden states so far."""
        if path == "patch_embed":
            return [step(x)], {}
        level, smaller, hidden = step(x[0])
        return [smaller, *x[1:], hidden], {path: level}

    def _level_normalized(self, x: Tensor, index: int) -> Tensor:
        return self.norm[index](x.movedim(1, -1)).movedim(-1, 1)

    def _final_norm(self, x: Any) -> list[Tensor]:
        return self._normalized(x[0], x[1:])

    def _cut(self, level: str, chosen: list[int]) -> None:
        self._drop([f"{level}.downsample"])

    def prune_intermediate_layers(self, indices: int | Sequence[int] = 1, prune_norm: bool = False,
                                  prune_head: bool = True) -> list[int]:  # fmt: skip
        """As everywhere; what is left still pools the hidden states of all its stages, and the map that it ends in."""
        if not prune_head and max(self._asked(indices)) < len(self.feature_info) - 1:
            raise UsageError("the classifiers read every stage: let prune_head=True drop them")
        chosen = super().prune_intermediate_layers(indices, False, prune_head)
        if not prune_head:
            self.norm = nn.ModuleList(nn.Identity() if prune_norm else norm for norm in self.norm)
            return chosen
        count = max(chosen) + 1
        kept = [norm if i in chosen and not prune_norm else nn.Identity() for i, norm in enumerate(self.norm)]
        self.stages, self.norm = self.stages[:count], nn.ModuleList([*kept[:count], nn.Identity()])
        self.widths = [*self.widths[:count], self.widths[count - 1]]
        for name in self.weighing:
            shares = self.get_parameter(name).detach()[: count + 1].clone()
            setattr(self, name, nn.Parameter(shares, requires_grad=False))
            path = f"heads{name.removeprefix('weights')}"
            heads: Any = self.get_submodule(path)
            setattr(self, path, heads[: count + 1])
        self.num_features = self.head_hidden_size = sum(self.widths)
        return chosen

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """As everywhere; without classifiers their shares do not learn, with new ones again."""
        before = self.num_classes
        super().reset_classifier(num_classes, global_pool)
        for name in self.weighing if (num_classes > 0) != (before > 0) else ():
            self.get_parameter(name).requires_grad_(num_classes > 0)

    def _heads(self) -> tuple[str, ...]:
        left = len(self.widths)
        return tuple(path for path in self.parts.head if int(path.rpartition(".")[2]) < left)

    def _new_head(self, index: int, num_classes: int, bias: bool) -> nn.Module:
        return nn.Linear(self.widths[index % len(self.widths)], num_classes)

    def pool_kind(self) -> str:
        return "avg"

    def _set_pool(self, global_pool: str) -> None:
        if global_pool != "avg":
            raise UsageError(f"hidden states pool by their mean: global_pool is 'avg', not '{global_pool}'")


class DistilledEfficientViM(EfficientViM, Distilled):  # whose forward_head stays
    """A second set of classifiers learns from a teacher."""

    parts = EfficientViM.parts._replace(
        head=tuple(f"{name}.{i}" for name in ("heads", "heads_dist") for i in range(4)),
    )
    weighing = ("weights", "weights_dist")

    def _register_weights(self) -> None:
        super()._register_weights()
        self.weights_dist = nn.Parameter(torch.ones(4), requires_grad=self.num_classes > 0)

    def _add_heads(self) -> None:
        self.heads_dist = nn.ModuleList(linear_or_none(dim, self.num_classes) for dim in self.widths)

    def _logits(self, x: list[Tensor]):
        first = weighed([head(x[i]) for i, head in enumerate(self.heads)], self.weights)
        second = weighed([head(x[i]) for i, head in enumerate(self.heads_dist)], self.weights_dist)
        return self.join_heads(first, second)


def weighed(logits: list[Tensor], weights: Tensor) -> Tensor:
    """The sum of logits (B, classes), each with its share of the weights."""
    share = weights.softmax(0)
    return torch.stack([share[i] * part for i, part in enumerate(logits)]).sum(0)

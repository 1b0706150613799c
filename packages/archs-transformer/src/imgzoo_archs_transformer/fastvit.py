"""FastViT: a pyramid whose convolutions, skips and norms merge for inference, attention last (arXiv:2303.14189)."""

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from imgzoo.errors import UsageError
from imgzoo.model import Feature, FeatureInfo, ImageModel
from imgzoo_layers.attention import Attention
from imgzoo_layers.channel_scale import ChannelScale2d
from imgzoo_layers.conv import ConvNormAct
from imgzoo_layers.drop import drop_path_of, drop_path_rates, dropout_of
from imgzoo_layers.exchange import Acts, Norms
from imgzoo_layers.gate import SqueezeExcite
from imgzoo_layers.head import ClassifierHead
from imgzoo_layers.init import trunc_normal_
from imgzoo_layers.norm import LayerNorm2d, Norm
from imgzoo_layers.reparam import Kernel, added, fold_norm, identity_kernel, merged
from imgzoo_layers.stage import shrinking

LinearConv = partial(ConvNormAct, apply_act=False)


def kernel_of(branch: Any) -> Kernel:
    return fold_norm(branch.conv.weight, branch.bn)


class MobileOneBlock(nn.Module):
    """One kxk, one 1x1 and identity, each with a norm, summed; gate, activation (arXiv:2206.04040, figure 3).

    `grouped` gives every input channel convolutions of its own; `pointed` is False without the 1x1.
    """

    def __init__(self, dim: int, dim_out: int, kernel: int, stride: int = 1, grouped: bool = False,
                 pointed: bool = True, gated: bool = False, active: bool = True):  # fmt: skip
        super().__init__()
        groups = dim if grouped else 1
        self.se = SqueezeExcite(dim_out, rd_divisor=1) if gated else nn.Identity()
        self.identity = nn.BatchNorm2d(dim) if dim == dim_out and stride == 1 else None
        self.conv_kxk: Any = nn.ModuleList([LinearConv(dim, dim_out, kernel, stride, groups=groups)])
        pointed = pointed and kernel > 1
        self.conv_scale = LinearConv(dim, dim_out, 1, stride, groups=groups) if pointed else None
        self.act = nn.GELU() if active else nn.Identity()
        self.reparam_conv: nn.Conv2d | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.reparam_conv is not None:
            return self.act(self.se(self.reparam_conv(x)))
        y = self.conv_kxk[0](x)
        if self.conv_scale is not None:
            y = added(y, self.conv_scale(x))
        if self.identity is not None:
            y = added(y, self.identity(x))
        return self.act(self.se(y))

    def kernels(self) -> list[Kernel]:
        found = [kernel_of(branch) for branch in (self.conv_kxk[0], self.conv_scale) if branch is not None]
        if self.identity is not None:
            conv = self.conv_kxk[0].conv
            found.append(fold_norm(identity_kernel(conv.out_channels, conv.groups, 1, conv.weight), self.identity))
        return found

    def reparameterize(self) -> None:
        """Replace the branches by one convolution, for inference."""
        if self.reparam_conv is None:
            self.reparam_conv = merged(self.conv_kxk[0].conv, self.kernels())
            self.identity = self.conv_kxk = self.conv_scale = None


class LargeKernelConv(nn.Module):
    """A large kernel and a 3x3 over each channel, summed; gate, activation (arXiv:2203.06717)."""

    def __init__(self, dim: int, dim_out: int, gated: bool, active: bool, kernel: int = 7, stride: int = 2):
        super().__init__()
        self.large_conv: Any = LinearConv(dim, dim_out, kernel, stride, groups=dim)
        self.small_conv: Any = LinearConv(dim, dim_out, 3, stride, groups=dim)
        for conv in (self.large_conv.conv, self.small_conv.conv):  # the map over the stride, rounded up
            conv.padding = ((conv.kernel_size[0] + stride - 2) // 2,) * 2
        self.se = SqueezeExcite(dim_out, 0.25, rd_divisor=1) if gated else nn.Identity()
        self.act = nn.GELU() if active else nn.Identity()
        self.reparam_conv: nn.Conv2d | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.reparam_conv is not None:
            return self.act(self.se(self.reparam_conv(x)))
        return self.act(self.se(added(self.large_conv(x), self.small_conv(x))))

    def reparameterize(self) -> None:
        """Replace the branches by one convolution, for inference."""
        if self.reparam_conv is None:
            self.reparam_conv = merged(self.large_conv.conv, [kernel_of(self.large_conv), kernel_of(self.small_conv)])
            self.large_conv = self.small_conv = None


class Norm2d(nn.Module):
    """A batch norm under the key `identity`."""

    def __init__(self, dim: int):
        super().__init__()
        self.identity = nn.BatchNorm2d(dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.identity(x)


class RepMixer(nn.Module):
    """x + scale * (mix(x) - norm(x)), each channel by itself, so that all of it merges (equation 3)."""

    def __init__(self, dim: int, layer_scale: float, kernel: int):
        super().__init__()
        self.norm: Any = Norm2d(dim)
        self.mixer: Any = MobileOneBlock(dim, dim, kernel, grouped=True, active=False)
        self.layer_scale: Any = ChannelScale2d(dim, layer_scale)
        self.reparam_conv: nn.Conv2d | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.reparam_conv is not None:
            return self.reparam_conv(x)
        return x + self.layer_scale(self.mixer(x) - self.norm(x))

    @torch.no_grad()
    def reparameterize(self) -> None:
        """Replace mixing, norm, scale and skip by one convolution, for inference."""
        if self.reparam_conv is not None:
            return
        conv, scale = self.mixer.conv_kxk[0].conv, self.layer_scale.gamma
        eye = identity_kernel(conv.out_channels, conv.groups, 1, conv.weight)
        weight, shift = fold_norm(eye, self.norm.identity)
        branches = [*self.mixer.kernels(), (-weight, -shift)]
        scaled = [(scale[..., None] * weight, scale.flatten() * shift) for weight, shift in branches]
        self.reparam_conv = merged(conv, [*scaled, (eye, torch.zeros_like(shift))])
        self.norm = self.mixer = self.layer_scale = None


class PositionalEncoding(nn.Module):
    """x plus a 7x7 convolution of each channel (arXiv:2102.10882): (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int):
        super().__init__()
        self.pos_enc: Any = nn.Conv2d(dim, dim, 7, padding=3, groups=dim)
        self.reparam_conv: nn.Conv2d | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.reparam_conv is not None:
            return self.reparam_conv(x)
        return x + self.pos_enc(x)

    def reparameterize(self) -> None:
        """Let the convolution hold the skip, for inference."""
        if self.reparam_conv is None:
            conv = self.pos_enc
            eye = identity_kernel(conv.out_channels, conv.groups, 1, conv.weight)
            self.reparam_conv = merged(conv, [(conv.weight, conv.bias), (eye, torch.zeros_like(conv.bias))])
            self.pos_enc = None


class ConvMlp(nn.Module):
    """A 7x7 of each channel with a norm, then two pointwise layers: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, hidden: int, drop: float):
        super().__init__()
        self.conv = LinearConv(dim, dim, 7, groups=dim)
        self.fc1 = nn.Conv2d(dim, hidden, 1)
        self.act = nn.GELU()
        self.fc2 = nn.Conv2d(hidden, dim, 1)
        self.drop = dropout_of(drop)
        for module in (self.conv.conv, self.fc1, self.fc2):
            trunc_normal_(cast(Tensor, module.weight), std=0.02)
        for module in (self.fc1, self.fc2):
            nn.init.constant_(cast(Tensor, module.bias), 0.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(self.conv(x))))))


class RepMixerBlock(nn.Module):
    """Mix space by convolution, then channels: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, mlp_ratio: float, norm: Norm, layer_scale: float, drop: float, drop_path: float,
                 kernel: int = 3):  # fmt: skip
        super().__init__()
        self.token_mixer = RepMixer(dim, layer_scale, kernel)
        self.mlp = ConvMlp(dim, int(dim * mlp_ratio), drop)
        self.layer_scale = ChannelScale2d(dim, layer_scale)
        self.drop_path = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = self.token_mixer(x)
        return x + self.drop_path(self.layer_scale(self.mlp(x)))


class MapAttention(Attention):
    """Self-attention between the positions of a map: (B, C, H, W) -> (B, C, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[2:]
        qkv = self.qkv(x.flatten(2).transpose(1, 2)).unflatten(2, (3, self.num_heads, self.head_dim))
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        y = self.proj(self.attend(q, k, v).transpose(1, 2).flatten(2))
        return y.transpose(1, 2).unflatten(2, (height, width))


class AttentionBlock(nn.Module):
    """Mix space by attention in heads of 32, then channels: (B, C, H, W) -> (B, C, H, W)."""

    def __init__(self, dim: int, mlp_ratio: float, norm: Norm, layer_scale: float, drop: float, drop_path: float):
        super().__init__()
        self.norm = norm(dim)
        self.token_mixer = MapAttention(dim, dim // 32, qkv_bias=False)
        self.layer_scale_1 = ChannelScale2d(dim, layer_scale)
        self.drop_path1 = drop_path_of(drop_path)
        self.mlp = ConvMlp(dim, int(dim * mlp_ratio), drop)
        self.layer_scale_2 = ChannelScale2d(dim, layer_scale)
        self.drop_path2 = drop_path_of(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path1(self.layer_scale_1(self.token_mixer(self.norm(x))))
        return x + self.drop_path2(self.layer_scale_2(self.mlp(x)))


class Downsample(nn.Module):
    """Shrink the map by the stride: (B, C, H, W) -> (B, dim_out, H/2, W/2)."""

    def __init__(self, dim: int, dim_out: int, gated: bool, active: bool, kernel: int, stride: int):
        super().__init__()
        large = LargeKernelConv(dim, dim_out, gated, active, kernel, stride)
        self.proj = nn.Sequential(large, MobileOneBlock(dim_out, dim_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x)


class Stage(nn.Module):
    """A change of size, a positional encoding before attention, then blocks that keep the size."""

    def __init__(self, downsample: nn.Module, pos_emb: nn.Module, blocks: list[nn.Module]):
        super().__init__()
        self.downsample = downsample
        self.pos_emb = pos_emb
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(self.pos_emb(self.downsample(x)))


class FastVit(ImageModel):
    """`attention` counts the last stages that attend; `gated` those whose change of size has a gate (MobileCLIP).

    Args:
        kernel: side of the convolutions that mix space in the other stages
        attention: stages at the end that attend
        gated: downsamplings at the end with squeeze-excite
        downsamples: whether each stage begins with a downsampling, as those that widen do; none for all but the first
        down_kernel: side of the kernels of downsamplings, odd and at least 3
        down_stride: stride of downsamplings
        cls_ratio: channels behind the last stage as a multiple of its own
        downsample_act: an activation behind each downsampling
        stem_scale: a branch of scales in the stem
        layer_norm: layer norms in blocks that attend
    """

    exchanged = (Acts("gelu"), Norms("*2d", ("stages.*.blocks.[0-9].norm", "stages.*.blocks.[0-9][0-9].norm")))
    default_levels = (0, 1, 2, 3)
    parts = ImageModel.parts._replace(norm=("final_conv",))
    layer_groups = {
        "stem": r"^stem",
        "blocks": [
            (r"^stages\.(\d+).downsample", (0,)),
            (r"^stages\.(\d+).pos_emb", (0,)),
            (r"^stages\.(\d+)\.\w+\.(\d+)", None),
        ],
        "coarse": r"^stages\.(\d+)",
    }

    def __init__(self, depths: Sequence[int] = (2, 2, 6, 2), embed_dims: Sequence[int] = (64, 128, 256, 512),
                 mlp_ratio: float = 4.0, kernel: int = 3, attention: int = 0, gated: int = 0,
                 downsamples: Sequence[bool] | None = None, down_kernel: int = 7, down_stride: int = 2,
                 downsample_act: bool = False,
                 stem_scale: bool = True, layer_norm: bool = False, layer_scale: float = 1e-5, cls_ratio: float = 2.0,
                 num_classes: int = 1000, in_chans: int = 3, global_pool: str = "avg",
                 drop_rate: float = 0.0, proj_drop_rate: float = 0.0, drop_path_rate: float = 0.0):  # fmt: skip
        super().__init__(num_classes, in_chans)
        dim, count = embed_dims[0], len(depths)
        self.stem = nn.Sequential(
            MobileOneBlock(in_chans, dim, 3, 2, pointed=stem_scale),
            MobileOneBlock(dim, dim, 3, 2, grouped=True, pointed=stem_scale),
            MobileOneBlock(dim, dim, 1),
        )
        norm = partial(LayerNorm2d, eps=1e-5) if layer_norm else nn.BatchNorm2d
        shrinks = shrinking(downsamples, embed_dims)
        if down_kernel < 3 or down_kernel % 2 == 0:
            raise UsageError(f"down_kernel is odd and at least 3, the side of its small branch, not {down_kernel}")
        stages, levels, reached = [], [], 4
        for i, drops in enumerate(drop_path_rates(drop_path_rate, depths)):
            down: nn.Module = nn.Identity()
            if shrinks[i]:
                reached *= down_stride
                down = Downsample(dim, embed_dims[i], i >= count - gated, downsample_act, down_kernel, down_stride)
            dim, attends = embed_dims[i], i >= count - attention
            block = AttentionBlock if attends else partial(RepMixerBlock, kernel=kernel)
            common = (dim, mlp_ratio, norm, layer_scale, proj_drop_rate)
            blocks: list[nn.Module] = [block(*common, drop) for drop in drops]
            stages.append(Stage(down, PositionalEncoding(dim) if attends else nn.Identity(), blocks))
            levels.append(Feature(dim, reached, f"stages.{i}"))
        self.stages = nn.Sequential(*stages)
        self.feature_info = FeatureInfo(levels)
        last = self.num_features = int(dim * cls_ratio)
        self.final_conv = MobileOneBlock(dim, last, 3, grouped=True, gated=True)
        self.head = ClassifierHead(last, num_classes, global_pool, drop_rate)
        self.head_hidden_size = last * self.head.global_pool.width
        for module in self.modules():
            if isinstance(module, nn.Linear):
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward_features(self, x: Tensor) -> Tensor:  # (B, 3, H, W) -> (B, 2C, H/32, W/32)
        return self.final_conv(self.stages(self.stem(x)))

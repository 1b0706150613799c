"""Hybrids: a ViT over the maps of a convolutional network (arXiv:2010.11929, section 3.1) and MobileCLIP-B's stem."""

from collections import OrderedDict
from typing import Any, NamedTuple

from torch import Tensor, nn

from imgzoo.model import ImageModel
from imgzoo.model.tables import pair
from imgzoo.registry import registry
from imgzoo_layers.act import GELU
from imgzoo_layers.norm import Norm
from imgzoo_layers.norm_act import BatchNormAct2d, GroupNormAct
from imgzoo_layers.padding import pad_to_multiple
from imgzoo_layers.pool import MaxPool2dSame
from imgzoo_layers.std_conv import StdConv2d
from imgzoo_layers.tables import GridTable

from .vision_transformer import VisionTransformer


class ConvNorm(nn.Module):
    """Patches of patches, with norm and activation between: (B, C, H, W) -> (B, D, H/s, W/s)."""

    def __init__(self, dim: int, dim_out: int, stride: int, last: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(dim, dim_out, stride, stride, bias=last)
        self.bn = nn.Identity() if last else BatchNormAct2d(dim_out, act=GELU)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x))


class Stem(nn.Sequential):
    """A short stack of layers in place of a network."""

    def forward_features(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return x


class Trunk(NamedTuple):
    """What makes the map, and the channels and the stride of that map."""

    network: nn.Module
    channels: int
    reduction: int


def resnet_stem(in_chans: int) -> Trunk:
    """The first layers of BiT's ResNet, 64 channels at stride 4."""
    conv = StdConv2d(in_chans, 64, 7, 2, padding="same", eps=1e-8)
    return Trunk(Stem(OrderedDict(conv=conv, norm=GroupNormAct(64), pool=MaxPool2dSame(3, 2))), 64, 4)


def conv_stem(in_chans: int, dim: int) -> Trunk:
    """MobileCLIP-B: three convolutions without overlap (arXiv:2311.17049)."""
    width = dim // 4
    layers = (ConvNorm(in_chans, width, 4), ConvNorm(width, width, 2), ConvNorm(width, dim, 2, last=True))
    return Trunk(Stem(*layers), dim, 16)


def registered(name: str, level: int, in_chans: int, options: dict[str, Any]) -> Trunk:
    """A network that any plugin brings, cut behind one of its levels."""
    spec = registry("models").resolve(name)
    network = spec.load()(**{**spec.kwargs, **options, "in_chans": in_chans, "num_classes": 0})
    channels, reduction, _ = network.feature_info.levels[level]
    network.prune_intermediate_layers([level])
    return Trunk(network, channels, reduction)


class HybridEmbed(nn.Module):
    """Tokens from the maps of a network: (B, 3, H, W) -> (B, N, C); without patches its positions are the tokens.

    With `pad` maps are filled up to whole patches.
    """

    def __init__(
        self, trunk: Trunk, patch_size: tuple[int, int] | None, dim: int, bias: bool = True, pad: bool = False
    ):
        super().__init__()
        self.backbone: Any = trunk.network
        self.proj: nn.Module = nn.Identity()
        if patch_size is not None:
            self.proj = nn.Conv2d(trunk.channels, dim, patch_size, patch_size, bias=bias)
        self.pad = patch_size if pad else None

    def forward(self, x: Tensor) -> Tensor:
        return self.map_of(x).flatten(2).transpose(1, 2)

    def map_of(self, x: Tensor) -> Tensor:
        """The same as a map (B, C, H/p, W/p)."""
        x = self.backbone.forward_features(x)
        if self.pad is not None:
            x = pad_to_multiple(x.permute(0, 2, 3, 1), self.pad).permute(0, 3, 1, 2)
        return self.proj(x)


class HybridVisionTransformer(VisionTransformer):
    """`backbone` is a registered name, cut at `backbone_level`, or "resnet_stem" or "conv_stem".

    Args:
        backbone: name of the network that makes the map, or "resnet_stem" or "conv_stem"
        backbone_level: level of it that is taken
        backbone_options: options of its constructor
        patch_size: side of a patch in positions of the backbone's map, not in pixels
    """

    tables = {"pos_embed": GridTable()}  # patches are those of the backbone
    settled = ("embed_norm",)

    def __init__(
        self,
        backbone: str = "resnet26d",
        backbone_level: int = -1,
        backbone_options: dict[str, Any] | None = None,
        patch_size: int | tuple[int, int] = 1,
        in_chans: int = 3,
        embed_dim: int = 768,
        dynamic_img_pad: bool = False,
        **options: Any,
    ):
        side = pair(patch_size, "patch_size")
        if backbone == "conv_stem":
            trunk = conv_stem(in_chans, embed_dim)
            if side != (1, 1):
                raise ValueError(f"conv_stem makes the patches itself: patch_size is 1, not {patch_size}")
        elif backbone == "resnet_stem":
            trunk = resnet_stem(in_chans)
        else:
            trunk = registered(backbone, backbone_level, in_chans, backbone_options or {})
        self.map_stride, self.map_whole = trunk.reduction, backbone == "conv_stem"
        self.sees_rest = dynamic_img_pad or side == (1, 1)
        self._embed = trunk, None if self.map_whole else side
        pixels = side[0] * trunk.reduction, side[1] * trunk.reduction
        super().__init__(patch_size=pixels, in_chans=in_chans, embed_dim=embed_dim,
                         dynamic_img_pad=dynamic_img_pad, **options)  # fmt: skip

    def make_patch_embed(self, in_chans: int, norm: Norm | None, bias: bool) -> nn.Module:
        trunk, side = self.__dict__.pop("_embed")  # held by the module from now on
        return HybridEmbed(trunk, side, self.embed_dim, bias, self.dynamic_img_pad)

    def grid_of(self, height: int, width: int) -> tuple[int, int]:
        """Patches of the backbone's map, which covers all of the image, or whole steps of it."""
        step = self.map_stride
        high, wide = (height // step, width // step) if self.map_whole else (-(height // -step), -(width // -step))
        down, across = self.patch_size[0] // step, self.patch_size[1] // step
        return (-(high // -down), -(wide // -across)) if self.dynamic_img_pad else (high // down, wide // across)

    def _blocks(self) -> list[nn.Module]:
        embed: Any = self.patch_embed
        network = embed.backbone
        return [*(network._blocks() if isinstance(network, ImageModel) else ()), *super()._blocks()]

"""Hybrids: a ViT over the maps of a convolutional network (arXiv:2010.11929, section 3.1) and MobileCLIP-B's stem."""

from collections import OrderedDict
from typing import Any

from torch import Tensor, nn

from imgzoo.model import ImageModel
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


def resnet_stem(in_chans: int) -> nn.Module:
    """The first layers of BiT's ResNet, 64 channels at stride 4."""
    conv = StdConv2d(in_chans, 64, 7, 2, padding="same", eps=1e-8)
    return Stem(OrderedDict(conv=conv, norm=GroupNormAct(64), pool=MaxPool2dSame(3, 2)))


def conv_stem(in_chans: int, dim: int) -> nn.Module:
    """MobileCLIP-B: three convolutions without overlap (arXiv:2311.17049)."""
    width = dim // 4
    return Stem(ConvNorm(in_chans, width, 4), ConvNorm(width, width, 2), ConvNorm(width, dim, 2, last=True))


def registered(name: str, level: int, in_chans: int, options: dict[str, Any]) -> tuple[nn.Module, int, int]:
    """A network that any plugin brings, cut behind one of its levels; its channels and stride there."""
    spec = registry("models").resolve(name)
    network = spec.load()(**{**spec.kwargs, **options, "in_chans": in_chans, "num_classes": 0})
    channels, reduction, _ = network.feature_info.levels[level]
    network.prune_intermediate_layers([level])
    return network, channels, reduction


def backbone_of(name: str, level: int, in_chans: int, dim: int, options: dict[str, Any]) -> tuple[nn.Module, int, int]:
    """A network by its name, or one of the stems; channels and stride of its map."""
    if name == "conv_stem":
        return conv_stem(in_chans, dim), dim, 16
    return (resnet_stem(in_chans), 64, 4) if name == "resnet_stem" else registered(name, level, in_chans, options)


class HybridEmbed(nn.Module):
    """Tokens from the maps of a network: (B, 3, H, W) -> (B, N, C); with `pad` maps are filled up to whole patches."""

    def __init__(self, backbone: nn.Module, proj: nn.Module, pad: tuple[int, int] | None = None):
        super().__init__()
        self.backbone: Any = backbone
        self.proj = proj
        self.pad = pad

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
        patch_size: side in pixels that a patch of the backbone's map stands for
    """

    tables = {"pos_embed": GridTable()}  # patches are those of the backbone

    def __init__(
        self,
        backbone: str = "resnet26d",
        backbone_level: int = -1,
        backbone_options: dict[str, Any] | None = None,
        patch_size: int = 32,
        in_chans: int = 3,
        embed_dim: int = 768,
        dynamic_img_pad: bool = False,
        **options: Any,
    ):
        made = backbone_of(backbone, backbone_level, in_chans, embed_dim, backbone_options or {})
        self._made, self.map_stride, self.map_whole = made[:2], made[2], backbone == "conv_stem"
        if patch_size % self.map_stride:
            raise ValueError(
                f"patch_size is in pixels, a multiple of the backbone's stride {self.map_stride}, not {patch_size}"
            )
        self.sees_rest = dynamic_img_pad or patch_size == self.map_stride
        super().__init__(patch_size=patch_size, in_chans=in_chans, embed_dim=embed_dim,
                         dynamic_img_pad=dynamic_img_pad, **options)  # fmt: skip

    def make_patch_embed(self, in_chans: int, norm: Norm | None, bias: bool) -> nn.Module:
        network, channels = self.__dict__.pop("_made")
        if self.map_whole:
            return HybridEmbed(network, nn.Identity())
        side = self.patch_size[0] // self.map_stride
        proj = nn.Conv2d(channels, self.embed_dim, side, side, bias=bias)
        return HybridEmbed(network, proj, (side, side) if self.dynamic_img_pad else None)

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

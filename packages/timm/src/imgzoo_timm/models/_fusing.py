"""Parts of mobile networks as the single layer that they amount to, under the keys of the field's fused networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from imgzoo_archs_cnn import repvit
from imgzoo_archs_efficientnet import ghostnet
from imgzoo_archs_transformer import efficientvim, iformer, levit, nextvit, shvit
from imgzoo_layers import conv, norm_linear, std_conv
from imgzoo_layers.reparam import fold_norm, identity_kernel, merged


def into(layer: Any, weight: torch.Tensor, bias: torch.Tensor) -> Any:
    """A layer with other weights, in place."""
    layer.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)
    layer.bias = nn.Parameter(bias, requires_grad=layer.weight.requires_grad)
    return layer


def taken_in(layer: Any, norm: Any) -> nn.Module:
    """A linear layer, or pointwise convolution, that does what the batch norm before it did."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * scale
    bias = layer.weight.flatten(1) @ shift + layer.bias
    weight = layer.weight.flatten(1) * scale
    return into(layer, weight.view_as(layer.weight).detach(), bias.detach())


def pair(part: Any) -> nn.Module | None:
    """A layer and the batch norm behind it."""
    layer, norm = part.children()
    if not isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d):
        return None
    return into(layer, *fold_norm(layer.weight, norm, layer.bias))


def norm_away(part: Any) -> nn.Module | None:
    """The same, with the layer where it was."""
    if isinstance(part.norm, nn.BatchNorm2d):
        into(part.conv, *fold_norm(part.conv.weight, part.norm))
        part.norm = nn.Identity()
    return None


def norm_linear_of(part: Any) -> nn.Module | None:
    """A batch norm and the linear layer behind it."""
    norm, linear = part.bn, list(part.children())[-1]
    return taken_in(linear, norm) if isinstance(linear, nn.Linear) else None


def two_heads(part: Any) -> nn.Module | None:
    """The mean of two classifiers; one that learned from no teacher is itself."""
    first, second = part.head, part.head_dist
    if second is None or not isinstance(first, nn.Linear):
        return first
    bias = (first.bias + second.bias) / 2
    return into(first, ((first.weight + second.weight) / 2).detach(), bias.detach())


def residual(part: Any) -> nn.Module | None:
    """x + m(x) of a convolution with its norm."""
    if not isinstance(part.m, conv.ConvBn):
        return None
    layer: Any = part.m.c
    eye = identity_kernel(layer.out_channels, layer.groups, 1, layer.weight)
    return merged(layer, [fold_norm(layer.weight, part.m.bn), (eye, torch.zeros_like(layer.weight[:, 0, 0, 0]))])


def branches(part: Any) -> nn.Module | None:
    """Branches that merge by the network's own method."""
    part.reparameterize()
    return part.reparam_conv


def ghost(part: Any) -> nn.Module | None:
    """Branches that merge by the network's own method, each a sequence of one convolution in the field."""
    part.reparameterize()
    for name in ("primary_conv", "cheap_operation"):
        if isinstance(getattr(part, name, None), nn.Conv2d):
            setattr(part, name, nn.Sequential(getattr(part, name)))
    return None


def mlp_norm(part: Any, name: str = "norm") -> nn.Module | None:
    """A block of Next-ViT whose mlp takes in the norm before it."""
    if isinstance(getattr(part, name), nn.BatchNorm2d):
        taken_in(part.mlp.fc1, getattr(part, name))
        setattr(part, name, nn.Identity())
    return None


def attention_norms(part: Any) -> nn.Module | None:
    """One that attends: the mean of positions, between two norms, may as well follow the second."""
    attn = part.e_mhsa
    for norm, layers in ((attn.norm, (attn.k, attn.v)), (part.norm1, (attn.q, attn.k, attn.v))):
        for layer in layers if isinstance(norm, nn.BatchNorm1d | nn.BatchNorm2d) else ():
            taken_in(layer, norm)
    attn.norm, part.norm1 = nn.Identity(), nn.Identity()
    return mlp_norm(part, "norm2")


def as_it_is(part: Any) -> None:
    """Standardized kernels, which the field keeps as parameters."""


class MergedBlock(efficientvim.Block):
    """A block of EfficientViM whose depthwise convolutions have the rest of the map in them."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        share = self.alpha.sigmoid()[:, :, None, None]
        x = self.dwconv1(x)
        y, hidden = self.mixer(self.norm(x))
        x = self.dwconv2(x + share[1] * (y - x))
        return x + share[3] * (self.ffn(x) - x), hidden


class MergedMerging(efficientvim.PatchMerging):
    """Its merging of patches with the residuals in the convolutions."""

    def forward(self, x: Tensor) -> Tensor:
        return self.dwconv2(self.conv(self.dwconv1(x)))


def shares(part: Any) -> nn.Module | None:
    """What a convolution takes of each channel, and what the map keeps."""
    taken = part.alpha.sigmoid()
    with_rest(part.dwconv1, taken[0], 1 - taken[0])
    with_rest(part.dwconv2, taken[2], 1 - taken[2])
    return turned(part, MergedBlock)


def residuals(part: Any) -> nn.Module | None:
    for each in (part.dwconv1, part.dwconv2):
        with_rest(each, 1.0, 1.0)
    return turned(part, MergedMerging)


def turned(part: nn.Module, kind: type[nn.Module]) -> None:
    part.__dict__.pop("adopted_from", None)
    part.__class__ = kind


def with_rest(part: Any, taken: Any, kept: Any) -> None:
    """A depthwise convolution with its norm, `taken`, and its input, `kept`, as one convolution."""
    norm_away(part)
    layer = part.conv
    eye = identity_kernel(layer.out_channels, layer.groups, layer.kernel_size[0], layer.weight)
    rest = torch.as_tensor(kept).view(-1, 1, 1, 1) * eye
    into(layer, (torch.as_tensor(taken).view(-1, 1, 1, 1) * layer.weight + rest).detach(),
         (taken * layer.bias).detach())  # fmt: skip


FUSED: dict[type, Callable[[Any], nn.Module | None]] = {
    conv.ConvBn: pair, conv.ConvNorm: pair, levit.ConvNorm: pair, levit.LinearNorm: pair,
    efficientvim.ConvNorm: norm_away, efficientvim.Block: shares, efficientvim.PatchMerging: residuals,
    nextvit.ConvBlock: mlp_norm, nextvit.TransformerBlock: attention_norms,
    norm_linear.NormLinear: norm_linear_of, norm_linear.TwoHeads: two_heads,
    **dict.fromkeys((std_conv.StdConv2d, std_conv.ScaledStdConv2d), as_it_is),
    shvit.Residual: residual, repvit.RepVggDw: branches, iformer.Position: branches, ghostnet.GhostV3: ghost,
}  # fmt: skip
UNFUSED = {"efficientformer_v2"}
"""Families of such parts that stay as they are in the field."""
INSIDE_FIRST = {norm_linear.TwoHeads}
"""Parts that read their own as they are then."""


@torch.no_grad()
def reparameterized(model: nn.Module) -> nn.Module:
    """A network in place: by `FUSED`, or by what a part can do itself."""
    for name, child in list(model.named_children()):
        kind = child.__dict__.get("adopted_from", type(child))
        if kind in INSIDE_FIRST:
            reparameterized(child)
        made = FUSED[kind](child) if kind in FUSED else by_itself(child)
        if made is None:
            reparameterized(child)
        elif made is not child:
            setattr(model, name, made)
    return model


def by_itself(part: Any) -> nn.Module | None:
    """What a part makes of itself, by any of the methods that the field has for it."""
    for method in ("fuse", "reparameterize", "switch_to_deploy"):
        if callable(getattr(part, method, None)):
            made = getattr(part, method)()
            return made if isinstance(made, nn.Module) else None
    return None

"""What clients read of the parts of a finished network, beside what adapters have."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

from torch import nn

from imgzoo_archs_cnn import resnet
from imgzoo_archs_efficientnet import blocks
from imgzoo_archs_transformer import beit, eva, swin_transformer, swin_transformer_v2, swin_transformer_v2_cr
from imgzoo_layers import window
from imgzoo_layers.rotary_attention import RotaryAttention

Told = dict[str, Any]


def of_shifted(block: Any) -> Told:
    """A block of Swin, which tells of its windows itself (`_families.WindowedBlock`)."""
    dim = block.norm1.normalized_shape[0]
    return {"dim": dim, "mlp_ratio": block.mlp.fc1.out_features / dim, "num_heads": block.attn.num_heads}


def of_window(attn: Any) -> Told:
    return {"window_size": attn.window}


def of_merging(part: Any) -> Told:
    return {"dim": part.reduction.in_features // 4, "out_dim": part.reduction.out_features}


def of_dim(attn: Any) -> Told:
    return {"dim": attn.qkv.in_features}


def of_turning(attn: Any) -> Told:
    return {"rotate_half": attn.halves}


def of_mobile(block: Any) -> Told:
    return {"has_skip": block.skip}


TELL: dict[type, Callable[[Any], Told]] = {
    swin_transformer.Block: of_shifted, swin_transformer_v2.Block: of_shifted,
    swin_transformer.PatchMerging: of_merging, swin_transformer_v2.PatchMerging: of_merging,
    **dict.fromkeys((RotaryAttention, *eva.ATTENTION.values()), of_turning),
    window.WindowAttention: of_dim, beit.Attention: of_window,
    **{each: of_mobile for each in vars(blocks).values() if isinstance(each, type) and issubclass(each, nn.Module)
       and each.__module__ == blocks.__name__},
}  # fmt: skip
"""What each kind of part tells, by its native class."""


def stage_of(model: Any, level: str) -> int:
    """How many stages a level has behind it and in it: none at the stem, all at what follows the last one."""
    owner, _, place = level.partition(".")
    if owner in ("blocks", "stages"):
        return int(place.partition(".")[0]) + 1
    return len(model.stages) if owner == "final_conv" else 0


COUNTED = {"byobnet", "efficientnet", "mobilenetv3", "mobilenetv5"}
"""Families whose rows of levels count stages."""


def tell_rows(model: Any) -> None:
    """Let the rows of the levels hold what those of the family hold in the field beside channels and strides."""
    family = type(model).__module__.rpartition(".")[2]
    for row in model.feature_info.info:
        if family in COUNTED:
            row["stage"] = stage_of(model, row["module"])
        elif family == "rdnet":
            row["growth_rate"] = len(model.get_submodule(row["module"])[-1][-1].gamma)
    if family == "vision_transformer_sam":
        tell_normed(model)


def tell_normed(model: Any) -> None:
    """Let the rows of SAM's levels hold the channels behind the neck, as far as there is one."""
    convs = [part for part in model.neck.children() if isinstance(part, nn.Conv2d)]
    model.feature_info = deepcopy(model.feature_info)  # that of a network with the same tensors has its neck yet
    for row in model.feature_info.info:
        row["num_chs_norm"] = convs[-1].out_channels if convs else row["num_chs"]


def tell_parts(model: Any) -> None:
    """Let the parts have the attributes of `TELL`; those that a class answers itself stay."""
    for part in model.modules():
        kind = part.__dict__.get("adopted_from", type(part))
        if kind in TELL and (kind.__module__ != blocks.__name__ or hasattr(part, "skip")):
            own = {name: each for name, each in TELL[kind](part).items() if not hasattr(type(part), name)}
            part.__dict__.update(own)
    if isinstance(model, swin_transformer.SwinTransformer):
        tell_swin_stages(model)
    if isinstance(model, resnet.ResNet):
        for block, stride in residual_blocks(model):
            block.__dict__.update(stride=stride, dilation=block.conv2.dilation[0])


def tell_swin_stages(model: Any) -> None:
    """Let the stages of any Swin tell of their width, blocks and sizes."""
    for i, (_, stage) in enumerate(model._stages()):
        before = max(i - 1, 0)
        told = {"dim": model.feature_info.levels[before].channels, "depth": len(stage.blocks),
                "input_resolution": model.resolution(before), "output_resolution": model.resolution(i)}  # fmt: skip
        of_maps = isinstance(model, swin_transformer_v2_cr.SwinTransformerV2Cr)
        stage.__dict__.update({"feat_size": model.resolution(i)} if of_maps else told)


def residual_blocks(model: Any) -> Iterator[tuple[Any, int]]:
    """The blocks of the plain ResNet, each with its stride."""
    steps = [level.reduction for level in model.feature_info.levels]
    for i in range(1, len(steps)):
        for j, block in enumerate(getattr(model, f"layer{i}", ())):
            kind = block.__dict__.get("adopted_from", type(block))
            if kind in (resnet.BasicBlock, resnet.Bottleneck):
                yield block, steps[i] // steps[i - 1] if i > 1 and j == 0 else 1

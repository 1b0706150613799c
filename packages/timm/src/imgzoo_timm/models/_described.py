"""What networks tell of themselves: the configuration that clients read, and the sizes of the patch embedding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

import imgzoo
from imgzoo.loading.adapt import first_conv
from imgzoo_timm.layers._helpers import to_2tuple
from imgzoo_timm.layers._patch_embed import PatchEmbed

from ._features import family_of
from ._positions import EmbedOfNetwork
from ._pretrained import of_arrays, papers_of, spelled_license

UNPADDED = {"inception_v3": 43, "inception_v4": 43, "inception_resnet_v2": 43}
"""How many pixels of a side convolutions without padding leave out, by family."""


TOKENS = {
    "coat", "crossvit", "efficientformer", "efficientformer_v2", "efficientvim", "hiera", "levit", "mvitv2", "pit",
    "sequencer", "swiftformer", "twins", "volo",
}  # fmt: skip
"""Families of several sizes whose last map is no map to a pool of the field."""


def described(model: Any, overlay: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration that clients read: the catalog's, with the names of first convolution and classifier."""
    cfg = {key: value for key, value in model.pretrained_cfg.items() if value not in (None, "")}
    heads = model._heads()
    seen = seeing_image(model)
    cfg["first_conv"] = seen[0] if len(seen) == 1 else tuple(seen)
    heads = [head for head in heads if head in dict(model.named_modules())]
    cfg["classifier"] = (heads[0] if len(heads) == 1 else tuple(heads)) or None
    strides = [level.reduction for level in model.feature_info.levels] or [1]
    isotropic = len(set(strides)) == 1
    family, step = family_of(model), max(strides)
    cut = UNPADDED.get(family)
    sides = [-(side // -step) if cut is None else (side - cut) // step for side in cfg["input_size"][1:]]
    if family == "mobilenetv5" and getattr(model, "msfa", None) is not None:  # the map that all levels are joined in
        sides = list(model.msfa.size)
    cfg["pool_size"] = (
        None if isotropic or (family in TOKENS and not getattr(model, "use_conv", False)) else tuple(sides)
    )
    cfg |= published(cfg, family)
    return {**cfg, **{key: value for key, value in overlay.items() if key != "state_dict"}}


def published(cfg: Mapping[str, Any], family: str) -> dict[str, Any]:
    """What a configuration tells of publishing: license and paper, and where weights are but on the hub."""
    from . import stated

    spec = imgzoo.get_spec(cfg["architecture"]) if imgzoo.is_model(cfg.get("architecture", "")) else None
    row = next((each for each in spec.weights if each.tag == cfg.get("tag")), None) if spec else None
    told = {"url": cfg.get("url", ""), "custom_load": of_arrays(cfg.get("architecture", ""), cfg.get("tag", ""))}
    if cfg.get("license"):
        told["license"] = spelled_license(cfg["license"])
    elif row is not None and not row.published:  # nothing to license but the network
        told["license"] = (stated(family) or {}).get("license", "apache-2.0")
    return told | papers_of(row, stated(family)) if row is not None else told


def seeing_image(model: nn.Module) -> list[str]:
    """Paths of the layers that see the image: the first convolution and those beside it, or the first linear layer."""
    modules = dict(model.named_modules())
    first = first_conv(model) or next((name for name, part in modules.items() if isinstance(part, nn.Linear)), "")
    root, chans = first.partition(".")[0], getattr(modules[first], "in_channels", None)
    convs = [name for name, part in modules.items() if isinstance(part, nn.Conv2d) and part.groups == 1]
    beside = [name for name in convs if name.partition(".")[0] == root and modules[name].in_channels == chans]
    return beside if beside and chans == model.in_chans else [first]


def tell_sizes(model: Any) -> None:
    """Let the patch embedding tell of its sizes: of the image, a patch and the grid, as far as the network has them."""
    part = getattr(model, "patch_embed", None)
    if not isinstance(part, nn.Module) or isinstance(part, nn.ModuleList):
        return
    embed: Any
    embed, size = part, getattr(model, "img_size", None)
    if isinstance(part, EmbedOfNetwork):
        part.describe(model)
        return
    if isinstance(part, PatchEmbed):
        size = size or tuple(model.pretrained_cfg.get("input_size", ())[1:]) or None
        embed.measure(size, to_2tuple(embed.proj.kernel_size), not getattr(model, "dynamic_img_size", False),
                      getattr(model, "dynamic_img_pad", False))  # fmt: skip
        return
    kernel = next((getattr(embed, name) for name in ("proj", "conv", "input_proj") if hasattr(embed, name)), None)
    if isinstance(kernel, nn.Conv2d):
        embed.patch_size = to_2tuple(kernel.kernel_size)
    elif isinstance(kernel, nn.Linear):
        embed.patch_size = to_2tuple(model.patch_size)
    else:  # several convolutions
        embed.patch_size = model.feature_info.levels[0].reduction
    if size is not None:
        embed.img_size, embed.grid_size = size, grid_of(model)
        embed.num_patches = embed.grid_size[0] * embed.grid_size[1]


def grid_of(model: Any) -> tuple[int, int]:
    """The grid of the first level, of an image of the size that a network is made for."""
    step = model.feature_info.levels[0].reduction
    whole = -(model.img_size[0] // -step), -(model.img_size[1] // -step)
    for name in ("grid", "map_of", "resolution"):
        found: Any = getattr(model, name, None)
        if found is not None:
            grid: Any = found(0) if callable(found) else found
            return whole if grid[0] < whole[0] - 1 else grid  # a grid of later levels is smaller
    return whole

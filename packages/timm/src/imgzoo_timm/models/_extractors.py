"""Which extractor the levels of a network get: in the form that the field gives its family, or that a caller names."""

from __future__ import annotations

from typing import Any

from torch import nn

from imgzoo.errors import OptionError
from imgzoo.features import default_out_indices
from imgzoo.model import ImageModel
from imgzoo_archs_cnn import hrnet
from imgzoo_archs_efficientnet.trunk import MobileTrunk

from ._extract import FeatureGraphNet, FeatureHookNet
from ._features import (
    ExpansionListNet,
    Extractor,
    FeatureDictNet,
    FeatureGetterNet,
    FeatureInfo,
    FeatureListNet,
    family_of,
    without_head,
)

GETTERS = {"coat", "cspnext", "efficientformer", "efficientvim", "hiera", "hieradet_sam2", "levit", "mobilenetv5",
           "mvitv2", "twins", "visformer", "vision_transformer_sam", "volo"}  # fmt: skip
"""Families, beside those of one resolution, whose extractors keep the network's own form in the field."""


HOOKED = {"nasnet", "pit", "pnasnet", "xception"}
"""Families whose extractors hook the whole network."""


LOCATIONS: dict[type, tuple[str, ...]] = {
    MobileTrunk: ("bottleneck", "expansion", "depthwise"), hrnet.HighResolutionNet: ("incre", ""),
}  # fmt: skip
"""Where a network's levels are taken, by its class."""


def check_location(model: Any, location: str) -> None:
    """Refuse a place for levels that the network has not."""
    kind = next((each for each in LOCATIONS if isinstance(model, each)), None)
    if kind is None:
        raise OptionError("feature_location is for EfficientNet, MobileNetV3 and HRNet: leave it out")
    if location not in LOCATIONS[kind]:
        *known, last = map(repr, LOCATIONS[kind])
        raise OptionError(f"feature_location is {', '.join(known)} or {last}, not {location!r}")


def bare_branches(model: Any) -> None:
    """Let the levels of HRNet be its branches as the last stage leaves them."""
    info = FeatureInfo.of(model.feature_info)
    for i, lift in enumerate(model.incre_modules):
        info.info[i + 1]["num_chs"] = lift[0].conv1.in_channels
        model.incre_modules[i] = nn.Identity()
    model.feature_info = info.from_other(None)


LEVELS = {"sedarknet21": range(5)}
"""Names of which the field gives other levels where none are asked for."""


def extractor_of_own(model: Any, out_indices: Any, feature_cls: Any = None, out_map: Any = None,
                     output_fmt: str | None = None, flatten_sequential: bool = False,
                     return_dict: bool = False) -> nn.Module:  # fmt: skip
    """The extractor of a network that is not imgzoo's, which lists its levels in `feature_info`."""

    if out_indices is None:
        out_indices = range(min(5, len(model.feature_info)))
    words = {"list": FeatureListNet, "dict": FeatureDictNet, "hook": FeatureHookNet, "fx": FeatureGraphNet,
             "getter": FeatureGetterNet, None: FeatureListNet}  # fmt: skip
    form: Any = words.get(feature_cls, feature_cls)
    if not isinstance(form, type):
        raise OptionError("feature_cls is 'list', 'dict', 'getter', 'hook' or 'fx'")
    parts: dict[str, Any] = {"output_fmt": output_fmt or str(getattr(model, "output_fmt", "NCHW"))[-4:]}
    if not issubclass(form, FeatureListNet):
        parts["out_map"] = out_map
    if not issubclass(form, (FeatureListNet, FeatureDictNet)):
        parts["return_dict"] = return_dict
    if issubclass(form, Extractor):
        parts["flatten_sequential"] = flatten_sequential
    made = form(model, out_indices, **parts)
    made.pretrained_cfg = made.default_cfg = without_head(model.pretrained_cfg)
    return made


def keeps_form(model: Any) -> bool:
    return model.isotropic or (family_of(model) in GETTERS and not getattr(model, "use_conv", False))


def flattened(model: Any) -> bool:
    """Whether the field takes the blocks of this network apart in its extractors."""
    inside = any("." in level.module for level in model.feature_info.levels)
    whole = family_of(model) in HOOKED or (keeps_form(model) and not model.flat_parts)
    return inside and model.flat_levels and not whole


def extractor_of(model: Any, out_indices: Any = None, feature_cls: Any = None, out_map: Any = None,
                 output_fmt: str | None = None, flatten_sequential: bool = False, norm: bool = False,
                 return_dict: bool = False, feature_location: str | None = None) -> nn.Module:  # fmt: skip
    """The extractor of a network, in the form that the field gives its family unless `feature_cls` says.

    `feature_location` is of mobile networks: "bottleneck", or "expansion" (also "depthwise") for the wide inside of
    the last block of each level; and of HRNet: "incre", or "" for the branches before they are widened.
    """

    if not isinstance(model, ImageModel):
        if norm or feature_location is not None:
            raise OptionError("norm and feature_location are for networks of the catalogs: leave them out")
        return extractor_of_own(model, out_indices, feature_cls, out_map, output_fmt, flatten_sequential, return_dict)
    if out_indices is None:
        out_indices = LEVELS.get(model.name, default_out_indices(model))
    if feature_location is not None:
        check_location(model, feature_location)
    if feature_location == "":
        bare_branches(model)
    if feature_location in ("expansion", "depthwise"):
        return ExpansionListNet(model, out_indices, output_fmt or "NCHW")
    if feature_cls is None:
        feature_cls = "getter" if keeps_form(model) else "hook" if family_of(model) in HOOKED else "list"
    if feature_cls in ("getter", FeatureGetterNet) or norm:
        return FeatureGetterNet(model, out_indices, out_map, return_dict, output_fmt or "NCHW", norm)
    if feature_cls in ("hook", "fx") or feature_cls in (FeatureHookNet, FeatureGraphNet):
        form: Any = {"hook": FeatureHookNet, "fx": FeatureGraphNet}.get(str(feature_cls), feature_cls)
        parts: dict[str, Any] = {"flatten_sequential": flattened(model)} if form is FeatureHookNet else {}
        return form(model, out_indices, out_map, return_dict=return_dict, output_fmt=output_fmt or "NCHW", **parts)
    output_fmt = output_fmt or ("NHWC" if model.channels_last else "NCHW")  # as the levels are inside
    if feature_cls in ("dict", FeatureDictNet):
        return FeatureDictNet(model, out_indices, out_map, output_fmt)
    if feature_cls not in ("list", FeatureListNet):
        raise OptionError("feature_cls is 'list', 'dict', 'getter', 'hook' or 'fx'")
    return FeatureListNet(model, out_indices, output_fmt)

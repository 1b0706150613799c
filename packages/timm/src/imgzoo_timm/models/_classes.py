"""Classes of native networks under the field's arguments, and finished networks of them."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import imgzoo
from imgzoo.construction import exchange_parts
from imgzoo.errors import OptionError
from imgzoo.model import ImageModel, swap_in, swap_out
from imgzoo.model.patches import ShapeByShape
from imgzoo.model.swapping import mixins_of
from imgzoo.options import exchanges_of, parameters_of
from imgzoo.registry import registry
from imgzoo.specs import ModelSpec
from imgzoo.spelling import translated
from imgzoo_layers.attention import set_fused_attn
from imgzoo_timm.layers._base import ADAPTERS, become
from imgzoo_timm.layers._config import use_fused_attn

from ._config_options import options_of
from ._described import described
from ._initial import DRAWN, SCALED, draw, scale_by_depth
from ._networks import Network
from ._patches import PatchesByName, PatchesOfShapes, PatchesOfTowers, TokensOfTowers
from ._positions import MapResampling, RotaryTokens

IN_FRONT: dict[str, type] = {
    "DeepSeekEncoder": TokensOfTowers, "Eva": RotaryTokens, "Gemma4Encoder": PatchesOfTowers,
    "Gemma4ViT": PatchesOfTowers, "NaFlexViT": PatchesByName, "Qwen3Encoder": TokensOfTowers,
    "VisionTransformerSAM": MapResampling,
}  # fmt: skip
"""Networks that get more in front, by their native names."""


def spec_of(native: type) -> ModelSpec:
    """A row of the family, without its options: it has the words that the family translates."""
    target = f"{native.__module__}:{native.__name__}"
    found = next((spec for spec in registry("models").specs() if spec.target == target), None)
    return (found or ModelSpec(native.__name__, target))._replace(kwargs={}, weights=())


def spelled(native: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options in the field's words as the native constructor takes them; one it does not know is an error."""
    spec = spec_of(native)
    options = translated(spec, leave_apart(native, {key: value for key, value in given.items() if value is not None}))
    parameters, anything = parameters_of(native)
    unknown = [key for key in options if key not in parameters]
    if unknown and not anything:
        raise OptionError(f"{native.__name__} has no option {', '.join(unknown)}; it takes {', '.join(parameters)}")
    return options


MERGES = {"DeepSeekEncoder": "out_features", "Gemma4Encoder": "pool_side", "Qwen3Encoder": "out_features"}
"""Encoders of language models, each by the option that is 0 where its tokens are not merged."""


def leave_apart(native: type, options: dict[str, Any]) -> dict[str, Any]:
    """Options of an encoder of the field, which merges tokens by its pool's own word alone."""
    if native.__name__ not in MERGES or options.get("num_classes") or options.get("global_pool") not in ("avg", ""):
        return options
    return {**options, MERGES[native.__name__]: 0}


APART = {"SwinTransformerV2", "SwinTransformerV2Cr"}
"""Networks that derive from another here, and from none in the field."""


@cache
def parent_class(native: type) -> type | None:
    """The network that a network derives from, here and in the field, under the field's arguments."""
    if native.__name__ in APART:
        return None
    targets = {spec.target for spec in registry("models").specs()}
    above = (each for each in native.__mro__[1:] if f"{each.__module__}:{each.__name__}" in targets)
    parent = next(above, None)
    return None if parent is None else network_class(parent)


def changed(native: type, above: type, name: str) -> bool:
    """Whether a network has something else under a name than one that it derives from."""
    return getattr(native, name) is not getattr(above, name, None)


@cache
def network_class(native: type) -> type:
    """The native class with `Network` in front and options in the field's words, under the same name.

    It derives from the class of the network that the native one derives from, and computes as the native one.
    """
    if native in ADAPTERS:
        return ADAPTERS[native]

    def __init__(self: Any, *args: Any, device: Any = None, dtype: Any = None, **options: Any) -> None:
        if len(args) > 1 or (args and "cfg" in options):
            raise OptionError(f"{native.__name__} takes its options by name here")
        made: dict[str, Any] = {}
        fix_init = options.pop("fix_init", None) if native.__name__ in SCALED else None
        drawn = native.__module__.rpartition(".")[2] in DRAWN
        scheme = options.pop("weight_init", "") if drawn else ""
        if args or "cfg" in options:
            cfg = args[0] if args else options.pop("cfg")
            fix_init = getattr(cfg, "fix_init", None) if fix_init is None else fix_init
            scheme = scheme or (getattr(cfg, "weight_init", "") if drawn else "")
            options = options_of(native, cfg, options)
            made = {key: None for key in parameters_of(native)[0] if options.get(key, 0) is None}
        options, later = {**made, **spelled(native, options)}, exchanges_of(native)
        native.__init__(self, **{name: value for name, value in options.items() if name not in later})  # type: ignore[misc]
        exchange_parts(native, self, options)
        self.after_construction()
        draw(self, scheme)
        if fix_init is not None:
            scale_by_depth(self, fix_init)
        self.to(device=device, dtype=dtype)

    module = f"{__package__}.{native.__module__.rpartition('.')[2]}"
    body = {"__init__": __init__, "__module__": module, "__qualname__": native.__name__, "__doc__": native.__doc__}
    parent = parent_class(native)
    if parent is not None:
        above = parent.__mro__[parent.__mro__.index(Network) + 1]
        known = (name for name in vars(parent).keys() - body.keys() if hasattr(native, name))
        body |= {name: getattr(native, name) for name in known if changed(native, above, name)}
    before = (IN_FRONT[native.__name__],) if native.__name__ in IN_FRONT else ()
    return type(native.__name__, (*before, parent or Network, native), body)


FORMS: dict[str, tuple[str, dict[str, Any]]] = {"EfficientVitLarge": ("EfficientVit", {"large": True})}
"""Networks of the field that are one of another here: by which of its options."""


@cache
def form_class(name: str, native: type) -> type:
    """A network of `FORMS`: its class here, with the options that make it."""
    parent = network_class(native)

    def __init__(self: Any, *args: Any, **options: Any) -> None:
        parent.__init__(self, *args, **FORMS[name][1], **options)  # type: ignore[misc]

    return type(name, (parent,), {"__init__": __init__, "__module__": parent.__module__, "__qualname__": name})


def class_of(model: Any) -> type:
    """The class that a finished native network turns into, by what it was made with."""
    native = type(model)
    for name, (parent, options) in FORMS.items():
        if native.__name__ == parent:
            made = {**imgzoo.get_spec(model.name).kwargs, **model.model_args}
            if all(made.get(key) == value for key, value in options.items()):
                return form_class(name, native)
    return network_class(native)


def adopted(model: Any, overlay: Mapping[str, Any] | None = None) -> Any:
    """A finished native network with the field's attributes, in place; `overlay` changes what it says of itself."""
    if not isinstance(model, ImageModel):
        return model
    if type(model).__module__.startswith("imgzoo_archs_"):
        load_adapters()
        mixins = mixins_of(model)
        for mixin in mixins:
            swap_out(model, mixin)
        become(model, class_of(model))
        for mixin in mixins:
            if not isinstance(model, mixin):
                swap_in(model, mixin)
        if ShapeByShape in mixins and not isinstance(model, PatchesOfShapes):
            swap_in(model, PatchesOfShapes)
    model.after_construction()
    model.pretrained_cfg = described(model, overlay or {})
    if not use_fused_attn():
        set_fused_attn(model, False)
    return model


def load_adapters() -> None:
    """Import the adapters of parts, which stand beside those of families."""
    from imgzoo_timm.layers import _attention, _drop, _gate, _mlp, _norm, _patch_embed, _pool, _rotary  # noqa: F401

    from . import _blocks, _families, _sequences, _stages, _vision_transformer  # noqa: F401


def find_class(family: str, name: str) -> Any:
    """The network `name` of a family's module, under the field's arguments."""
    wanted = FORMS[name][0] if name in FORMS else name
    for spec in registry("models").specs():
        module, _, attribute = spec.target.partition(":")
        if attribute == wanted and (not family or module.rpartition(".")[2] == family or spec.family == family):
            native = spec.load()
            if isinstance(native, type):
                load_adapters()
                return form_class(name, native) if name in FORMS else network_class(native)
    return None

"""Native networks with the field's arguments and attributes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from operator import itemgetter
from typing import Any, ClassVar

import torch.fx
from torch import nn

import imgzoo
from imgzoo.construction import exchange_parts
from imgzoo.errors import OptionError
from imgzoo.features import Feature
from imgzoo.features import FeatureInfo as NativeInfo
from imgzoo.loading.adapt import first_conv
from imgzoo.loading.save import current_arguments
from imgzoo.model import Checkpointed, ImageModel, swap_in, swap_out
from imgzoo.model.patches import Patches, ShapeByShape, is_patches
from imgzoo.model.swapping import mixins_of, plain_class
from imgzoo.model.tables import refill
from imgzoo.options import exchanges_of, parameters_of
from imgzoo.registry import registry
from imgzoo.specs import ModelSpec
from imgzoo.spelling import translated
from imgzoo_layers.attention import set_fused_attn
from imgzoo_layers.norm_linear import NormLinear
from imgzoo_layers.prune import out_channels
from imgzoo_timm.layers._base import ADAPTERS, adopt, become, natively
from imgzoo_timm.layers._config import use_fused_attn
from imgzoo_timm.layers._helpers import to_2tuple
from imgzoo_timm.layers._patch_embed import PatchEmbed

from ._config_options import options_of
from ._factory import asserted
from ._features import FeatureInfo, family_of
from ._initial import BEGINNING, DEEP, DRAWN, begin, draw, shrink_by_depth
from ._manipulate import reparameterize_model
from ._positions import EmbedOfNetwork, MapResampling, RotaryTokens
from ._pretrained import papers_of, spelled_license

DROPS = ("head_drop", "head.drop", "head.dropout", "head.head_drop", "head.classifier.3", "drop")
"""Where networks drop before the classifier, by the names of the part."""


class Network:
    """In front of a native network: what clients read beside its own interface."""

    __jit_unused_properties__: ClassVar[list[str]] = ["default_cfg", "grad_checkpointing", "drop_rate"]

    @property
    def default_cfg(self: Any) -> dict[str, Any]:
        return self.pretrained_cfg

    @default_cfg.setter
    def default_cfg(self: Any, cfg: dict[str, Any]) -> None:
        self.pretrained_cfg = cfg

    @property
    def grad_checkpointing(self: Any) -> bool:
        return any(isinstance(module, Checkpointed) for module in self.modules())

    @grad_checkpointing.setter
    def grad_checkpointing(self: Any, enable: bool) -> None:
        self.set_grad_checkpointing(enable)

    def __getattr__(self: Any, name: str) -> Any:
        if name == "global_pool" and self.parts.pool != "global_pool":  # a part of the head pools
            return self.pool_kind()
        if name == "fuse" and family_of(self) in FUSING:
            return partial(reparameterize_model, self, inplace=True)
        if name == "_init_weights" and family_of(self) in BEGINNING:
            return partial(begin, drawn=BEGINNING[family_of(self)])
        if name == "fix_init_weight" and family_of(self) in DEEP:
            return partial(shrink_by_depth, self)
        return super().__getattr__(name)  # type: ignore[misc]

    def after_construction(self: Any) -> None:
        """Let the parts have the field's attributes too; networks add what follows sizes."""
        from ._grids import OF_FAMILY
        from ._parts import tell_parts, tell_rows
        from ._stages import OF_NETWORK, adopt_rows

        adopt(self, {**OF_NETWORK, **OF_FAMILY.get(family_of(self), {})})
        adopt_rows(self)
        tell_sizes(self)
        tell_parts(self)
        family = family_of(self)
        if family in ANY_SIZE:
            self.take_any_size()
        widths = WIDTHS.get(family)
        if widths is not None and "embed_dim" not in self.__dict__:
            self.embed_dim = widths([level.channels for level in self.feature_info.levels])
        if family in CHANNELS_LAST:
            self.feature_dim = -1
        if self.channels_last and "output_fmt" not in self.__dict__:
            self.output_fmt = "NLC" if family in TOWERS else "NHWC"
        if "drop_rate" not in self.__dict__:
            parts = dict(self.named_modules())
            drop = next((parts[name] for name in DROPS if isinstance(parts.get(name), nn.Dropout)), None)
            self.drop_rate = 0.0 if drop is None else drop.p
        if isinstance(self.feature_info, NativeInfo) and not isinstance(self.feature_info, FeatureInfo):
            self.feature_info = FeatureInfo.of(self.feature_info)
            tell_rows(self)

    def forward_intermediates(self: Any, x: Any, *args: Any, output_dict: bool = False, **options: Any) -> Any:
        """As the native network's; with `output_dict` a dictionary: levels, class and register tokens where they are
        asked for, which patches are any, and features, under the field's names. `extra_blocks` of networks of mobile
        blocks counts the stem and every stage, `coarse=False` of Hiera every block."""
        if output_dict and not getattr(self, "num_prefix_tokens", 0):
            options.pop("return_prefix_tokens", None)
        with finer(self, options.pop("extra_blocks", False), options.pop("coarse", True)):
            result = super().forward_intermediates(x, *args, **options)  # type: ignore[misc]
        return named_levels(x, result) if output_dict else result

    def prune_intermediate_layers(self: Any, indices: Any = 1, prune_norm: bool = False, prune_head: bool = True,
                                  extra_blocks: bool = False, coarse: bool = True) -> list[int]:  # fmt: skip
        """As the native network's; `extra_blocks` and `coarse` as of `forward_intermediates`."""
        from ._parts import tell_normed

        with finer(self, extra_blocks, coarse):
            left = super().prune_intermediate_layers(indices, prune_norm, prune_head)  # type: ignore[misc]
        if family_of(self) == "vision_transformer_sam":
            tell_normed(self)
        return left

    def get_classifier(self: Any) -> Any:
        """The classifier, or what holds it in the field; a tuple where there are several."""
        if family_of(self) not in CLASSIFIERS:
            return super().get_classifier()  # type: ignore[misc]
        parts = dict(self.named_modules())
        found = tuple(parts[path] for path in CLASSIFIERS[family_of(self)] if path in parts)
        return found[0] if len(found) == 1 else found

    def reset_classifier(self: Any, num_classes: int, global_pool: str | None = None,
                         distillation: bool = False) -> None:  # fmt: skip
        """As the native network's; `distillation` keeps a second classifier where the first one has its norm."""
        if distillation and not self.parts.taught:
            raise OptionError(f"{type(self).__name__} has no second classifier that goes: leave distillation out")
        with asserted():
            super().reset_classifier(num_classes, global_pool)  # type: ignore[misc]
        if distillation:
            like = next(self.parameters())
            second = NormLinear(self.head_hidden_size, num_classes).to(like.device, like.dtype)
            self.head.head_dist = second.train(self.training)
            self.model_args = {**self.model_args, "distilled": True}

    @torch.no_grad()
    def init_weights(self: Any, *args: Any, **options: Any) -> None:
        """Draw the weights anew, and compute the tables beside them, as after `to_empty`: as of a network that is made
        with these options, or by a word of `weight_init` where vision transformers have it."""
        if not getattr(self, "name", ""):  # while it is made
            super().init_weights(*args, **options)  # type: ignore[misc]
            return
        mode = options.get("mode", args[0] if args else "")
        if options.keys() - {"needs_reset", "mode"} or len(args) > 1 or (mode and family_of(self) not in DRAWN):
            raise OptionError("weights are drawn one way here: init_weights takes no mode")
        drawn = imgzoo.create_model(self.name, **current_arguments(self)).state_dict()
        own = self.state_dict()
        self.load_state_dict({key: value for key, value in drawn.items() if key in own})
        refill(self)
        draw(self, mode)

    def load_pretrained(self: Any, checkpoint_path: str, prefix: str = "") -> None:
        """Read weights in a format of their authors, JAX arrays (`.npz`) among them; the prefix is found in them."""
        from ._helpers import load_checkpoint

        load_checkpoint(self, checkpoint_path)

    def __prepare_scriptable__(self: Any) -> nn.Module:
        return natively(self)

    def set_input_size(self: Any, *args: Any, **options: Any) -> None:
        with asserted():
            super().set_input_size(*args, **options)  # type: ignore[misc]
        self.after_construction()


CLASSIFIERS: dict[str, tuple[str, ...]] = {
    "crossvit": ("head",), "efficientvim": ("heads", "heads_dist"), "iformer": ("head",),
    "levit": ("head", "head_dist"), "metaformer": ("head.fc",), "repvit": ("head",), "sequencer": ("head",),
    "vision_transformer_sam": ("head",), "volo": ("head",),
}  # fmt: skip
"""Families whose `get_classifier` gives more than the linear layers, or fewer of them."""
MOBILE = {"efficientnet", "hardcorenas", "mobilenetv3", "mobilenetv5"}
"""Families whose levels may be counted by every stage."""
HIERA = {"hiera", "hieradet_sam2"}
"""Families whose levels may be counted by every block."""


@contextmanager
def finer(model: Any, every_stage: bool, coarse: bool) -> Iterator[None]:
    """Let levels be the stem and every stage that is left, or every block unless `coarse`, while it lasts; then those
    of before that are left."""
    if not every_stage and coarse:
        yield
        return
    word, families = ("coarse", HIERA) if not coarse else ("extra_blocks", MOBILE)
    if family_of(model) not in families:
        raise OptionError(f"{type(model).__name__} has no levels beside those of feature_info: leave {word} out")
    info = model.feature_info
    levels = list(levels_by_stage(model) if coarse else levels_by_block(model))
    before, model.feature_info, model.levels_left = model.levels_left, FeatureInfo.of(NativeInfo(levels)), ()
    try:
        yield
    finally:
        deepest = max(model.levels_left, default=None)
        if deepest is None:
            model.feature_info, model.levels_left = info, before
        else:  # it was pruned
            left = {level.module for level in levels[: deepest + 1]}
            places = tuple(i for i, level in enumerate(info.levels) if level.module in left)
            if places:
                model.feature_info, model.levels_left = info, places


def levels_by_stage(model: Any) -> Iterator[Feature]:
    rows, reached = {level.module: level for level in model.feature_info.levels}, 2
    for path in (model.parts.stem[-1], *(path for path, _ in model._stages())):
        row = rows.get(path)
        reached = reached if row is None else row.reduction
        yield row or Feature(channels_of(model.get_submodule(path)), reached, path)


def levels_by_block(model: Any) -> Iterator[Feature]:
    """What is told of a stage is told of its blocks."""
    ends = {int(level.module.rpartition(".")[2]): level for level in model.feature_info.levels}
    for path, _ in model._stages():
        place = int(path.rpartition(".")[2])
        yield next(level for end, level in ends.items() if place <= end)._replace(module=path)


def channels_of(part: nn.Module) -> int:
    """Channels that a stem's norm or a stage puts out."""
    own = getattr(part, "num_features", None) or getattr(getattr(part, "bn", None), "num_features", None)
    return own or out_channels(part)


class PatchesGiven:
    """In front of networks that take patches: coordinates, and which patches are any, may come by themselves, as the
    field passes them; all patches are where nothing says so."""

    def forward(self: Any, x: Any, patch_coord: Any = None, patch_valid: Any = None, attn_mask: Any = None) -> Any:
        return super().forward(joined_patches(x, patch_coord, patch_valid, attn_mask))  # type: ignore[misc]


class PatchesByName(PatchesGiven):
    """In front of networks made for patches: the same of their parts."""

    def forward_features(self: Any, patches: Any, patch_coord: Any = None, patch_valid: Any = None,
                         attn_mask: Any = None) -> Any:  # fmt: skip
        """Tokens; of patches with coordinates by themselves a dictionary of tokens and which patches are any."""
        features = super().forward_features(joined_patches(patches, patch_coord, patch_valid, attn_mask))  # type: ignore[misc]
        return features if patch_coord is None else {"patches": features, "patch_valid": patch_valid}

    def forward_head(self: Any, patches: Any, pre_logits: bool = False, patch_valid: Any = None,
                     valid: Any = None) -> Any:  # fmt: skip
        return super().forward_head(patches, pre_logits, valid if patch_valid is None else patch_valid)  # type: ignore[misc]

    def forward_intermediates(self: Any, x: Any, *args: Any, patch_coord: Any = None, patch_valid: Any = None,
                              attn_mask: Any = None, **options: Any) -> Any:  # fmt: skip
        x = joined_patches(x, patch_coord, patch_valid, attn_mask)
        return super().forward_intermediates(x, *args, **options)  # type: ignore[misc]


class PatchesOfShapes(PatchesByName):
    """In front of networks of images that take patches, too."""

    def forward_intermediates(self: Any, x: Any, *args: Any, patch_coord: Any = None, patch_valid: Any = None,
                              attn_mask: Any = None, output_dict: bool = False, **options: Any) -> Any:  # fmt: skip
        x = joined_patches(x, patch_coord, patch_valid, attn_mask)
        result = super().forward_intermediates(x, *args, **options)
        return named_levels(x, result) if output_dict else result


def joined_patches(x: Any, coordinates: Any, valid: Any, mask: Any) -> Any:
    """Patches and what stands beside them as one; an image, or a record of them, as it is."""
    if isinstance(mask, torch.fx.Proxy):  # a tracer, which gives something for every argument, looks at an image
        return x
    if mask is not None:
        raise OptionError("attention sees all valid patches here: leave attn_mask out, and say patch_valid")
    if coordinates is None:
        return x
    return Patches.of(
        (x, coordinates, torch.ones_like(coordinates[..., 0], dtype=torch.bool) if valid is None else valid)
    )


IN_FRONT: dict[str, type] = {"Eva": RotaryTokens, "NaFlexViT": PatchesByName, "VisionTransformerSAM": MapResampling}
"""Networks that get more in front, by their native names."""
FUSING = {"iformer", "repvit", "shvit"}
"""Families whose networks have a method `fuse` in the field."""
WIDTHS: dict[str, Callable[[list[int]], Any]] = {
    "crossvit": lambda dims: sorted(set(dims)), "efficientvim": tuple, "focalnet": list, "levit": tuple,
    "maxxvit": itemgetter(-1), "pit": itemgetter(-1), "repvit": tuple, "swin_transformer_v2": itemgetter(0),
    "vision_transformer_sam": itemgetter(0), "visformer": itemgetter(1),
}  # fmt: skip
"""What the field calls `embed_dim` of the widths of a family's levels, where its networks have no such attribute."""


ANY_SIZE = {"crossvit", "efficientvit_msra", "vision_transformer_sam"}
"""Families whose networks take every image in the field, where ours take those of the size that they are told."""
CHANNELS_LAST = {"deepseek_vit", "qwen3_vit", "sequencer"}
"""Families that say where channels are in what `forward_features` gives."""
TOWERS = {"deepseek_vit", "gemma4_vit", "qwen3_vit"}
"""Families that give tokens where others give maps."""


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


def named_levels(x: Any, result: Any) -> dict[str, Any]:
    """What `forward_intermediates` of an input gives, by the field's names."""
    features, levels = result if isinstance(result, tuple) else (None, result)
    found: dict[str, Any] = {"image_intermediates": levels}
    if levels and isinstance(levels[0], tuple):
        found["image_intermediates"], found["image_intermediates_prefix"] = map(list, zip(*levels))
    if is_patches(x):
        found["patch_valid"] = Patches.of(x).valid
    return found if features is None else {**found, "image_features": features}


def spec_of(native: type) -> ModelSpec:
    """A row of the family, without its options: it has the words that the family translates."""
    target = f"{native.__module__}:{native.__name__}"
    found = next((spec for spec in registry("models").specs() if spec.target == target), None)
    return (found or ModelSpec(native.__name__, target))._replace(kwargs={}, weights=())


def spelled(native: type, given: Mapping[str, Any]) -> dict[str, Any]:
    """Options in the field's words as the native constructor takes them; one it does not know is an error."""
    spec = spec_of(native)
    options = translated(spec, {key: value for key, value in given.items() if value is not None})
    parameters, anything = parameters_of(native)
    unknown = [key for key in options if key not in parameters]
    if unknown and not anything:
        raise OptionError(f"{native.__name__} has no option {', '.join(unknown)}; it takes {', '.join(parameters)}")
    return options


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
        load_adapters(plain_class(model))
        mixins = mixins_of(model)
        for mixin in mixins:
            swap_out(model, mixin)
        become(model, class_of(model))
        for mixin in mixins:
            swap_in(model, mixin)
        if ShapeByShape in mixins:
            swap_in(model, PatchesOfShapes)
    model.after_construction()
    model.pretrained_cfg = described(model, overlay or {})
    if not use_fused_attn():
        set_fused_attn(model, False)
    return model


def load_adapters(native: type) -> None:
    """Import the adapters of a network's parts, which stand beside those of its family."""
    from imgzoo_timm.layers import _attention, _drop, _gate, _mlp, _norm, _patch_embed, _pool, _rotary  # noqa: F401

    from . import _blocks, _families, _sequences, _stages, _vision_transformer  # noqa: F401


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
    told = {"url": cfg.get("url", ""), "custom_load": False}
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


SCALED = {"VisionTransformer": False, "NaFlexViT": True}
"""Networks that take `fix_init`, and whether their weights are drawn so anyway."""


@torch.no_grad()
def scale_by_depth(model: Any, fix_init: bool, loaded: bool = False) -> None:
    """Let the drawn weights of the last layers of block `i` be over `sqrt(2 (i + 1))`, or not; loaded ones stay."""
    drawn = next((SCALED[cls.__name__] for cls in type(model).__mro__ if cls.__name__ in SCALED), None)
    if drawn is None:
        name = getattr(model, "name", "") or type(model).__name__
        raise OptionError(f"{name} has no option 'fix_init': its weights are drawn one way")
    if loaded or fix_init == drawn:
        return
    for i, block in enumerate(model.blocks):
        for layer in (block.attn.proj, block.mlp.fc2):
            layer.weight.mul_((2.0 * (i + 1)) ** (-0.5 if fix_init else 0.5))


def find_class(family: str, name: str) -> Any:
    """The network `name` of a family's module, under the field's arguments."""
    wanted = FORMS[name][0] if name in FORMS else name
    for spec in registry("models").specs():
        module, _, attribute = spec.target.partition(":")
        if attribute == wanted and (not family or module.rpartition(".")[2] == family or spec.family == family):
            native = spec.load()
            if isinstance(native, type):
                load_adapters(native)
                return form_class(name, native) if name in FORMS else network_class(native)
    return None

"""The field's networks: those of imgzoo's catalogs, and those that `register_model` is told of."""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from copy import deepcopy
from functools import cache, partial
from pathlib import Path
from typing import Any

import imgzoo
import imgzoo_timm.layers  # noqa: F401  (its rooms are shown under `models.layers` too)
from imgzoo_timm._door import Room, add_rooms, furnish, rooms

NAMES = """
_registry      .models._registry   register_model list_models list_pretrained list_modules is_model is_model_in_modules
_registry      .models._registry   is_model_pretrained model_entrypoint get_pretrained_cfg get_pretrained_cfg_value
_registry      .models._registry   get_arch_name split_model_name_tag generate_default_cfgs get_arch_pretrained_cfgs
_registry      .models._registry   get_deprecated_models register_model_deprecations
_input         .models._input      get_model_args get_model_input_config get_model_traits
registry       .models._registry   register_model list_models list_modules is_model is_model_in_modules
registry       .models._registry   is_model_pretrained model_entrypoint generate_default_cfgs
_pretrained    .models._pretrained PretrainedCfg DefaultCfg filter_pretrained_cfg
_factory       .models._factory    create_model safe_model_name parse_model_name
-              .models._input      resolve_model_input_args
factory        .models._factory    create_model safe_model_name parse_model_name
_builder       .models._builder    build_model_with_cfg load_pretrained resolve_pretrained_cfg
_builder       .models._builder    load_custom_pretrained set_pretrained_download_progress
_helpers       .models._helpers    load_state_dict load_checkpoint resume_checkpoint clean_state_dict remap_state_dict
helpers        .models._helpers    load_state_dict load_checkpoint resume_checkpoint clean_state_dict remap_state_dict
helpers        .models._builder    build_model_with_cfg load_pretrained
helpers        .models._manipulate named_apply checkpoint_seq group_parameters group_modules model_parameters
helpers        .models._manipulate adapt_input_conv
_manipulate    .models._manipulate named_apply checkpoint_seq group_parameters group_modules model_parameters
_manipulate    .models._manipulate named_modules named_modules_with_params group_with_matcher flatten_modules
_manipulate    .models._manipulate checkpoint adapt_input_conv reparameterize_model reinit_non_persistent_buffers
_features      .models._features   FeatureInfo FeatureListNet FeatureDictNet FeatureGetterNet feature_take_indices
features       .models._extract    FeatureHookNet FeatureHooks
_features_fx   .models._extract    FeatureGraphNet GraphExtractNet
features       .models._features   FeatureInfo FeatureListNet FeatureDictNet
_features_fx   .layers._training   create_feature_extractor get_graph_node_names register_notrace_module
_features_fx   .layers._training   register_notrace_function is_notrace_module is_notrace_function
_features_fx   .layers._training   get_notrace_modules get_notrace_functions
fx_features    .layers._training   register_notrace_module register_notrace_function
_hub           .models._hub        load_model_config_from_hf load_state_dict_from_hf push_to_hf_hub save_for_hf
_hub           .models._hub        has_hf_hub hf_split load_state_dict_from_path load_cfg_from_json
_hub           .models._hub        load_model_config_from_path
hub            .models._hub        load_model_config_from_hf load_state_dict_from_hf push_to_hf_hub
-              .models._vision_transformer  VisionTransformer VisionTransformerDistilled
-              .models._families   BasicBlock Bottleneck ResNet SwinTransformer ConvNeXt EfficientNet
-              .models._configs    ByoBlockCfg ByoModelCfg MaxxVitCfg MaxxVitConvCfg MaxxVitTransformerCfg
-              .models._configs    NfCfg RegNetCfg MultiScaleVitCfg NaFlexVitCfg
_efficientnet_builder .models._families  decode_arch_def round_channels get_bn_args_tf resolve_bn_args resolve_act_layer
"""
FAMILIES = {
    "vision_transformer": """
._vision_transformer         VisionTransformer Block ResPostBlock init_weights_vit_timm
imgzoo_timm.layers           Attention Mlp PatchEmbed DropPath LayerScale trunc_normal_ resample_abs_pos_embed
imgzoo_timm.layers           resample_patch_embed global_pool_nlc PatchDropout lecun_normal_ SwiGLUPacked LayerNorm
imgzoo_timm.layers           AttentionPoolLatent RmsNorm get_act_layer get_norm_layer to_2tuple LayerType
""",
    "deit": """
._vision_transformer VisionTransformerDistilled VisionTransformer
imgzoo_timm.layers   resample_abs_pos_embed
""",
    "eva": "imgzoo_timm.layers resample_abs_pos_embed resample_patch_embed",
    "vision_transformer_sam": "imgzoo_timm.layers resample_abs_pos_embed_nhwc",
    "vision_transformer_hybrid": "imgzoo_timm.layers HybridEmbed",
    "vitamin": "imgzoo_timm.layers HybridEmbed",
    "resnet": "._families ResNet BasicBlock Bottleneck",
    "sknet": "._families SelectiveKernelBasic SelectiveKernelBottleneck ResNet",
    "swin_transformer": """
._families SwinTransformer SwinTransformerBlock PatchMerging WindowAttention window_partition window_reverse
._families resolve_stage_window_sizes
imgzoo_timm.layers PatchEmbed Mlp DropPath ClassifierHead to_2tuple trunc_normal_
""",
    "swin_transformer_v2": "._families SwinTransformerV2Block",
    "swin_transformer_v2_cr": "._families SwinTransformerV2CrBlock WindowMultiHeadAttention",
    "convnext": "._families ConvNeXt",
    "byobnet": "._configs ByoBlockCfg ByoModelCfg",
    "maxxvit": "._configs MaxxVitCfg MaxxVitConvCfg MaxxVitTransformerCfg",
    "mvitv2": "._configs MultiScaleVitCfg",
    "efficientformer_v2": "._map_attentions Attention2d",
    "efficientvit_msra": "._map_attentions CascadedGroupAttention",
    "levit": "._map_attentions AttentionDownsample",
    "naflexvit": """
._configs NaFlexVitCfg
._sequences NaFlexEmbeds
imgzoo_timm.data._sequence batch_patchify
""",
    "tiny_vit": "._map_attentions Attention",
    "nfnet": "._configs NfCfg",
    "regnet": "._configs RegNetCfg",
    "efficientnet": """
._families EfficientNet decode_arch_def round_channels resolve_bn_args resolve_act_layer
""",
}
"""What stands in the modules of families beside their networks and functions; every one has `_cfg` and its kin too."""
CALLED = {"NormFreeNet": "NFNet", "NaFlexVit": "NaFlexViT", "EfficientViMDistilled": "DistilledEfficientViM",
          "DeepseekVitClassifier": "DeepSeekViT", "DeepseekVitEncoder": "DeepSeekEncoder",
          "Gemma4VitClassifier": "Gemma4ViT", "Gemma4VitEncoder": "Gemma4Encoder",
          "Qwen3VitClassifier": "Qwen3ViT", "Qwen3VitEncoder": "Qwen3Encoder"}  # fmt: skip
"""Networks that have another name here."""
COMMON = """
imgzoo_timm.models._registry    register_model generate_default_cfgs
imgzoo_timm.models._builder     build_model_with_cfg
imgzoo_timm.models._manipulate  checkpoint_seq named_apply checkpoint
imgzoo_timm.data                IMAGENET_DEFAULT_MEAN IMAGENET_DEFAULT_STD IMAGENET_INCEPTION_MEAN
imgzoo_timm.data                IMAGENET_INCEPTION_STD
"""
ADVICE = "imgzoo.list_models() names the networks, imgzoo.get_spec(name).target says where each is defined"


def homes_in(table: str, package: str) -> dict[str, str]:
    """Module of each name of a family's table."""
    homes: dict[str, str] = {}
    for line in table.strip().splitlines():
        home, *names = line.split()
        homes |= dict.fromkeys(names, package + home if home.startswith(".") else home)
    return homes


def family_name(family: str, name: str) -> Any:
    """What a family's module shows under a name, if anything."""
    homes = homes_in(COMMON, __name__) | homes_in(FAMILIES.get(family, ""), __name__)
    if name in homes:
        return getattr(importlib.import_module(homes[name]), name)
    from . import _registry

    if name == "default_cfgs":
        return _registry.default_cfgs_of(family)
    if name == "_cfg" or (name.startswith("_") and name.endswith("cfg")):
        return configuration(family if name == "_cfg" else f"{family}.{name}")
    if name.startswith("checkpoint_filter_fn"):  # some families have one for each of their networks
        return checkpoint_filter_fn
    if name == "_load_weights":
        return load_weights
    if name.startswith("_create_"):
        return partial(_created, family)
    if imgzoo.is_model(name):
        return _registry.entry_function(name)
    if name[:1].isupper():
        from ._classes import find_class

        return find_class(family, CALLED.get(name, name))
    return None


def _known(family: str) -> set[str]:
    """What `*` brings of a family, or of all: its table, its networks and the functions that make them."""
    from imgzoo.registry import registry

    specs = [spec for spec in registry("models").specs() if family in ("", spec.family)]
    classes = {spec.target.partition(":")[2] for spec in specs} if family else set()
    found = {*homes_in(FAMILIES.get(family, ""), __name__), *classes, *(spec.name for spec in specs)}
    return {name for name in found if name.isidentifier() and not name.startswith("_")}


def model_name(name: str) -> Any:
    """What the package shows beside its tables: families, functions that make networks, and their classes."""
    return family_name("", name) if not name.startswith("_") else None


ABSENT = "absent"
"""In `cfgs.json`: what a family's configuration does not say, though most do."""


@cache
def stated(form: str) -> dict[str, Any] | None:
    """What the field's configurations of a form, `FAMILY` or `FAMILY._NAME`, begin with."""
    rows = json.loads((Path(__file__).parent / "cfgs.json").read_text())
    if form not in rows:
        return None
    known = {**rows[""], **rows[form]}
    known = {key: tuple(each) if isinstance(each, list) else each for key, each in known.items()}
    return {key: each for key, each in known.items() if each != ABSENT}


def configuration(form: str) -> Callable[..., dict[str, Any]]:
    """The function that makes configurations of a form; any other form is that of a plain network."""

    def cfg(url: str = "", **kwargs: Any) -> dict[str, Any]:
        """A configuration of weights in the field's defaults."""
        known = stated(form) or stated(form.partition(".")[0]) or stated("") or {}
        return {"url": url, **deepcopy(known), **kwargs}

    return cfg


def checkpoint_filter_fn(state_dict: dict[str, Any], model: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
    """A published state dict under the model's names and sizes, by the formats that imgzoo converts."""
    from imgzoo.loading.convert import convert
    from imgzoo.loading.files import strip_wrappers
    from imgzoo.loading.load import target_of

    for key in ("model", "state_dict", "teacher"):
        state_dict = state_dict[key] if isinstance(state_dict.get(key), dict) else state_dict
    state = convert(strip_wrappers(dict(state_dict)), model, model.state_dict(), target_of(model))[0]
    model.fit_state(state)
    return state


def load_weights(model: Any, checkpoint_path: str, prefix: str = "", load_bfloat16: bool = False) -> None:
    """A JAX file (`.npz`), or any other that imgzoo converts, into a network; the prefix is found in it."""
    model.load_pretrained(checkpoint_path)


def _created(family: str, variant: str, pretrained: bool = False, **kwargs: Any) -> Any:
    """A network of the catalog by name, or of the family's class with options."""
    from ._builder import build_model_with_cfg
    from ._classes import find_class
    from ._factory import create_model
    from ._registry import entries

    if imgzoo.is_model(variant) and variant not in entries:
        return create_model(variant, pretrained=pretrained, **kwargs)
    name = next(spec.target for spec in imgzoo.registry.registry("models").specs() if spec.family == family)  # type: ignore[attr-defined]
    return build_model_with_cfg(find_class(family, name.partition(":")[2]), variant, pretrained, **kwargs)


EXTRACTORS = "create_model(name, features_only=True) gives the levels of a network"
CATALOG = "imgzoo.create_model makes it by name, with options"
INSTEAD = {
    "*features": EXTRACTORS,
    "mobilenetv5encoder": CATALOG,
    "create_block": CATALOG,
    "create_byob_stem": CATALOG,
    "*cfg": "imgzoo.create_model takes the fields of a configuration as options",
    "adapt_model_from_string": "pruned networks are models of the catalog (`imgzoo list '*pruned*'`)",
    "_prune": "pruned networks are models of the catalog (`imgzoo list '*pruned*'`)",
    "_efficientnet_blocks": "imgzoo_archs_efficientnet.builder makes blocks by the strings of decode_arch_def",
    "set_pretrained_check_hash": "hashes that are known are always checked",
    "*attn": "blocks of a network are parts of it: imgzoo.get_spec(name).target says where they are defined",
    "*block*": "blocks of a network are parts of it: imgzoo.get_spec(name).target says where they are defined",
}
"""What is not here on purpose, and imgzoo's way."""

__getattr__, __dir__ = furnish(__name__, NAMES, ADVICE, fallback=model_name, instead=INSTEAD)


def families() -> set[str]:
    """Names of the family modules: where networks are defined, and the catalogs' own families."""
    from imgzoo.registry import registry

    specs = registry("models").specs()
    return {spec.family for spec in specs if spec.family} | {
        spec.target.partition(":")[0].rpartition(".")[2] for spec in specs
    }


add_rooms(__name__, families(), ADVICE, family_name)
for each in families():
    rooms[f"{__name__}.{each}"].instead = INSTEAD
    rooms[f"{__name__}.{each}"].known = partial(_known, each)
rooms[__name__].known = partial(_known, "")
for path, room in list(rooms.items()):
    if path.startswith("imgzoo_timm.layers"):
        alias = f"{__name__}.layers{path.removeprefix('imgzoo_timm.layers')}"
        rooms[alias] = Room(alias, room.advice, room.fallback)
        rooms[alias].homes, rooms[alias].instead = room.homes, room.instead

"""imgzoo-timm beside the peer: the same names, signatures and registries, and what has no equivalent."""

import argparse
import importlib

import pytest
import torch
from timm_kit import (
    EARLIER,
    EARLIER_NAMES,
    PATHS,
    both,
    ours,
    parameters,
    peer_module,
    same_tensors,
    theirs,
)
from torch import nn

import imgzoo_timm
from imgzoo.registry import registry
from imgzoo_timm._door import rooms

pytestmark = pytest.mark.parity


@pytest.mark.parametrize("path", PATHS)
def test_names_stand_where_the_peer_has_them_with_its_signatures(path):
    if path.replace("imgzoo_timm", "timm", 1) in EARLIER:
        return
    module, peer = importlib.import_module(path), peer_module(path)
    inside = path.count(".") == 1  # a package shows the names of all its modules
    for name in rooms[path].homes:
        if name in EARLIER_NAMES or (inside and not hasattr(peer, name)):
            continue
        mine, other = getattr(module, name), getattr(peer, name)
        if callable(mine):
            assert parameters(mine) == parameters(other), name
        elif isinstance(mine, (str, int, float, tuple)):
            assert mine == other, name


NAMES = ["vit_tiny_patch16_224", "resnet18", "swin_tiny_patch4_window7_224", "convnext_atto", "efficientnet_b0",
         "test_byobnet", "test_nfnet", "mixer_s32_224", "deit_tiny_distilled_patch16_224"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_created_models_have_the_configuration_and_the_extractors_keys(name):
    with torch.device("meta"):
        mine, other = (create(name) for create in both("models", "create_model"))
        features = [create(name, features_only=True) for create in both("models", "create_model")]
    keys = ("first_conv", "classifier", "pool_size", "input_size", "mean", "std", "crop_pct", "num_classes")
    assert {key: mine.default_cfg[key] for key in keys} == {key: other.default_cfg[key] for key in keys}
    assert mine.default_cfg is mine.pretrained_cfg
    assert list(features[0].state_dict()) == list(features[1].state_dict())
    assert [key for key, _ in features[0].named_parameters()] == [key for key, _ in features[1].named_parameters()]
    rows = [each.feature_info.get_dicts(["num_chs", "reduction", "module", "index"]) for each in features]
    assert rows[0] == rows[1]
    assert getattr(features[1], "output_fmt", "NCHW") == features[0].output_fmt


@pytest.mark.parametrize("filter", ["resnet1*", ["vit_tiny*", "swin_t*"], "*.a1_in1k", "convnext_atto"])
def test_names_are_listed_alike(filter):
    mine, other = both("models", "list_models")
    for options in ({}, dict(pretrained=True), dict(exclude_filters="*18*"), dict(include_tags=True)):
        assert mine(filter, **options) == other(filter, **options), options
    assert ours("models", "list_pretrained")(filter) == theirs("models", "list_pretrained")(filter)


# data


def test_layers_of_networks_that_tell_of_none():
    for classifier in (None, "2"):
        model = nn.Sequential(nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), nn.Linear(4, 2))
        if classifier:
            model.pretrained_cfg = {"classifier": classifier}
        for options in ({}, dict(layers_per_group=2), dict(num_groups=2)):
            mine, other = (group(model, **options) for group in both("optim", "auto_group_layers"))
            assert mine == other
        for options in ({}, dict(layer_decay_min_scale=0.7)):
            rows = []
            for create in both("optim", "create_optimizer_v2"):
                made = create(model, "sgd", lr=0.1, weight_decay=0.2, layer_decay=0.5, **options)
                rows.append(sorted((group["lr_scale"], group["weight_decay"], len(group["params"]))
                                   for group in made.param_groups))  # fmt: skip
            assert rows[0] == rows[1]


def test_helpers():
    output, target = torch.randn(20, 7), torch.arange(20) % 7
    same_tensors(*(each(output, target, (1, 5)) for each in both("utils", "accuracy")))
    for steps in (1, 2, 4):
        assert len({tuple(each(n, steps) for n in range(1, 300)) for each in both("utils", "decay_batch_step")}) == 1
    for text in ("required rank 4", "illegal memory", "out of memory", "not supported"):
        assert len({each(text) for each in both("utils", "check_batch_size_retry")}) == 1
    for name in ("resnet50.a1", "hf-hub:timm/x.y", "vit-b"):
        assert len({each(name) for each in both("models", "safe_model_name")}) == 1
    for text in ("a10b2", "layer.9.x"):
        assert next(each(text) for each in both("utils", "natural_key")) == theirs("utils", "natural_key")(text)
    parser = argparse.ArgumentParser()
    parser.add_argument("--opt", nargs="*", action=ours("utils", "ParseKwargs"), default={})
    assert parser.parse_args(["--opt", "a=1", "b=x", "c=(1,2)"]).opt == {"a": 1, "b": "x", "c": (1, 2)}


@pytest.mark.parametrize("method", ["fx", "hook"])
def test_attention_is_taken_out_alike(method):
    fused = both("layers", "set_fused_attn")
    try:
        for switch in fused:
            switch(False)
        networks = [create("test_vit", num_classes=7) for create in both("models", "create_model")]
    finally:
        for switch in fused:
            switch(True)
    networks[0].load_state_dict(networks[1].state_dict())
    x = torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        found, wanted = (take(model, method=method)(x) for take, model in
                         zip(both("utils", "AttentionExtract"), networks))  # fmt: skip
    assert list(found) == list(wanted)
    same_tensors(found.values(), wanted.values())
    with pytest.raises(RuntimeError):
        ours("utils", "AttentionExtract")(networks[0], names=["nothing"], method=method)


FIRST = {spec.family: spec.name for spec in reversed(registry("models").specs()) if spec.family}
POOLED_APART = {"mobilenetv5", "nest"}
"""Families whose pool the peer tells otherwise: of a map of a fixed size, and as a list."""


@pytest.mark.parametrize("family", sorted(FIRST.keys() - POOLED_APART))
def test_what_is_told_of_pools(family):
    told = theirs("models", "get_pretrained_cfg")(FIRST[family])
    if told is None:
        return
    with torch.device("meta"):
        model = ours("models", "create_model")(FIRST[family])
    size = told.input_size[-1]
    if model.default_cfg["input_size"][-1] == size:
        assert model.default_cfg["pool_size"] == told.pool_size


# patches of images of any shape, and policies as lists
WITHOUT = {
    "data": {"add_img_extensions", "del_img_extensions", "set_img_extensions"},
    "models": {"ClassAttn", "EfficientNetFeatures", "HighResolutionNetFeatures",
               "LayerScaleBlock", "LayerScaleBlockClassAttn", "MixerBlock", "MobileNetV3Features",
               "MobileNetV5Encoder", "TalkingHeadAttn", "adapt_model_from_string", "create_block", "create_byob_stem",
               "set_pretrained_check_hash"},
}  # fmt: skip
"""Public names of the peer that have no equivalent here."""


@pytest.mark.filterwarnings("ignore::imgzoo.errors.ImgzooDeprecationWarning")
@pytest.mark.parametrize("path", imgzoo_timm.PACKAGES)
def test_public_names_without_an_equivalent_are_known_and_told(path):
    module, peer = importlib.import_module(f"imgzoo_timm.{path}"), importlib.import_module(f"timm.{path}")
    public = [name for name, value in vars(peer).items()
              if not name.startswith("_") and getattr(value, "__module__", "").startswith("timm")]  # fmt: skip
    missing = {name for name in public if not hasattr(module, name)}
    assert missing == WITHOUT.get(path, set())
    for name in missing:
        with pytest.raises(AttributeError, match=f"has no {name}: ") as raised:
            getattr(module, name)
        assert str(raised.value).partition(": ")[2] not in (rooms[f"imgzoo_timm.{path}"].advice, "")

"""Levels and extractors: the network's own, whole or in parts, at the places that the field names."""

import copy
import pickle

import pytest
import torch
from client_code import families
from torch import nn

import imgzoo
import imgzoo_timm as timm
from imgzoo.errors import OptionError


@pytest.mark.parametrize("name", families())
def test_extractors_are_the_network(name):
    with torch.device("meta"):
        native = imgzoo.create_model(name, features_only=True)
        model = timm.create_model(name, features_only=True)
    assert model.feature_info.channels() == native.feature_info.channels()
    assert {key for key, _ in model.named_parameters()} <= set(model.state_dict())
    whole = isinstance(model, timm.models.FeatureHookNet)  # keeps its final norm, too
    kept = len(getattr(model, "kept", ()))  # the field's keep them, though no level needs them
    assert len(model.state_dict()) == len(native.state_dict()) + kept or (whole and hasattr(model, "body"))


def test_flat_extractors_follow_replaced_parts_and_moves():
    model = timm.create_model("resnet18", features_only=True, out_indices=(1, 4)).eval()
    x = torch.randn(1, 3, 64, 64)
    before = model(x)
    copied = copy.deepcopy(model)
    model.bn1 = nn.Identity()
    assert not torch.equal(model(x)[0], before[0])
    torch.testing.assert_close(copied(x), before)
    assert copied.double()(x.double())[1].dtype == torch.float64
    assert pickle.loads(pickle.dumps(model))(x)[1].shape == before[1].shape
    model.train()
    assert model.network.training and model.layer1.training
    other = timm.create_model("resnet18", features_only=True, out_indices=(1, 4)).eval()
    other.load_state_dict(copied.float().state_dict())
    torch.testing.assert_close(other(x), before)


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet"])
@pytest.mark.parametrize("form", ["hook", "fx"])
def test_extractors_of_whole_networks(form, name):
    model = timm.create_model(name, features_only=True, feature_cls=form, out_indices=(1, 3)).eval()
    plain = imgzoo.create_model(name, features_only=True, out_indices=(1, 3)).eval()
    prefix = {"hook": "body.", "fx": "graph_module."}[form]
    own = {key.removeprefix(prefix): value for key, value in model.state_dict().items()}
    assert all(key.startswith(prefix) for key in model.state_dict())
    plain.model.load_state_dict({key: own[key] for key in plain.model.state_dict()})
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(x), plain(x))
        if form == "hook":  # a copy of torch's graph modules forgets which of its two graphs it was at
            torch.testing.assert_close(copy.deepcopy(model)(x), plain(x))
    assert model.feature_info.channels() == plain.feature_info.channels()


def test_hooks_and_graphs_answer_by_name():
    x = torch.randn(1, 3, 64, 64)
    network = timm.create_model("test_resnet")
    hooked = timm.models.FeatureHookNet(copy.deepcopy(network), (0, 2), out_map=["low", "high"], return_dict=True)
    assert list(hooked(x)) == ["low", "high"] and not hooked.hooks.get_output(x.device)
    taken = timm.models.FeatureHookNet(copy.deepcopy(network), (2,), default_hook_type="forward_pre").eval()
    given = timm.models.FeatureHookNet(copy.deepcopy(network), (1,)).eval()
    torch.testing.assert_close(taken(x), given(x))
    graph = timm.models.FeatureGraphNet(network, (1, 3), return_dict=True)
    assert list(graph(x)) == ["1", "3"]
    assert isinstance(timm.models.GraphExtractNet(network, ["layer1"])(x), torch.Tensor)
    with pytest.raises(OptionError, match="names 1 levels of 2"):
        timm.models.FeatureGraphNet(network, (1, 3), out_map={"layer1": "a"})
    with pytest.raises(OptionError, match="forward_pre"):
        timm.models.FeatureHooks([{"module": "layer1", "hook_type": "backward"}], network.named_modules())


def test_levels_by_name():
    model, x = timm.create_model("test_vit").eval(), torch.randn(1, 3, 160, 160)
    with torch.no_grad():
        features, levels = model.forward_intermediates(x, norm=True)
        found = model.forward_intermediates(x, norm=True, output_dict=True, return_prefix_tokens=True)
    assert list(found) == ["image_intermediates", "image_intermediates_prefix", "image_features"]
    torch.testing.assert_close(found["image_intermediates"], levels)
    torch.testing.assert_close(found["image_features"], features)
    assert {each.shape for each in found["image_intermediates_prefix"]} == {(1, 1, 64)}
    assert list(model.forward_intermediates(x, 1, output_dict=True, intermediates_only=True)) == ["image_intermediates"]
    naflex = timm.create_model("naflexvit_base_patch16_gap", embed_dim=64, depth=2, num_heads=2).eval()
    record = {"patches": torch.randn(1, 6, 768), "patch_coord": torch.zeros(1, 6, 2, dtype=torch.long),
              "patch_valid": torch.arange(6)[None] < 4}  # fmt: skip
    found = naflex.forward_intermediates(record, output_fmt="NLC", output_dict=True)
    assert torch.equal(found["patch_valid"], record["patch_valid"])
    assert found["image_intermediates"][0].shape == (1, 6, 64)


@pytest.mark.parametrize("name", ["efficientnet_b0", "mobilenetv1_100", "tf_efficientnetv2_b0", "hardcorenas_a"])
def test_levels_ahead_of_the_projections(name):
    model = timm.create_model(name, features_only=True, feature_location="expansion").eval()
    plain = timm.create_model(name, features_only=True)
    assert list(model.state_dict()) == list(plain.state_dict())
    maps = copy.deepcopy(model)(torch.randn(1, 3, 64, 64))
    assert [each.shape[1] for each in maps] == model.feature_info.channels()
    assert [64 // each.shape[2] for each in maps] == model.feature_info.reduction() == plain.feature_info.reduction()
    given, part = [], model.network.get_submodule(model.feature_info.module_name()[1])
    part.register_forward_pre_hook(lambda module, args: given.append(args[0]))
    assert torch.equal(model(torch.randn(1, 3, 64, 64))[1], given[0])


def test_levels_without_an_expansion_are_named():
    for name, words in (("mobilenetv3_small_100", "bn1"), ("resnet18", "leave it out")):
        with pytest.raises(OptionError, match=words), torch.device("meta"):
            timm.create_model(name, features_only=True, feature_location="depthwise")
    with pytest.raises(OptionError, match="'bottleneck', 'expansion' or 'depthwise'"), torch.device("meta"):
        timm.create_model("efficientnet_b0", features_only=True, feature_location="inside")


def test_a_class_token_that_joins_late_is_a_prefix_of_the_features_alone():
    model = timm.create_model("cait_xxs24_224", img_size=32, depth=2).eval()
    x = torch.randn(1, 3, 32, 32)
    assert model.num_prefix_tokens == 1
    assert model.forward_features(x)[:, model.num_prefix_tokens :].shape == (1, 4, 192)
    assert model.forward_intermediates(x, 1, intermediates_only=True)[0].shape == (1, 192, 2, 2)


def test_hooks_keep_a_network_whole_or_take_it_apart():
    x = torch.randn(1, 3, 64, 64)
    whole = timm.create_model("tf_mobilenetv3_small_minimal_100", features_only=True, feature_cls="hook").eval()
    assert "body.conv_head.weight" in whole.state_dict() and "body.classifier.weight" not in whole.state_dict()
    apart = timm.create_model("mobilevitv2_050", features_only=True, feature_cls="hook").eval()
    assert not any(key.startswith("body.") for key in apart.state_dict())
    plain = timm.create_model("mobilevitv2_050", features_only=True).eval()
    plain.load_state_dict(apart.state_dict())
    torch.testing.assert_close(apart(x), plain(x))
    named = timm.create_model("mobilevitv2_050", features_only=True, feature_cls="dict", out_indices=(1, 3)).eval()
    assert list(named(x)) == ["1", "3"] and len(whole(x)) == 5


def test_an_extractor_keeps_the_keys_of_the_fields():
    model = timm.create_model("efficientvim_m1", features_only=True)
    assert not dict(model.named_parameters())["model.weights"].requires_grad
    with torch.device("meta"):
        model = timm.create_model("gemma4_vit_570m", features_only=True)
    spare = {"model.encoder.std_bias", "model.encoder.std_scale"}
    assert spare <= model.state_dict().keys()
    model.load_state_dict({key: each for key, each in model.state_dict().items() if key not in spare}, assign=True)


def test_an_extractor_leaves_the_callers_network_as_it_is():
    model, x = timm.create_model("test_resnet").eval(), torch.randn(1, 3, 64, 64)
    before, logits = [*model.state_dict()], model(x)
    for kind in (timm.models.FeatureListNet, timm.models.FeatureDictNet):
        net = kind(model, out_indices=(0, 1)).eval()
        assert len(net(x)) == 2 and [*model.state_dict()] == before
        torch.testing.assert_close(model(x), logits)
        assert net.conv1[0].weight is model.conv1[0].weight and not net.layer4.state_dict()


@pytest.mark.parametrize("name", ["test_efficientnet", "mobilenetv3_small_050", "hardcorenas_a", "mobilenetv5_base"])
def test_every_stage_counts_as_a_level(name):
    made, x = dict(num_classes=0), torch.randn(1, 3, 64, 64)
    model = timm.create_model(name, **made).eval()
    with torch.no_grad():
        levels = model.forward_intermediates(x, extra_blocks=True, intermediates_only=True)
        usual = model.forward_intermediates(x, intermediates_only=True)
    assert len(levels) == 1 + len(model.blocks)
    assert all(any(torch.equal(one, each) for each in levels) for one in usual)
    for index in (0, 2, len(levels) - 1):
        pruned = timm.create_model(name, **made).eval()
        pruned.load_state_dict(model.state_dict())
        assert pruned.prune_intermediate_layers([index], extra_blocks=True) == [index]
        assert len(pruned.blocks) == index
        with torch.no_grad():
            found = pruned.forward_intermediates(x, extra_blocks=True, intermediates_only=True)
            torch.testing.assert_close(found, levels[: index + 1])
            left = pruned.forward_intermediates(x, intermediates_only=True)
            assert all(any(torch.equal(one, each) for each in levels[: index + 1]) for one in left)
        pruned.reset_classifier(3, "avg")
        assert pruned(x).shape == (1, 3)
    with pytest.raises(OptionError, match="leave extra_blocks out"):
        timm.create_model("test_resnet").forward_intermediates(x, extra_blocks=True)


def test_levels_that_a_network_has_not_are_refused():
    model, x = timm.create_model("test_vit"), torch.randn(1, 3, 160, 160)
    with pytest.raises(OptionError, match="leave coarse out"):
        model.forward_intermediates(x, coarse=False)
    with pytest.raises(OptionError, match="leave extra_blocks out"):
        model.prune_intermediate_layers(1, extra_blocks=True)


def test_rows_of_levels_count_stages_and_growth():
    with torch.device("meta"):
        for name, key, wanted in (("efficientnet_b0", "stage", [1, 2, 3, 5, 7]),
                                  ("mobilenetv3_small_050", "stage", [0, 1, 2, 4, 6]),
                                  ("gernet_s", "stage", [0, 1, 2, 3, 5]),
                                  ("rdnet_tiny", "growth_rate", [64, 104, 128, 224])):  # fmt: skip
            assert [row[key] for row in timm.create_model(name).feature_info.info] == wanted
            levels = timm.create_model(name, features_only=True, out_indices=(1, 2)).feature_info
            assert levels.get_dicts([key]) == [{key: each} for each in wanted[1:3]]
        sam = timm.create_model("samvit_base_patch16")
        assert sam.feature_info.info[0]["num_chs_norm"] == 256
        levels = timm.create_model("samvit_base_patch16", features_only=True).feature_info
        assert {row["num_chs_norm"] for row in levels.info} == {768}  # the neck is not among the levels
        sam.prune_intermediate_layers([5])
        assert sam.feature_info.info[5]["num_chs_norm"] == 256
        sam.prune_intermediate_layers([5], prune_norm=True)
        assert sam.feature_info.info[5]["num_chs_norm"] == 768

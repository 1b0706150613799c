"""Feature extractors and pruned networks of every family: no parameter without a gradient, and what is left runs."""

import sys
import warnings
from pathlib import Path

import pytest
import torch

import imgzoo
from imgzoo.errors import CapabilityError, OptionError, UsageError
from imgzoo.model.levels import Leveled

sys.path.insert(0, str(Path(__file__).parent / "parity"))
from small import QUICK, image


def gradients_reach_all(model, x):
    outputs = model(x)
    sum(output.sum() for output in (outputs if isinstance(outputs, list) else [outputs])).backward()
    idle = [name for name, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert not idle, f"{len(idle)} parameters get no gradient: {idle[:5]}"


@pytest.mark.parametrize("name, options", QUICK.items(), ids=list(QUICK))
def test_feature_extractors_keep_no_idle_parameter(name, options):
    count = len(imgzoo.create_model(name, device="meta", **options).feature_info)
    for indices in (None, [0], [count // 2], [count - 1], [0, count // 2]):
        features = imgzoo.create_model(name, features_only=True, out_indices=indices, **options)
        gradients_reach_all(features.train(), image(features.model))


def test_attention_pools_are_not_in_extractors():
    keys = imgzoo.create_model("resnet50_clip", features_only=True, device="meta").state_dict()
    assert not [key for key in keys if "head" in key]


NORMED = [name for name in QUICK if (made := imgzoo.get_spec(name).load()) and made.parts.norm == ("norm",)
          and not made.isotropic and made._final_norm is Leveled._final_norm]  # fmt: skip
"""Networks of several widths whose features are the last level normalized."""


@pytest.mark.parametrize("name", NORMED)
@torch.no_grad()
def test_norm_shows_the_last_level_as_the_features_are(name):
    model = imgzoo.create_model(name, **QUICK[name]).eval()
    for parameter in model.norm.parameters():
        parameter.add_(torch.rand_like(parameter))
    x = image(model)
    features, levels = model.forward_intermediates(x, norm=True)
    bare = model.forward_intermediates(x, intermediates_only=True)
    normed = [not torch.equal(level, other) for level, other in zip(levels, bare, strict=True)]
    assert normed == [index == len(levels) - 1 for index in range(len(levels))]
    torch.testing.assert_close(levels[-1].flatten().sort()[0], features.flatten().sort()[0])  # whatever its layout


@pytest.mark.parametrize("name, options", QUICK.items(), ids=list(QUICK))
@torch.no_grad()
def test_a_part_of_the_callers_own_replaces_the_head(name, options):
    """Clients write `model.head = nn.Identity()`, which takes the features alone."""
    model = imgzoo.create_model(name, device="meta", **options).eval()
    heads = {path.partition(".")[0] for path in model._heads()}
    parts = [name for name in heads if not isinstance(getattr(model, name), torch.nn.ModuleList)]
    for part in parts:
        setattr(model, part, torch.nn.Identity())
    model(image(model).to("meta"))


@pytest.mark.parametrize("name, options", QUICK.items(), ids=list(QUICK))
@torch.no_grad()
def test_stopping_early_leaves_no_state_behind(name, options):
    model = imgzoo.create_model(name, **options).eval()
    features, _ = model.forward_intermediates(image(model, 1), indices=[0], stop_early=True)
    for part in features if isinstance(features, list) else [features]:
        assert isinstance(part, torch.Tensor)


@pytest.mark.parametrize("name, options", QUICK.items(), ids=list(QUICK))
@torch.no_grad()
def test_with_the_last_level_nothing_stops_early(name, options):
    model = imgzoo.create_model(name, **options).eval()
    x = image(model, 1)
    early, _ = model.forward_intermediates(x, indices=[len(model.feature_info) - 1], stop_early=True)
    torch.testing.assert_close(early, model.forward_features(x))


@pytest.mark.parametrize("name", [name for name in QUICK if len(imgzoo.get_spec(name).load().formats) > 1])
@torch.no_grad()
def test_levels_come_in_every_form(name):
    model = imgzoo.create_model(name, **QUICK[name]).eval()
    maps, *others = (model.forward_intermediates(image(model, 1), intermediates_only=True, output_fmt=form)
                     for form in model.formats)  # fmt: skip
    assert len(others) == 1 and len(others[0]) == len(maps)
    for other, level in zip(others[0], maps, strict=True):
        expected = level.permute(0, 2, 3, 1)
        torch.testing.assert_close(other, expected if "NHWC" in model.formats else expected.flatten(1, 2))


@torch.no_grad()
def test_what_a_path_that_stops_early_ends_in():
    def features(name, **how):
        model = imgzoo.create_model(name, **QUICK[name]).eval()
        features, (level,) = model.forward_intermediates(image(model, 1), [0], stop_early=True, **how)
        return features, level

    assert torch.equal(*features("twins_svt_small"))
    assert torch.equal(*features("samvit_base_patch16_224", norm=True)), "the neck fits every level"
    tokens, level = features("hiera_tiny_224")
    assert torch.equal(tokens, level.flatten(2).transpose(1, 2))
    tokens, level = features("pit_ti_224")
    assert tokens.shape == (1, 1, level.shape[1]), "class tokens"


def test_levels_are_normalized_named_and_kept_whole_where_asked():
    torch.manual_seed(0)
    x = torch.randn(1, 3, 64, 64)
    plain = imgzoo.create_model("test_vit", img_size=64).eval()
    for parameter in plain.parameters():
        torch.nn.init.normal_(parameter, std=0.5)

    def levels(**cfg):
        model = imgzoo.create_model("test_vit", img_size=64, features_only=True, out_indices=(1, 2), feature_cfg=cfg)
        model.eval().load_state_dict(plain.state_dict(), strict=False)
        return model, model(x)

    bare, raw = levels()
    full, normed = levels(norm=True)
    assert isinstance(bare.model.norm, torch.nn.Identity) and len(bare.model.blocks) == 3 < len(plain.blocks)
    for level, expected in zip(normed, raw, strict=True):
        torch.testing.assert_close(level.permute(0, 2, 3, 1), full.model.norm(expected.permute(0, 2, 3, 1)))
    named, found = levels(names=["c4", "c5"], prune=False)
    assert list(found) == ["c4", "c5"] and len(named.model.blocks) == len(plain.blocks)
    torch.testing.assert_close(list(found.values()), raw)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch advises against scripting
        scripted = torch.jit.script(named)(x)
    torch.testing.assert_close(scripted, found)
    assert list(levels(names=True)[1]) == ["blocks.1", "blocks.2"]


@pytest.mark.parametrize(
    ("options", "prefix"), [({}, 1), ({"reg_tokens": 2}, 3), ({"class_token": False, "global_pool": "avg"}, 0)]
)
def test_prefix_tokens_come_beside_the_levels_where_there_are_any(options, prefix):
    model = imgzoo.create_model("vit_tiny_patch16_224", depth=1, img_size=32, **options).eval()
    (level,) = model.forward_intermediates(
        torch.zeros(1, 3, 32, 32), [0], intermediates_only=True, return_prefix_tokens=True
    )
    if prefix:
        level, tokens = level
        assert tokens.shape == (1, prefix, 192)
    assert level.shape == (1, 192, 2, 2)


def test_senseless_levels_are_refused():
    def make(name="test_resnet", **options):
        imgzoo.create_model(name, device="meta", **options)

    with pytest.raises(CapabilityError, match="test_resnet has no norm for all its levels"):
        make(features_only=True, feature_cfg={"norm": True})
    with pytest.raises(UsageError, match="names are 2 different ones"):
        make(features_only=True, out_indices=(0, 1), feature_cfg={"names": ["a", "a"]})
    with pytest.raises(OptionError, match="no option 'out_map'; it takes output_fmt, norm, prune, names"):
        make(features_only=True, feature_cfg={"out_map": ["a"]})
    with pytest.raises(OptionError, match="feature_cfg needs features_only=True"):
        make(feature_cfg={"norm": True})


@torch.no_grad()
def levels_left(model, x, whole, deepest):
    """A pruned network has the levels up to the deepest, as they were; it counts from there, and refuses others."""
    left = model.forward_intermediates(x, intermediates_only=True)
    assert model.levels_left[-1] == deepest
    for place, found in zip(model.levels_left, left, strict=True):
        torch.testing.assert_close(found, whole[place])
    torch.testing.assert_close(model.forward_intermediates(x, [-1], intermediates_only=True)[0], whole[deepest])
    assert len(model.forward_intermediates(x, 1, intermediates_only=True)) == 1
    if deepest + 1 < len(whole):
        with pytest.raises(UsageError, match=f"index {len(whole) - 1} is out of range"):
            model.forward_intermediates(x, [len(whole) - 1])


@pytest.mark.parametrize("name, options", QUICK.items(), ids=list(QUICK))
def test_pruned_networks_run_and_take_a_classifier(name, options):
    count = len(imgzoo.create_model(name, device="meta", **options).feature_info)
    for index in sorted({0, count // 2, count - 1}):
        model = imgzoo.create_model(name, drop_rate=0.0, **options).eval()
        x = image(model)
        with torch.no_grad():
            whole = model.forward_intermediates(x, intermediates_only=True)
        model.prune_intermediate_layers([index], prune_norm=True)
        assert model(x).isfinite().all()
        levels_left(model, x, whole, index)
        try:
            model.reset_classifier(3, model.pooled_at_first)
        except UsageError:  # the token that it pooled by went with the head
            model.reset_classifier(3, "avg")
        model.train()
        logits = model(x)
        assert logits.shape == (2, 3), f"level {index}: {tuple(logits.shape)}"
        gradients_reach_all(model, x)


@pytest.mark.parametrize("name, options", QUICK.items(), ids=list(QUICK))
@torch.no_grad()
def test_keeping_the_head_at_the_last_level_changes_nothing(name, options):
    model = imgzoo.create_model(name, **options).eval()
    x, before = image(model), list(model.state_dict())
    logits = model(x)
    model.prune_intermediate_layers([-1], prune_head=False)
    assert list(model.state_dict()) == before
    torch.testing.assert_close(model(x), logits)


@pytest.mark.parametrize("name, options", QUICK.items(), ids=list(QUICK))
@torch.no_grad()
def test_the_norm_goes_by_itself_where_the_head_stays(name, options):
    model = imgzoo.create_model(name, **options).eval()
    x, before, norms = image(model), set(model.state_dict()), [path for path in model.parts.norm if "norm" in path]
    norms += ["norm"] * name.startswith("efficientvim")  # a list, with one for each level
    chosen = model.prune_intermediate_layers([-1], prune_norm=True, prune_head=False)
    assert before - set(model.state_dict()) == {
        key for key in before if key.startswith(tuple(f"{path}." for path in norms))
    }
    assert chosen == [len(model.feature_info) - 1] and model(x).isfinite().all()


@pytest.mark.parametrize("name", ["coat_tiny", "crossvit_9_240"])
def test_extractors_keep_no_norm_of_other_levels(name):
    count = len(imgzoo.create_model(name, device="meta", **QUICK.get(name, {})).feature_info)
    for indices in ([count - 1], [count // 2], [0, count - 1]):
        cfg = {"norm": True} if name.startswith("crossvit") else {}
        model = imgzoo.create_model(
            name, features_only=True, out_indices=indices, feature_cfg=cfg, **QUICK.get(name, {})
        )
        gradients_reach_all(model.train(), image(model.model))
    model = imgzoo.create_model(name, **QUICK.get(name, {})).train()
    x = image(model)
    model.prune_intermediate_layers([count - 1])
    model.forward_intermediates(x, [count - 1], norm=True, intermediates_only=True)[0].sum().backward()
    idle = [key for key, each in model.named_parameters() if each.grad is None]
    assert idle == (["norm.0.weight", "norm.0.bias"] if name.startswith("crossvit") else [])  # which `forward` needs
    gradients_reach_all(model, x)


@torch.no_grad()
def test_a_pruned_network_ends_in_its_norm():
    model = imgzoo.create_model("coat_lite_tiny").eval()
    model.norm4.weight.mul_(3)
    x = image(model)
    expected = model.forward_features(x)
    model.prune_intermediate_layers([3])
    torch.testing.assert_close(model.forward_features(x), expected)
    torch.testing.assert_close(model.forward_intermediates(x)[0], expected)


@torch.no_grad()
def test_a_pruned_volo_ends_in_tokens():
    model = imgzoo.create_model("volo_d1_224", **QUICK["volo_d1_224"]).eval()
    x = image(model)
    level = model.forward_intermediates(x, [3], norm=True, intermediates_only=True)[0]
    model.prune_intermediate_layers([3])
    torch.testing.assert_close(model.forward_features(x), level.flatten(2).transpose(1, 2))
    torch.testing.assert_close(model.forward_intermediates(x)[0], model.forward_features(x))
    model.reset_classifier(3, "avg")
    assert model(x).shape == (2, 3)


LATE = ["dpn48b", "test_efficientnet", "fastvit_t8", "pit_ti_224", "test_nfnet", "mobilevit_xxs",
        "samvit_base_patch16_224"]  # fmt: skip
"""Networks with layers between their last level and the head."""


@pytest.mark.parametrize("name", LATE)
def test_what_the_last_level_does_not_need_goes_with_the_head(name):
    model = imgzoo.create_model(name, drop_path_rate=0.0, **QUICK[name]).train()
    x, last = image(model), len(model.feature_info) - 1
    model.prune_intermediate_layers([last])
    sum(level.sum() for level in model.forward_intermediates(x, [last], norm=True, intermediates_only=True)).backward()
    assert [key for key, each in model.named_parameters() if each.requires_grad and each.grad is None] == []


ENDING = [name for name in QUICK if imgzoo.get_spec(name).load().shortened is not None]
"""Networks that end otherwise when they are pruned."""


@pytest.mark.parametrize("name", ENDING)
@torch.no_grad()
def test_features_of_a_pruned_network_are_what_forward_features_gives(name):
    for index in range(len(imgzoo.create_model(name, device="meta", **QUICK[name]).feature_info)):
        model = imgzoo.create_model(name, **QUICK[name]).eval()
        x = image(model)
        expected = model.forward_intermediates(x, [index], intermediates_only=True)
        model.prune_intermediate_layers([index])
        features, levels = model.forward_intermediates(x, [index])
        torch.testing.assert_close(levels, expected)
        torch.testing.assert_close(features, model.forward_features(x))


@pytest.mark.parametrize("name", ["efficientvim_m1", "efficientvim_m1_dist"])
@torch.no_grad()
def test_a_pruned_state_space_network_pools_the_states_of_the_stages_that_are_left(name):
    for index, widths in enumerate([[128, 128], [128, 192, 192], [128, 192, 320, 320]]):
        model = imgzoo.create_model(name).eval()
        x, taught = image(model), [each for each in ("weights", "weights_dist") if hasattr(model, each)]
        states = model.forward_features(x)[: index + 1]
        levels = model.forward_intermediates(x, [index], intermediates_only=True)
        model.prune_intermediate_layers([index])
        features, found = model.forward_intermediates(x, [index])
        torch.testing.assert_close(found, levels)
        torch.testing.assert_close(features[-1], levels[0].flatten(2))
        torch.testing.assert_close(features[-2], states[-1])
        assert model(x).shape == (len(x), sum(widths)) == (len(x), model.num_features)
        assert [model.get_parameter(each).requires_grad for each in taught] == [False] * len(taught)
        model.reset_classifier(3)
        assert [head.in_features for head in model.heads] == widths and model(x).shape == (len(x), 3)
        assert all(model.get_parameter(each).requires_grad for each in taught)
    model = imgzoo.create_model(name, device="meta")
    with pytest.raises(UsageError, match="prune_head=True"):
        model.prune_intermediate_layers([0], prune_head=False)


@pytest.mark.parametrize("name", ["efficientvim_m1", "test_resnet", "test_vit", "nasnetalarge"])
@torch.no_grad()
def test_all_levels_of_a_pruned_network_are_those_that_are_left(name):
    model = imgzoo.create_model(name, **QUICK[name]).eval()
    x = image(model)
    expected = model.forward_intermediates(x, [0, 1], intermediates_only=True)
    model.prune_intermediate_layers([0, 1])
    torch.testing.assert_close(model.forward_intermediates(x, intermediates_only=True), expected)


@torch.no_grad()
def test_nothing_of_a_head_acts_on_the_levels_of_a_pruned_network():
    model = imgzoo.create_model("mobilenetv3_small_050").eval()
    model.prune_intermediate_layers([3])
    model.reset_classifier(0, "avg")
    x = image(model)
    torch.testing.assert_close(model(x), model.forward_features(x).mean((2, 3)))


@pytest.mark.parametrize("norm", [False, True])
def test_levels_behind_the_neck_have_its_width(norm):
    options = dict(img_size=64, embed_dim=64, depth=2, num_heads=2, global_blocks=(1,), neck_chans=32)
    features = imgzoo.create_model("samvit_base_patch16", features_only=True, out_indices=[0],
                                   feature_cfg={"norm": norm}, **options)  # fmt: skip
    (level,) = features(torch.randn(1, 3, 64, 64))
    assert features.feature_info.channels() == [level.shape[1]] == [32 if norm else 64]


@torch.no_grad()
def test_the_norm_of_a_level_stays_with_it():
    model = imgzoo.create_model("efficientvim_m1", **QUICK["efficientvim_m1"]).eval()
    for parameter in model.norm.parameters():
        parameter.add_(torch.rand_like(parameter))
    x = image(model)
    expected = model.forward_intermediates(x, [0], norm=True, intermediates_only=True)
    model.prune_intermediate_layers([0])
    torch.testing.assert_close(model.forward_intermediates(x, norm=True, intermediates_only=True), expected)
    assert [key for key in model.state_dict() if key.startswith("norm.")] == ["norm.0.weight", "norm.0.bias"]

"""Heads with layers between the pool and the classifier, and classifiers behind a batch norm."""

import json

import pytest
import torch
from torch import nn

import imgzoo
from imgzoo_layers.reparam import reparameterize

HIDDEN = ["hgnetv2_b0", "inception_next_atto", "test_mambaout", "fasternet_t0"]


@pytest.mark.parametrize("name", HIDDEN)
def test_feature_extractors_keep_no_idle_layers(name):
    model = imgzoo.create_model(name, features_only=True).train()
    sum(level.sum() for level in model(torch.randn(4, 3, 64, 64))).backward()
    assert [key for key, parameter in model.named_parameters() if parameter.grad is None] == []


@pytest.mark.parametrize("name", HIDDEN)
def test_a_pruned_model_grows_a_linear_head(name):
    model = imgzoo.create_model(name).eval()
    model.prune_intermediate_layers([len(model.feature_info) - 1])
    model.reset_classifier(3, "avg")
    assert model(torch.randn(2, 3, 64, 64)).shape == (2, 3)
    assert model.get_classifier().in_features == model.num_features


@pytest.mark.parametrize("name", HIDDEN)
def test_a_pool_of_twice_the_width_is_refused(name):
    with pytest.raises(imgzoo.errors.UsageError, match="avg, max, avgmax"):
        imgzoo.create_model(name, global_pool="catavgmax", device="meta")


def test_norms_go_with_the_last_class_and_come_back():
    model = imgzoo.create_model("repvit_m0_9", num_classes=5).eval()
    state, x = model.state_dict(), torch.randn(2, 3, 64, 64)
    model.reset_classifier(0)
    assert not any(key.startswith("head.") for key in model.state_dict())
    assert torch.equal(model(x), model.forward_head(model.forward_features(x), pre_logits=True))
    model.reset_classifier(5, "catavgmax")
    assert model(x).shape == (2, 5)
    assert model.head.head.bn.num_features == 2 * model.num_features
    assert not model.fit_state(dict(state))
    empty = imgzoo.create_model("repvit_m0_9", num_classes=0)
    empty.fit_state(state)
    assert not any(".bn." in key for key in state if key.startswith("head."))
    with pytest.raises(ValueError, match="num_classes=0"):
        model.reset_classifier(5, "")


def test_weights_of_a_pooled_classifier_answer_at_every_place(tmp_path):
    model = imgzoo.create_model("test_convnext", num_classes=3).eval()
    imgzoo.save_model(model, tmp_path)
    dense = imgzoo.create_model(str(tmp_path), pretrained=True, global_pool="").eval()
    assert isinstance(dense.get_classifier(), nn.Conv2d) and dense.load_report.initialized == []
    x = torch.randn(1, 3, 32, 32)  # one place
    torch.testing.assert_close(dense(x)[:, :, 0, 0], model(x))
    for pool, kind in (("avg", nn.Linear), ("", nn.Conv2d)):
        dense.reset_classifier(5, pool)
        assert isinstance(dense.get_classifier(), kind)
    assert dense(x.repeat(1, 1, 2, 3)).shape == (1, 5, 2, 3)


def test_two_classifiers_answer_apart_while_distilling():
    model = imgzoo.create_model("repvit_m0_9", num_classes=5).train()
    model.set_distilled_training()
    first, second = model(torch.randn(2, 3, 64, 64))
    assert first.shape == second.shape == (2, 5)
    assert model.eval()(torch.randn(2, 3, 64, 64)).shape == (2, 5)


def test_the_taught_classifier_goes_as_another_is_put_in(tmp_path):
    model = imgzoo.create_model("repvit_m0_9", embed_dim=(8, 16, 24, 32), depth=(1, 1, 1, 1)).eval()
    assert len(model.get_classifier()) == 2
    model.reset_classifier(3)
    assert not [key for key in model.state_dict() if "dist" in key] and isinstance(model.get_classifier(), nn.Linear)
    model.set_distilled_training()
    assert model.train()(torch.randn(2, 3, 64, 64)).shape == (2, 3)
    imgzoo.save_model(model.eval(), tmp_path)
    again, x = imgzoo.create_model(str(tmp_path), pretrained=True).eval(), torch.randn(1, 3, 64, 64)
    assert torch.equal(again(x), model(x)) and again.load_report.initialized == []
    assert json.loads((tmp_path / "config.json").read_text())["model_args"]["distillation"] is False


@pytest.mark.parametrize("name", ["repvit_m0_9", "repvit_m1"])
def test_repvit_merges(name):
    torch.manual_seed(0)
    model = imgzoo.create_model(name, num_classes=5).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    x, merged = torch.randn(2, 3, 64, 64), reparameterize(model)
    with torch.no_grad():
        torch.testing.assert_close(merged(x), model(x), rtol=1e-3, atol=1e-4)
    assert not any("token_mixer.conv." in key for key in merged.state_dict())


@pytest.mark.parametrize("side", [224, 256])
def test_the_layer_behind_vggs_map_is_a_convolution_of_any_map(side):
    model = imgzoo.create_model("vgg11").eval()
    x = torch.randn(1, 512, side // 32, side // 32, dtype=torch.double)
    layer = model.pre_logits.fc1.double()
    with torch.no_grad():
        torch.testing.assert_close(layer(x), torch.nn.functional.conv2d(x, layer.weight, layer.bias))

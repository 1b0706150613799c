"""A sound model passes every check; each deliberately broken one is caught by the check meant for it."""

import subprocess
import sys

import pytest
import torch
from tiny_models import TinyNet, plugin
from torch import nn

import imgzoo
from imgzoo.model import Feature, FeatureInfo
from imgzoo.testing import check_model, check_plugin


@pytest.fixture(autouse=True)
def fresh():
    imgzoo.reload()
    yield
    imgzoo.reload()


def failures(cls, **row):
    """Names of the checks that fail for a model class."""
    imgzoo.register(plugin(cls, **row), "tinyplug")
    return {result.name for result in check_model("tiny") if result.status == "failed"}


def test_a_sound_model_passes():
    assert failures(TinyNet, capabilities=frozenset({"compile", "export", "script", "bf16"})) == set()


class WrongChannels(TinyNet):
    def __init__(self, **options):
        super().__init__(**options)
        self.feature_info = FeatureInfo([Feature(5, 4, "stages.0"), Feature(32, 8, "stages.1")])


class WrongStride(TinyNet):
    def __init__(self, **options):
        super().__init__(**options)
        self.feature_info = FeatureInfo([Feature(16, 2, "stages.0"), Feature(32, 8, "stages.1")])


class ResetLosesDtype(TinyNet):
    def reset_classifier(self, num_classes, global_pool=None):
        self.num_classes = num_classes
        self.fc = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()


class ResetLosesDevice(TinyNet):
    def reset_classifier(self, num_classes, global_pool=None):
        super().reset_classifier(num_classes, global_pool)
        if num_classes:
            self.fc = nn.Linear(self.num_features, num_classes, device="cpu", dtype=self.stem.weight.dtype).eval()


class LeaksBatch(TinyNet):
    def forward_features(self, x):
        x = super().forward_features(x)
        return x - x.mean(0, keepdim=True)


class UnusedParameter(TinyNet):
    def __init__(self, **options):
        super().__init__(**options)
        self.forgotten = nn.Linear(3, 3)


class WrongClassifier(TinyNet):
    def get_classifier(self):
        return self.stem


class WrongHeadSize(TinyNet):
    def __init__(self, **options):
        super().__init__(**options)
        self.num_features = 16


class DropsInEval(TinyNet):
    def forward_head(self, x, pre_logits=False):
        x = torch.dropout(self.global_pool(x), 0.5, True)
        return x if pre_logits else self.fc(x)


class ForwardTakesAnotherPath(TinyNet):
    def forward(self, x):
        return self.fc(self.forward_features(x).amax((2, 3)))


class ThreeChannelsOnly(TinyNet):
    def __init__(self, in_chans=3, **options):
        super().__init__(in_chans=in_chans, **options)
        self.stem = nn.Conv2d(3, 8, 3, 2, 1)


class UnseededInit(TinyNet):
    def __init__(self, **options):
        super().__init__(**options)
        with torch.no_grad():
            self.stem.weight.copy_(torch.randn(self.stem.weight.shape, generator=_fresh()))


def _fresh():
    generator = torch.Generator()
    generator.seed()
    return generator


class LosesBuffer(TinyNet):
    """The table depends on a parameter's initial value, which a placeholder does not have."""

    def __init__(self, **options):
        super().__init__(**options)
        self.table = torch.rand(self.num_features)


def any_option(num_classes=10, in_chans=3, **anything):
    """A constructor function that swallows what it does not know."""
    return TinyNet(num_classes=num_classes, in_chans=in_chans)


class NoLayers(TinyNet):
    layer_groups = {"stem": r"^nothing", "blocks": r"^nothing"}


class PrunesNothing(TinyNet):
    def prune_intermediate_layers(self, indices=1, prune_norm=False, prune_head=True):
        return [0]


class BreaksGraph(TinyNet):
    def forward_features(self, x):
        return super().forward_features(x) * (2 if x.sum().item() > 0 else 1)


class RejectsRates(TinyNet):
    def __init__(self, num_classes=10, in_chans=3, global_pool="avg"):
        super().__init__(num_classes=num_classes, in_chans=in_chans, global_pool=global_pool)


@pytest.mark.parametrize("cls, check", [
    (WrongChannels, "levels_are_true"), (WrongStride, "levels_are_true"), (ResetLosesDtype, "classifier_resets"),
    (ResetLosesDevice, "classifier_resets"), (LeaksBatch, "images_are_independent"),
    (UnusedParameter, "parameters_are_used"), (WrongClassifier, "classifier_is_named"),
    (WrongHeadSize, "num_features"), (DropsInEval, "eval_is_deterministic"),
    (ForwardTakesAnotherPath, "parts_compose"), (ThreeChannelsOnly, "input_channels"),
    (UnseededInit, "init_is_seeded"), (LosesBuffer, "state_survives"), (NoLayers, "layers_are_grouped"),
    (PrunesNothing, "pruning_keeps_levels"), (RejectsRates, "rates_are_taken"),
    (any_option, "unknown_options_are_refused"),
], ids=lambda value: value if isinstance(value, str) else value.__name__)  # fmt: skip
def test_a_broken_model_is_caught(cls, check):
    assert check in failures(cls)


def test_a_claimed_capability_is_proven():
    assert "compile" in failures(BreaksGraph, capabilities=frozenset({"compile"}))


def test_an_eager_plugin_is_caught(site):
    """A plugin module that imports torch at discovery fails the static tier."""
    (site.path / "eager_plugin.py").write_text("import torch\nIMGZOO_API = (1, 0)\n")
    done = subprocess.run([sys.executable, "-c", "import sys; sys.path.insert(0, sys.argv[1])\n"
                           "import imgzoo.testing.static as s\n"
                           "class Info: value, dist = 'eager_plugin', 'eager'\n"
                           "try: s.torch_free(Info)\n"
                           "except AssertionError as e: print('caught', e)", str(site.path)],
                          capture_output=True, text=True)  # fmt: skip
    assert "caught importing eager_plugin needs a heavy library" in done.stdout, done.stderr


def test_expected_failures_are_strict():
    imgzoo.register(plugin(WrongChannels), "tinyplug")
    reasons = {"model:tiny:levels_are_true": "known", "model:tiny:forward_shape": "stale"}
    results = {r.name: r for r in check_plugin("tinyplug", tiers=("model",), expected_failures=reasons)}
    assert results["levels_are_true"].status == "expected"
    assert results["forward_shape"].status == "failed" and "remove the entry" in results["forward_shape"].message

"""Networks and extractors as TorchScript and fx take them."""

import pytest
import torch
from client_code import scripting
from torch import nn
from torchvision.models import feature_extraction

import imgzoo_timm as timm
from imgzoo_timm import layers


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["test_vit", "convit_tiny"])
def test_extractors_that_keep_the_network_script(name):
    model = timm.models.FeatureGetterNet(timm.create_model(name).eval(), out_indices=[0]).eval()
    x = torch.randn(1, *model.default_cfg["input_size"])
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(model)(x), model(x))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", scripting())
def test_what_scripts_natively_scripts_here(name):
    model = timm.create_model(name).eval()
    x = torch.randn(1, *model.default_cfg["input_size"])
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(model)(x), model(x))


TOKENS, MAP = torch.randn(2, 16, 24), torch.randn(2, 24, 8, 8)
LAYERS = [
    ("AttentionPoolLatent", dict(num_heads=4), TOKENS), ("AttentionRope", dict(num_heads=4), TOKENS),
    ("AttentionRope", dict(num_heads=4, qkv_fused=False), TOKENS), ("DiffAttention", dict(num_heads=4), TOKENS),
    ("Attention", dict(num_heads=4, gated=True), TOKENS), ("LayerNormAct", {}, TOKENS), ("RmsNormAct", {}, TOKENS),
    ("LayerNormActFp32", {}, TOKENS), ("LayerNormAct2dFp32", {}, MAP), ("RmsNormActFp32", {}, TOKENS),
    ("RmsNormAct2dFp32", {}, MAP), ("RmsNorm2dFp32", {}, MAP), ("SimpleNorm2dFp32", {}, MAP),
    ("FrozenBatchNormAct2d", {}, MAP), ("FilterResponseNormAct2d", {}, MAP), ("Attention2d", dict(num_heads=4), MAP),
    ("MultiQueryAttentionV2", {}, MAP), ("BlurPool2d", {}, MAP),
    *((gate, dict(add_maxpool=wide), MAP) for gate in ("SqueezeExcite", "EffectiveSqueezeExcite")
      for wide in (False, True)),
    *(("ClassifierHead", dict(num_classes=5, use_conv=conv), MAP) for conv in (False, True)),
]  # fmt: skip
BARE = [
    *(("SelectAdaptivePool2d", dict(pool_type=kind, output_size=size), MAP)
      for kind in ("avg", "max", "avgmax", "catavgmax", "") for size in (1, 2)),
    *((bias, dict(window_size=4, num_heads=3), torch.randn(2, 3, 16, 16))
      for bias in ("RelPosBias", "RelPosBiasTf", "RelPosMlp")),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("row", [*LAYERS, *BARE], ids=lambda row: "-".join(map(str, (row[0], *row[1].values()))))
def test_layers_of_a_callers_own_network_script(row):
    name, options, x = row
    widths = () if row in BARE else (24,)
    layer = getattr(layers, name)(*widths, **options).eval()
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(layer)(x), layer(x))


def upright(x):
    return x if x.sum() > 0 else -x


class Upright(nn.Module):
    def forward(self, x):
        return x if x.sum() > 0 else -x


class Calling(nn.Module):
    def forward(self, x):
        return upright(x)


def test_tracers_do_not_look_into_what_is_registered(monkeypatch):
    from imgzoo_timm.layers import _training

    x = -torch.ones(1, 3)
    module, function = layers.register_notrace_module, layers.register_notrace_function
    for part, register, what, kept in ((Upright(), module, Upright, "_leaf_modules"),
                                       (Calling(), function, upright, "_leaf_functions")):  # fmt: skip
        network = nn.Sequential(part, nn.Identity())
        with pytest.raises(torch.fx.proxy.TraceError):
            layers.create_feature_extractor(network, ["1"])
        monkeypatch.setattr(_training, kept, {*getattr(_training, kept)})
        register(what)
        assert torch.equal(layers.create_feature_extractor(network, ["1"])(x)["1"], -x)
        assert "1" in layers.get_graph_node_names(network)[0]


def test_plain_tracers_take_masks_as_arguments():
    model = timm.create_model("test_vit", num_classes=3).eval()
    traced, x = torch.fx.symbolic_trace(model), torch.randn(2, 3, 160, 160)
    torch.testing.assert_close(traced(x), model(x))
    torch.testing.assert_close(traced(x, is_causal=True), model(x, is_causal=True))
    assert not torch.allclose(traced(x, is_causal=True), traced(x))


@pytest.mark.parametrize("name", ["test_vit", "deit_tiny_distilled_patch16_224"])
@torch.no_grad()
def test_a_graph_of_a_vision_transformer_is_scripted(name):
    model = timm.create_model(name).eval()
    x = torch.randn(1, *model.pretrained_cfg["input_size"])
    graph = feature_extraction.create_feature_extractor(model, {"norm": "tokens"})
    torch.testing.assert_close(torch.jit.script(graph)(x)["tokens"], model.forward_features(x))


@torch.no_grad()
def test_a_graph_of_a_network_of_patches_looks_at_an_image():
    model = timm.create_model("naflexvit_base_patch16_gap", embed_dim=96, num_heads=3, depth=1).eval()
    x = torch.randn(1, 3, 64, 64)
    graph = feature_extraction.create_feature_extractor(model, {"norm": "tokens"})
    torch.testing.assert_close(graph(x)["tokens"], model.forward_features(x))


@pytest.mark.parametrize("name", ["vit_dwee_patch16_reg1_gap_256", "vit_dpwee_patch16_reg1_gap_256",
                                  "vit_pwee_patch16_reg1_gap_256", "vit_small_patch16_18x2_224"])  # fmt: skip
def test_a_mask_that_may_come_is_traced(name):
    """Tracers see an argument where nobody gives one."""
    model = timm.create_model(name, img_size=32, depth=2, embed_dim=48, num_heads=3, num_classes=7).eval()
    traced, x = torch.fx.symbolic_trace(model), torch.randn(1, 3, 32, 32)
    mask = torch.zeros(4 + model.num_prefix_tokens, 4 + model.num_prefix_tokens).triu(1) - 1.0
    with torch.no_grad():
        torch.testing.assert_close(traced(x), model(x))
        torch.testing.assert_close(traced(x, mask), model(x, mask))

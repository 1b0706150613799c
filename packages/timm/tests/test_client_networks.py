"""Networks as clients use them: extractors of their own networks, hooks on blocks, batch norms folded away."""

import pickle
import sys
import types

import pytest
import torch
from client_code import HOOKED, Steps
from torch import nn

import imgzoo
import imgzoo_timm as timm
from imgzoo.errors import OptionError


def build(features=True, feature_cfg=None, **kwargs):
    cfg = dict(flatten_sequential=True, **(feature_cfg or {}))
    return timm.models.build_model_with_cfg(Steps, "steps", False, features_only=features, feature_cfg=cfg, **kwargs)


@pytest.mark.parametrize("form", ["list", "dict", "hook", "fx"])
def test_networks_of_a_clients_own_have_extractors(form):
    torch.manual_seed(0)
    x, model = torch.randn(1, 3, 32, 32), build(feature_cls=form, out_indices=(0, 2))
    whole = Steps(0)
    own = {key.replace("stages_", "stages.").removeprefix("graph_module."): each
           for key, each in model.state_dict().items()}  # fmt: skip
    whole.load_state_dict(own)
    given = model(x)
    low, high = given.values() if form == "dict" else given
    torch.testing.assert_close(low, whole.stem(x))
    torch.testing.assert_close(high, whole.stages(whole.stem(x)))
    assert model.feature_info.channels() == [4, 8] and model.feature_info.module_name() == ["stem", "stages.1"]
    assert model.default_cfg["architecture"] == "steps"
    if form in ("list", "dict"):
        assert list(model._modules) == ["stem", "stages_0", "stages_1"]
        assert model.return_layers == {"stem": "0", "stages_1": "2"}


def test_an_extractor_ends_at_its_last_level_and_may_be_checkpointed():
    model = build(out_indices=(1,))
    assert list(model._modules) == ["stem", "stages_0"]
    model.set_grad_checkpointing()
    model.train()(torch.randn(1, 3, 32, 32))[0].sum().backward()
    assert model.grad_checkpointing and all(each.grad is not None for each in model.parameters())
    assert len(build()(torch.randn(1, 3, 32, 32))) == 3  # nothing said: all of up to five levels
    assert [each.shape[1] for each in timm.models.FeatureListNet(Steps(), (0, 2), flatten_sequential=True)(
        torch.randn(1, 3, 32, 32))] == [4, 8]  # fmt: skip
    with pytest.raises(OptionError, match="flatten_sequential=True"):
        timm.models.FeatureListNet(Steps(), (0, 2))


def test_weights_of_a_clients_own_network_without_a_classifier():
    cfg = {"state_dict": Steps(7).state_dict(), "num_classes": 7, "classifier": "head"}
    kwargs = dict(pretrained_cfg=cfg, pretrained_strict=True)
    bare = timm.models.build_model_with_cfg(Steps, "steps", True, num_classes=0, **kwargs)
    torch.testing.assert_close(bare.stem.weight, cfg["state_dict"]["stem.weight"])
    from imgzoo_timm.models import _registry

    _registry.entries["steps"] = build
    try:
        with pytest.raises(RuntimeError, match="Invalid pretrained tag"):
            timm.models.build_model_with_cfg(Steps, "steps", False, pretrained_cfg="nobody")
    finally:
        del _registry.entries["steps"]
    assert timm.models.PretrainedCfg().to_dict()["first_conv"] is None


def test_a_network_of_a_clients_own_reads_its_weights_itself(tmp_path):
    read = []

    class Reading(Steps):
        def load_pretrained(self, checkpoint_path, prefix=""):
            read.append(checkpoint_path)

    path = str(tmp_path / "weights.npz")
    for told in (True, "hf", False):
        cfg = {"file": path, "custom_load": told, "num_classes": 7}
        if told:
            timm.models.build_model_with_cfg(Reading, "steps", True, pretrained_cfg=cfg)
    assert read == [path, path]
    with pytest.raises(FileNotFoundError):
        timm.models.build_model_with_cfg(Reading, "steps", True, pretrained_cfg={**cfg, "custom_load": False})


@pytest.mark.parametrize("overlay, kept", [
    ({}, True), ({"hf_hub_id": ""}, True), ({"url": None}, True), ({"num_classes": 3}, True),
    ({"file": "x.pth"}, False), ({"hf_hub_filename": "x.bin"}, False), ({"file": "x.npz", "custom_load": True}, True),
])  # fmt: skip
def test_weights_of_arrays_are_read_by_the_network_until_others_take_their_place(overlay, kept):
    name = "vit_tiny_patch16_224"
    assert timm.models.resolve_pretrained_cfg(name, pretrained_cfg_overlay=overlay).custom_load is kept
    model = timm.create_model(name, embed_dim=32, depth=1, num_heads=2, pretrained_cfg_overlay=overlay)
    assert model.pretrained_cfg["custom_load"] is kept


def test_whose_weights_are_arrays(tmp_path):
    names = ["resnetv2_50x1_bit.goog_in21k", "flexivit_small.1200ep_in1k", "vit_base_patch16_224.mae", "test_vit"]
    assert [timm.models.get_pretrained_cfg(name).custom_load for name in names] == [True, True, False, False]
    model = timm.create_model("vit_tiny_patch16_224", embed_dim=32, depth=1, num_heads=2, pretrained_cfg={"url": ""})
    assert model.pretrained_cfg["custom_load"] is False
    imgzoo.save_model(timm.create_model("vit_tiny_patch16_224", embed_dim=32, depth=1, num_heads=2), tmp_path)
    assert timm.create_model(f"local-dir:{tmp_path}").pretrained_cfg["custom_load"] is False


def test_networks_read_the_formats_of_their_authors(tmp_path):
    model, other = (timm.create_model("test_vit", num_classes=0) for _ in range(2))
    torch.save({f"backbone.{key}": each for key, each in model.state_dict().items()}, tmp_path / "dino.pth")
    other.load_pretrained(str(tmp_path / "dino.pth"))
    assert all(torch.equal(each, other.state_dict()[key]) for key, each in model.state_dict().items())


@torch.no_grad()
def test_extractors_normalize_the_last_level_where_asked():
    model = timm.create_model("swin_tiny_patch4_window7_224", depths=(1, 1, 1, 1)).eval()
    x = torch.randn(1, 3, 224, 224)
    expected = model.forward_intermediates(x, [2, 3], norm=True, intermediates_only=True)
    assert not torch.equal(expected[1], model.forward_intermediates(x, [3], intermediates_only=True)[0])
    torch.testing.assert_close(timm.models.FeatureGetterNet(model, (2, 3), norm=True)(x), expected)


def test_the_blocks_of_maxvit_are_named_in_the_fields_word():
    told = timm.create_model("test_maxvit", block_type=("PM",) * 4).state_dict()
    assert told.keys() == imgzoo.create_model("test_maxvit", blocks=["PM"] * 4).state_dict().keys()
    assert told.keys() != imgzoo.create_model("test_maxvit").state_dict().keys()


@pytest.mark.parametrize("form", ["list", "getter"])
def test_extractors_tell_of_the_patches_that_the_network_takes_now(form):
    extractor = timm.create_model("swin_tiny_patch4_window7_224", features_only=True, feature_cls=form,
                                  img_size=64, window_size=4, depths=(1, 1, 1, 1))  # fmt: skip
    network = extractor.model if form == "getter" else extractor.network
    network.set_input_size(img_size=32, patch_size=2)
    assert extractor.feature_info.reduction() == [2, 4, 8, 16]
    sides = [max(each.shape[2:]) for each in extractor(torch.randn(1, 3, 32, 32))]
    assert sides == ([16, 8, 4, 2] if form == "getter" else [96, 192, 384, 768])  # NHWC


def test_a_name_that_is_told_anew_has_the_tags_that_are_told():
    from imgzoo_timm.models import _registry

    room = types.ModuleType("told_anew")

    def steps_anew(pretrained=False, **kwargs):
        return Steps(7)

    steps_anew.__module__, sys.modules["told_anew"] = "told_anew", room
    room.default_cfgs = timm.models.generate_default_cfgs({"steps_anew.b": {"hf_hub_id": "me/"}, "steps_anew.c": {}})
    try:
        timm.models.register_model(steps_anew)
        pretrained = [timm.models.is_model_pretrained(f"steps_anew{tag}") for tag in ("", ".b", ".c", ".a")]
        assert pretrained == [True, True, False, False]
        assert timm.models.get_pretrained_cfg("steps_anew.c").tag == "c"
        assert timm.models.get_pretrained_cfg("steps_anew").hf_hub_id == "me/steps_anew.b"
        with pytest.raises(RuntimeError, match=r"Invalid pretrained tag \(a\): there are b, c"):
            timm.models.get_pretrained_cfg("steps_anew.a")
        timm.models.register_model_deprecations("told_anew", {"steps_anew": "resnet18"})
        assert not timm.models.is_model_pretrained("steps_anew")
    finally:
        _registry.renamed.pop("told_anew", None)
        for table in (_registry.entries, _registry.entry_cfgs, sys.modules):
            table.pop("steps_anew", None) or table.pop("told_anew", None)
    assert not timm.models.is_model_pretrained("resnet18.nobodys") and timm.models.is_model_pretrained("resnet18")


@pytest.mark.parametrize("name", [r"\\?\C:\long\resnet18", r"C:\resnet18", "facebook/dinov2-base"])
def test_a_path_is_shown_whole_where_it_is_no_name(name):
    with pytest.raises(ValueError) as told:
        timm.models.parse_model_name(name)
    assert f"hf-hub:{name}" in str(told.value) and f"local-dir:{name}" in str(told.value)


@pytest.mark.parametrize("name", HOOKED)
def test_hooks_on_blocks_see_tokens(name):
    model, seen = timm.create_model(name, num_classes=3, **HOOKED[name]).eval(), []
    native = imgzoo.create_model(name, num_classes=3, **HOOKED[name]).eval()
    native.load_state_dict(model.state_dict())
    for block in model.blocks[:2]:
        block.register_forward_hook(lambda module, args, output: seen.append((args[0], output)))
    x = torch.randn(1, *model.default_cfg["input_size"])
    with torch.no_grad():
        torch.testing.assert_close(model(x), native(x))
    assert all(isinstance(each, torch.Tensor) and each.ndim == 3 for pair in seen for each in pair) and len(seen) == 2
    assert torch.equal(seen[0][1], seen[1][0])
    if name == "convit_tiny":
        assert seen[0][1].shape[1] == 196
    if name not in ("xcit_nano_12_p16_224", "eva02_tiny_patch14_224"):  # what they hand on is asked for
        torch.testing.assert_close(model.blocks[0](seen[0][0]) if name != "convit_tiny" else seen[0][1], seen[0][1])
    model.train().set_grad_checkpointing()
    model(x).sum().backward()
    fresh = timm.create_model(name, **HOOKED[name])
    assert type(pickle.loads(pickle.dumps(fresh)).blocks[0]) is type(fresh.blocks[0])


def test_hooks_on_the_patch_embedding_are_called():
    model, seen = timm.create_model("test_vit").eval(), []
    model.patch_embed.register_forward_hook(lambda module, args, output: seen.append(output.shape))
    model(torch.randn(1, 3, 160, 160))
    assert seen == [(1, 10, 10, 64)]


FOLDED = ["repvit_m1", "levit_128s", "shvit_s1", "iformer_t", "efficientvit_m0", "tiny_vit_5m_224", "ghostnetv3_050",
          "efficientvim_m1", "fastvit_t8"]  # fmt: skip


@pytest.mark.parametrize("name", FOLDED)
def test_norms_of_mobile_networks_are_folded(name):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=3).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1), module.running_var.uniform_(0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5), nn.init.normal_(module.bias, std=0.1)
    model, x = model.double(), torch.randn(1, 3, *model.default_cfg["input_size"][1:]).double()
    folded = timm.utils.reparameterize_model(model)

    def norms(network):
        return sum(isinstance(each, nn.BatchNorm1d | nn.BatchNorm2d) for each in network.modules())

    with torch.no_grad():
        torch.testing.assert_close(folded(x), model(x))
        assert norms(folded) < norms(model) / 2 and (name in ("ghostnetv3_050", "fastvit_t8") or not norms(folded))
        assert hasattr(model, "fuse") == (name in ("repvit_m1", "shvit_s1", "iformer_t"))
        if hasattr(model, "fuse"):
            model.fuse()
            assert list(model.state_dict()) == list(folded.state_dict())


@pytest.mark.parametrize("name", ["levit_128s", "shvit_s1", "efficientvim_m1", "repvit_m0_9"])
@pytest.mark.parametrize("features", [False, True])
def test_batch_norms_go_into_layers(name, features):
    from imgzoo_timm.utils import reparameterize_model

    norms, model = (
        torch.nn.modules.batchnorm._BatchNorm,
        timm.create_model(name, features_only=features).eval().double(),
    )
    for module in model.modules():
        if isinstance(module, norms):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.running_var, 0.5, 1.5)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
    fused, x = reparameterize_model(model), torch.randn(1, 3, 224, 224, dtype=torch.float64)
    assert any(isinstance(module, norms) for module in model.modules())
    assert not any(isinstance(module, norms) for module in fused.modules()) and not fused.training
    with torch.no_grad():
        torch.testing.assert_close(fused(x), model(x))


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256"])
def test_stages_of_swin_tell_of_themselves(name):
    model = timm.create_model(name, device="meta")
    side = model.default_cfg["input_size"][-1] // 4
    told = [(stage.dim, stage.depth, stage.input_resolution, stage.output_resolution) for stage in model.layers]
    assert told[:3] == [(96, 2, (side, side), (side, side)), (96, 2, (side, side), (side // 2, side // 2)),
                        (192, 6, (side // 2, side // 2), (side // 4, side // 4))]  # fmt: skip


def test_beit_has_no_positions_and_says_so():
    assert timm.create_model("beit_base_patch16_224", device="meta").pos_embed is None


def test_weights_of_attention_in_windows():
    model = timm.create_model("swin_tiny_patch4_window7_224", num_classes=0, depths=(2, 1, 1, 1)).eval()
    fused, seen = model(torch.ones(1, 3, 224, 224)), []
    for part in model.layers[0].modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = False
            part.attn_drop.register_forward_hook(lambda part, args, weights: seen.append(weights))
    torch.testing.assert_close(model(torch.ones(1, 3, 224, 224)), fused)
    assert [weights.shape for weights in seen] == 2 * [(64, 3, 49, 49)]

"""Networks beside imgzoo's own: the same numbers, the field's attributes, subclasses, extractors, registered names."""

import copy
import importlib
import pickle
from functools import partial

import pytest
import torch
from torch import nn
from torchvision.models import feature_extraction

import imgzoo
import imgzoo_timm as timm
from imgzoo.errors import OptionError, UsageError
from imgzoo.registry import registry
from imgzoo_layers import pool
from imgzoo_timm import layers
from imgzoo_timm.layers import Attention, DropPath, Mlp, create_pool2d
from imgzoo_timm.models._networks import described
from imgzoo_timm.models.efficientvit_mit import EfficientVit, EfficientVitLarge
from imgzoo_timm.models.vision_transformer import Block, PatchEmbed, VisionTransformer

SMALL = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=3, num_classes=7)


def families():
    found = {}
    for spec in registry("models").specs():
        if spec.name.startswith("test_") or spec.family not in found:
            found[spec.family] = spec.name
    slow = pytest.mark.slow
    return [name if name.startswith("test_") else pytest.param(name, marks=slow) for name in sorted(found.values())]


@pytest.mark.parametrize("name", families())
def test_adopted_networks_stay_themselves(name):
    with torch.device("meta"):
        native, model = imgzoo.create_model(name), timm.create_model(name)
    assert isinstance(model, type(native)) and list(model.state_dict()) == list(native.state_dict())
    seen = model.default_cfg["first_conv"]
    assert ({seen} if isinstance(seen, str) else set(seen)) <= {each for each, _ in model.named_modules()}
    assert model.feature_info.channels() == native.feature_info.channels()
    assert [row["index"] for row in model.feature_info.info] == list(range(len(native.feature_info)))
    assert pickle.loads(pickle.dumps(type(model))) is type(model)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_efficientnet", "test_convnext", "test_byobnet"])
def test_numbers_are_those_of_imgzoo(name):
    native = imgzoo.create_model(name).eval()
    model = timm.create_model(name).eval()
    model.load_state_dict(native.state_dict())
    x = torch.randn(2, *model.default_cfg["input_size"])
    with torch.no_grad():
        torch.testing.assert_close(model(x), native(x))
        torch.testing.assert_close(model.forward_head(model.forward_features(x)), native(x))


def test_parts_have_the_fields_attributes():
    model = timm.create_model("vit_tiny_patch16_224", drop_path_rate=0.2, depth=3)
    block = model.blocks[-1]
    assert isinstance(block, Block) and isinstance(block.attn, Attention) and isinstance(block.mlp, Mlp)
    assert isinstance(block.drop_path1, DropPath) and block.drop_path1.drop_prob == pytest.approx(0.2)
    assert (model.patch_embed.num_patches, model.patch_embed.grid_size) == (196, (14, 14))
    model.set_input_size((96, 128))
    assert model.patch_embed.grid_size == (6, 8) and model.patch_embed.num_patches == 48
    assert model(torch.randn(1, 3, 96, 128)).shape == (1, 1000)
    assert not model.grad_checkpointing
    model.set_grad_checkpointing()
    assert model.grad_checkpointing and isinstance(model.blocks[0], Block)


def test_a_derived_transformer_runs_its_own_path():
    class Derived(VisionTransformer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.extra = nn.Linear(self.embed_dim, self.num_classes)
            self.extra.apply(self._init_weights)

        def forward_features(self, x):
            x = torch.cat([self.cls_token.expand(len(x), -1, -1), self.patch_embed(x)], 1)
            x = self.pos_drop(x + self.pos_embed)
            for block in self.blocks:
                x = block(x)
            return self.norm(x)

    torch.manual_seed(0)
    model = Derived(**SMALL, mlp_ratio=4, qkv_bias=True, norm_layer=partial(nn.LayerNorm, eps=1e-6)).eval()
    plain = VisionTransformer(**SMALL, norm_layer=partial(nn.LayerNorm, eps=1e-6)).eval()
    plain.load_state_dict(model.state_dict(), strict=False)
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model(x), plain(x))
    assert model.norm.eps == 1e-6 and model.extra.bias.abs().sum() == 0
    with pytest.raises(ValueError, match="another size"):
        model(torch.randn(1, 3, 40, 40))
    pickle.dumps(plain)


def test_words_without_a_counterpart_are_named():
    with pytest.raises(OptionError, match="no option nonsense"):
        timm.models.cait.Cait(nonsense=3)
    with pytest.raises(OptionError, match="by name"):
        timm.models.cait.Cait(224)
    with pytest.raises((OptionError, ValueError), match="pos_embed"):
        VisionTransformer(**SMALL, pos_embed="rope")
    with pytest.raises(RuntimeError, match="Unknown model"):
        timm.create_model("resnet_of_nobody")
    assert timm.models.cait.Cait(depth=1, embed_dim=24, num_heads=2, init_values=1e-4, num_classes=3).num_classes == 3


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


def test_registered_names():
    @timm.models.register_model
    def of_this_test(pretrained=False, **kwargs):
        return timm.models.build_model_with_cfg(VisionTransformer, "of_this_test", pretrained, **{**SMALL, **kwargs})

    try:
        assert timm.is_model("of_this_test") and "of_this_test" in timm.list_models("of_this*")
        assert timm.model_entrypoint("of_this_test") is of_this_test
        model = timm.create_model("of_this_test", num_classes=5, drop_rate=None)
        assert model.head.out_features == 5 and model.default_cfg["architecture"] == "of_this_test"
        assert timm.create_model("of_this_test", features_only=True)(torch.randn(1, 3, 32, 32))[0].shape == (
            1,
            24,
            4,
            4,
        )
    finally:
        from imgzoo_timm.models._registry import entries

        del entries["of_this_test"]


def test_checkpoints(tmp_path):
    model, other = (timm.create_model("test_resnet") for _ in range(2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    saver = timm.utils.CheckpointSaver(model, optimizer, checkpoint_dir=str(tmp_path), max_history=2)
    (tmp_path / "last.pth.tar.part").symlink_to(tmp_path.parent / "victim")
    for epoch, metric in enumerate((1.0, 3.0, 2.0)):
        best = saver.save_checkpoint(epoch, metric)
    assert best == (3.0, 1)
    assert not (tmp_path.parent / "victim").exists()  # nothing that stood there was followed
    (tmp_path / "last.pth.tar.part").unlink()
    kept = ["checkpoint-1.pth.tar", "checkpoint-2.pth.tar", "last.pth.tar", "model_best.pth.tar"]
    assert sorted(each.name for each in tmp_path.iterdir()) == kept
    assert timm.models.resume_checkpoint(other, str(tmp_path / "last.pth.tar"), optimizer) == 3
    timm.models.load_checkpoint(other, str(tmp_path / "model_best.pth.tar"))
    torch.testing.assert_close(list(other.parameters()), list(model.parameters()))
    with pytest.raises(FileNotFoundError):
        timm.models.load_checkpoint(other, str(tmp_path / "none.pth"))


def test_patch_embeddings_check_and_pad():
    embed = PatchEmbed(img_size=32, patch_size=8, embed_dim=12)
    with pytest.raises(ValueError, match="another size"):
        embed(torch.randn(1, 3, 33, 32))
    assert PatchEmbed(None, 8, embed_dim=12, dynamic_img_pad=True)(torch.randn(1, 3, 33, 30)).shape == (1, 20, 12)


def test_modules_of_families_have_their_functions():
    module = timm.models.vision_transformer
    assert module.vit_tiny_patch16_224(depth=1, num_classes=3).head.out_features == 3
    assert module.default_cfgs["vit_tiny_patch16_224"].default.architecture == "vit_tiny_patch16_224"
    assert module._cfg(num_classes=3)["num_classes"] == 3 and callable(module._load_weights)
    made = module._create_vision_transformer("of_a_script", **SMALL)
    assert isinstance(made, VisionTransformer) and made.head.out_features == 7
    own = {key: value.clone() for key, value in made.state_dict().items()}
    assert module.checkpoint_filter_fn({"state_dict": own}, made).keys() == own.keys()
    with pytest.raises(ImportError, match="imgzoo"):
        exec("from imgzoo_timm.models.vision_transformer import resnet_of_nobody")


@pytest.mark.parametrize("name", ["test_resnet", "test_vit", "test_convnext", "test_efficientnet", "test_maxvit"])
def test_the_module_of_a_class_has_the_functions_of_its_family(name):
    model = timm.create_model(name, num_classes=5)
    module = importlib.import_module(type(model).__module__)
    assert getattr(module, type(model).__name__) is type(model)
    own = model.state_dict()
    assert module.checkpoint_filter_fn(own, model).keys() == own.keys()
    assert module.checkpoint_filter_fn_classifier is module.checkpoint_filter_fn


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["test_vit", "convit_tiny"])
def test_extractors_that_keep_the_network_script(name):
    model = timm.models.FeatureGetterNet(timm.create_model(name).eval(), out_indices=[0]).eval()
    x = torch.randn(1, *model.default_cfg["input_size"])
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(model)(x), model(x))


@pytest.mark.parametrize("kind, native", [("max", pool.MaxPool2dSame), ("avg", pool.AvgPool2dSame)])
@pytest.mark.parametrize("options", [{}, {"ceil_mode": True}])
def test_local_pools_take_plain_numbers(kind, native, options):
    x = torch.randn(1, 2, 7, 8)
    torch.testing.assert_close(create_pool2d(kind, 3, 2, padding="same", **options)(x), native(3, 2)(x))
    if kind == "max":
        again = create_pool2d(kind, 3, 2, padding="same", dilation=2)(x)
        torch.testing.assert_close(again, native(3, 2, 2)(x))


def scripting():
    specs = registry("models").specs()
    return [spec.name for spec in specs if spec.name.startswith("test_") and "script" in spec.capabilities]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", scripting())
def test_what_scripts_natively_scripts_here(name):
    model = timm.create_model(name).eval()
    x = torch.randn(1, *model.default_cfg["input_size"])
    with torch.no_grad():
        torch.testing.assert_close(torch.jit.script(model)(x), model(x))


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


def test_licenses_are_spelled_as_the_field_does():
    with torch.device("meta"):
        told = timm.create_model("mobilevitv2_050").default_cfg["license"]
    assert told == timm.models.get_pretrained_cfg("mobilevitv2_050").license == "cvnets-license"


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


def test_what_a_network_takes():
    from imgzoo_timm.models import get_model_args, get_model_traits, resolve_model_input_args

    vit, resnet = timm.create_model("test_vit", img_size=96), timm.create_model("test_resnet", in_chans=1)
    assert get_model_traits(torch.nn.DataParallel(vit))["img_size"] == (96, 96)
    again = timm.create_model("test_vit", **get_model_args(vit))
    assert [each.shape for each in again.parameters()] == [each.shape for each in vit.parameters()]
    assert "img_size" not in get_model_args(resnet) and get_model_traits(resnet)["in_chans"] == 1
    assert "img_size" not in resolve_model_input_args("resnet18", {"img_size": 64})
    found = resolve_model_input_args("vit_tiny_patch16_224", {"input_size": (1, 64, 96)})
    assert (found["img_size"], found["in_chans"]) == ((64, 96), 1)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "swinv2_cr_tiny_224"])
def test_windows_of_swin(name):
    from imgzoo_timm.models.swin_transformer import resolve_stage_window_sizes

    made = dict(depths=(2, 2), num_heads=(1, 1), embed_dim=16, img_size=64, window_size=((4, 8), (4, 4)))
    model = timm.create_model(name, strict_img_size=False, **made)
    stages = model.layers if hasattr(model, "layers") else model.stages
    assert resolve_stage_window_sizes(((4, 8), (4, 4)), 2) == ((4, 8), (4, 4))
    assert [block.window_size for block in stages[0].blocks] == [(4, 8), (4, 8)]
    assert [block.shift_size for block in stages[0].blocks] == [(0, 0), (2, 4)]
    size = "feat_size" if "_cr_" in name else "input_resolution"
    assert getattr(stages[1].blocks[0], size) == (8, 8) and stages[0].blocks[0].attn.window_size == (4, 8)
    traced = torch.jit.trace(model.eval(), torch.randn(1, 3, 64, 64), check_trace=False)
    x = torch.randn(1, 3, 72, 104)
    with torch.no_grad():
        torch.testing.assert_close(traced(x), model(x))


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


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_maxvit", "swin_tiny_patch4_window7_224"])
def test_weights_are_drawn_anew(name):
    small = dict(embed_dim=16, depths=(1, 1), num_heads=(1, 1)) if name.startswith("swin") else {}
    model = timm.create_model(name, device="meta", dtype=torch.float64, num_classes=5, **small).to_empty(device="cpu")
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            tensor.fill_(float("nan") if tensor.is_floating_point() else 0)
    model.init_weights()
    assert all(torch.isfinite(tensor).all() for tensor in [*model.parameters(), *model.buffers()])
    side = model.pretrained_cfg["input_size"][1]
    assert torch.isfinite(model.eval()(torch.randn(1, 3, side, side, dtype=torch.float64))).all()
    with pytest.raises(OptionError, match="drawn one way"):
        model.init_weights("jax")


def test_a_neck_of_no_channels():
    made = dict(img_size=64, embed_dim=32, depth=1, num_heads=2, global_attn_indexes=(0,))
    assert timm.create_model("samvit_base_patch16", neck_chans=0, **made).num_features == 32


def test_earlier_names():
    from imgzoo_timm.models import get_arch_pretrained_cfgs, get_deprecated_models, register_model_deprecations

    assert get_deprecated_models("convnext")["convnext_tiny_in22k"] == "convnext_tiny.fb_in22k"
    register_model_deprecations("of.a_client", {"old": None})
    try:
        assert get_deprecated_models("a_client") == {"old": None} and "old" in get_deprecated_models()
    finally:
        from imgzoo_timm.models._registry import renamed

        del renamed["a_client"]
    cfgs = get_arch_pretrained_cfgs("resnet18")
    assert next(iter(cfgs)) == "resnet18.a1_in1k" and all(cfg.architecture == "resnet18" for cfg in cfgs.values())


@pytest.mark.parametrize("name", ["inception_v3", "inception_v4", "inception_resnet_v2", "resnet18", "efficientnet_b0"])
@pytest.mark.parametrize("size", [299, 331])
def test_the_pool_covers_the_last_map(name, size):
    with torch.device("meta"):
        model = timm.create_model(name, pretrained_cfg_overlay={"input_size": (3, size, size)}).eval()
        told = described(model, {})["pool_size"]
        assert told == tuple(model.forward_features(torch.empty(1, 3, size, size)).shape[2:])


def test_a_network_of_the_field_that_is_a_form_of_another_here():
    large, base = (timm.create_model(name) for name in ("efficientvit_l1", "efficientvit_b0"))
    assert isinstance(large, EfficientVitLarge) and isinstance(large, EfficientVit)
    assert isinstance(base, EfficientVit) and not isinstance(base, EfficientVitLarge)
    assert type(pickle.loads(pickle.dumps(large))) is EfficientVitLarge
    own = EfficientVitLarge(widths=(8, 8, 16, 16, 32), depths=(1,) * 5, head_widths=(16, 16), num_classes=3, head_dim=8)
    assert own(torch.randn(1, 3, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize("name", ["test_vit", "naflexvit_base_patch16_gap"])
def test_weights_are_scaled_by_depth_where_it_is_asked(name):
    torch.manual_seed(0)
    drawn = [[], []]
    for scaled, found in zip((True, False), drawn):
        model = timm.create_model(name, embed_dim=192, depth=3, num_heads=3, fix_init=scaled)
        found += [layer.weight.std() for block in model.blocks for layer in (block.attn.proj, block.mlp.fc2)]
    wanted = [(2.0 * i) ** -0.5 for i in (1, 1, 2, 2, 3, 3)]
    torch.testing.assert_close(torch.stack(drawn[0]) / torch.stack(drawn[1]), torch.tensor(wanted), rtol=0.05, atol=0)
    own = VisionTransformer(**{**SMALL, "embed_dim": 192}, fix_init=True)
    assert own.blocks[1].mlp.fc2.weight.std() < 0.6 * own.blocks[1].mlp.fc1.weight.std()
    with pytest.raises(OptionError, match="fix_init"):
        timm.create_model("test_resnet", fix_init=True)
    cfg = timm.models.NaFlexVitCfg(embed_dim=192, depth=3, num_heads=3, global_pool="avg", fix_init=False)
    weight = timm.models.NaFlexVit(cfg).blocks[2].mlp.fc2.weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.05)


def test_positions_of_patches_of_any_shape_are_asked_for_in_the_fields_words():
    options = dict(depth=1, embed_dim=8, num_heads=1, pos_embed_grid_size=(2, 3))
    assert timm.create_model("naflexvit_base_patch16_gap", **options).embeds.pos_embed.shape == (1, 2, 3, 8)
    parts = timm.create_model("naflexvit_base_patch16_gap", **options, pos_embed="factorized").embeds
    assert parts.pos_embed_y.shape == (1, 2, 8) and parts.pos_embed_x.shape == (1, 3, 8)


def test_which_file_of_a_folder_has_the_weights(tmp_path, caplog):
    def write(name, value):
        torch.save({"weight": torch.full((2,), float(value))}, tmp_path / name)

    def read():
        return int(timm.models._hub.load_state_dict_from_path(tmp_path)["weight"][0])

    with pytest.raises(RuntimeError, match="no weight file"):
        read()
    for value, name in enumerate(("b.bin", "b.pth", "a.pth")):
        write(name, value)
        assert read() == value
    assert "a.pth is read, of a.pth, b.pth" in caplog.text
    write("pytorch_model.bin", 7)
    assert read() == 7


DERIVED = {"coat_tiny": "coat.CoaT", "levit_128s": "levit.Levit",
           "deit_tiny_distilled_patch16_224": "VisionTransformer",
           "efficientvim_m1_dist": "efficientvim.EfficientViM", "pit_ti_distilled_224": "pit.PoolingVisionTransformer",
           "res2net50_14w_8s": "ResNet", "resnest14d": "ResNet", "skresnet18": "ResNet",
           "vit_tiny_r_s16_p8_224": "VisionTransformer", "vitamin_small_224": "VisionTransformer"}  # fmt: skip


@pytest.mark.parametrize("name", DERIVED)
def test_networks_derive_from_those_of_the_field(name):
    module, _, word = f"models.{DERIVED[name]}".rpartition(".")
    with torch.device("meta"):
        native, model = imgzoo.create_model(name, num_classes=3), timm.create_model(name, num_classes=3)
    parent = getattr(importlib.import_module(f"imgzoo_timm.{module}"), word)
    assert isinstance(model, parent) and type(model) is not parent
    assert list(model.state_dict()) == list(native.state_dict())
    if type(native).__name__ != "VisionTransformerDistilled":  # it has the path of its parent, with masks
        assert type(model).forward_features is type(native).forward_features


def test_what_derives_only_here_does_not_there():
    with torch.device("meta"):
        model = timm.create_model("swinv2_tiny_window8_256")
    assert not isinstance(model, timm.models.SwinTransformer)


def test_a_distilled_transformer_takes_what_its_parent_takes():
    class MyBlock(Block):
        pass

    model = timm.models.VisionTransformerDistilled(block_fn=MyBlock, **SMALL)
    assert isinstance(model.blocks[0], MyBlock) and model.num_prefix_tokens == 2
    model.set_distilled_training()
    assert [each.shape for each in model.train()(torch.randn(2, 3, 32, 32))] == [(2, 7), (2, 7)]
    rest = {key: value for key, value in SMALL.items() if key not in ("img_size", "patch_size")}
    assert timm.models.VisionTransformerDistilled(32, 8, **rest).patch_embed.grid_size == (4, 4)


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


@pytest.mark.parametrize(
    "name", ["botnet26t_256", "convnext_atto", "repvit_m0_9", "levit_128s", "resnet18", "vgg11", "efficientvit_b0"]
)
def test_networks_tell_their_dropout(name):
    with torch.device("meta"):
        assert timm.create_model(name).drop_rate == 0.0
        assert timm.create_model(name, drop_rate=0.3).drop_rate == 0.3


def test_plain_tracers_take_masks_as_arguments():
    model = timm.create_model("test_vit", num_classes=3).eval()
    traced, x = torch.fx.symbolic_trace(model), torch.randn(2, 3, 160, 160)
    torch.testing.assert_close(traced(x), model(x))
    torch.testing.assert_close(traced(x, is_causal=True), model(x, is_causal=True))
    assert not torch.allclose(traced(x, is_causal=True), traced(x))


SIZES_OF_EMBEDDINGS = {
    "pit_ti_224": ((16, 16), (27, 27)), "nest_tiny": ((4, 4), (56, 56)), "swinv2_tiny_window8_256": ((4, 4), (64, 64)),
    "vit_tiny_r_s16_p8_224": ((8, 8), (7, 7)), "xcit_nano_12_p16_224": (16, (14, 14)),
}  # fmt: skip


@pytest.mark.parametrize("name", SIZES_OF_EMBEDDINGS)
def test_embeddings_of_a_familys_own_tell_their_sizes(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    patch, grid = SIZES_OF_EMBEDDINGS[name]
    embed = model.patch_embed
    assert (embed.patch_size, embed.grid_size, embed.num_patches) == (patch, grid, grid[0] * grid[1])
    assert embed.img_size == model.img_size == model.default_cfg["input_size"][1:]


@pytest.mark.parametrize("name", ["test_byobnet", "repvit_m0_9", "levit_128s", "swinv2_tiny_window8_256", "test_vit"])
def test_the_pool_is_told_by_its_word(name):
    with torch.device("meta"):
        model = timm.create_model(name)
    assert model.global_pool == model.pool_kind() != ""
    model.reset_classifier(0, "")
    assert model.global_pool == ""


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


def test_every_layer_that_sees_the_image_is_named():
    with torch.device("meta"):
        found = {name: timm.create_model(name).default_cfg["first_conv"] for name in ("mobileone_s1", "crossvit_9_240")}
    assert found == {"mobileone_s1": ("stem.conv_kxk.0.conv", "stem.conv_scale.conv"),
                     "crossvit_9_240": ("patch_embed.0.proj", "patch_embed.1.proj")}  # fmt: skip


def test_a_saved_folder_holds_no_rates_of_training(tmp_path):
    rates = dict(drop_rate=0.2, drop_path_rate=0.1, pos_drop_rate=0.1, patch_drop_rate=0.1)
    model = timm.create_model("vit_tiny_patch16_224", depth=1, **rates)
    timm.models._hub.save_for_hf(model, tmp_path / "plain")
    stored = timm.models._hub.load_cfg_from_json(tmp_path / "plain/config.json")["model_args"]
    assert stored["depth"] == 1 and not stored.keys() & rates.keys()
    timm.models._hub.save_for_hf(model, tmp_path / "told", model_args={"drop_rate": 0.3})
    assert timm.models._hub.load_cfg_from_json(tmp_path / "told/config.json")["model_args"]["drop_rate"] == 0.3


def test_initial_weights_as_in_jax():
    model = VisionTransformer(**SMALL, weight_init="jax_nlhb")
    assert model.head.weight.abs().sum() == 0 and model.head.bias[0].item() == pytest.approx(-1.9459, abs=1e-4)
    assert 0 < model.blocks[0].mlp.fc1.bias.abs().max() < 1e-4
    assert VisionTransformer(**SMALL, weight_init="jax").head.bias.abs().sum() == 0


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "swinv2_tiny_window8_256", "swinv2_cr_tiny_ns_224"])
def test_swin_without_a_strict_size_takes_any(name):
    options, x = dict(depths=(2, 1, 1, 1), embed_dim=24), torch.randn(1, 3, 192, 160)
    for library in (imgzoo, timm):
        torch.manual_seed(0)
        loose = library.create_model(name, strict_img_size=False, **options).eval()
        other = library.create_model(name, dynamic_img_size=True, strict_img_size=False, **options).eval()
        other.load_state_dict(loose.state_dict())
        torch.testing.assert_close(loose(x), other(x))
        with pytest.raises(ValueError, match="another size"):
            library.create_model(name, **options)(x)
    swin = timm.models.SwinTransformer(strict_img_size=False, **options)
    assert swin.dynamic_img_size


def test_configurations_of_families_begin_as_the_fields():
    vit = importlib.import_module("imgzoo_timm.models.vision_transformer")._cfg(url="x", num_classes=3)
    assert vit["mean"] == (0.5, 0.5, 0.5) and vit["fixed_input_size"] and vit["classifier"] == "head"
    assert (vit["url"], vit["num_classes"], vit["license"]) == ("x", 3, "apache-2.0")
    convit = importlib.import_module("imgzoo_timm.models.convit")._cfg()
    assert "crop_pct" not in convit and convit["first_conv"] == "patch_embed.proj"
    with torch.device("meta"):
        model = timm.create_model("eca_nfnet_l3")
    assert model.default_cfg["url"] == "" and model.default_cfg["custom_load"] is False
    assert (model.default_cfg["license"], model.default_cfg["paper_ids"]) == ("apache-2.0", "arXiv:2102.06171")
    assert timm.models.get_pretrained_cfg("convnextv2_atto").paper_ids == "arXiv:2301.00808"
    assert timm.create_model("test_vit").default_cfg["license"] == "apache-2.0"


def test_an_extractor_keeps_the_keys_of_the_fields():
    model = timm.create_model("efficientvim_m1", features_only=True)
    assert not dict(model.named_parameters())["model.weights"].requires_grad


def test_parts_tell_their_sizes():
    with torch.device("meta"):
        for name, window in (("swin_tiny_patch4_window7_224", (7, 7)), ("swinv2_tiny_window8_256", (8, 8))):
            block = timm.create_model(name).layers[0].blocks[1]
            assert (block.window_size, block.dim, block.num_heads, block.mlp_ratio) == (window, 96, 3, 4)
            assert block.shift_size == tuple(side // 2 for side in window) and block.attn.window_size == window
            assert block.input_resolution == tuple(8 * side for side in window) and block.attn.dim == 96
        assert timm.create_model("beit_base_patch16_224").blocks[0].attn.window_size == (14, 14)
        resnet = timm.create_model("resnet18", output_stride=16)
        stages = resnet.layer1, resnet.layer2, resnet.layer3, resnet.layer4
        told = [(stage[0].stride, stage[1].stride, stage[1].dilation) for stage in stages]
        assert told == [(1, 1, 1), (2, 1, 1), (2, 1, 1), (1, 1, 2)]
        assert [block.has_skip for block in timm.create_model("efficientnet_b0").blocks[1]] == [False, True]
    model = timm.create_model("swin_tiny_patch4_window7_224", depths=(2, 1, 1, 1))
    model.set_input_size((256, 256))
    assert model.layers[0].blocks[1].input_resolution == (64, 64)
    torch.jit.script(model.eval())


def test_coordinates_of_patches_come_by_themselves():
    small = dict(embed_dim=64, depth=2, num_heads=2, num_classes=5)
    model = timm.create_model("naflexvit_base_patch16_gap", enable_patch_interpolator=True, **small).eval()
    patches, coordinates = torch.randn(2, 6, 768), torch.cartesian_prod(torch.arange(2), torch.arange(3))
    valid = torch.arange(6) < torch.tensor([[6], [4]])
    coordinates = coordinates * valid[..., None]
    record = dict(patches=patches, patch_coord=coordinates, patch_valid=valid)
    torch.testing.assert_close(model(patches, coordinates, patch_valid=valid), model(record))
    whole = dict(record, patch_coord=coordinates[:1].expand(2, -1, -1), patch_valid=torch.ones_like(valid))
    torch.testing.assert_close(model(patches, patch_coord=whole["patch_coord"]), model(whole))
    found = model.forward_features(**record)
    torch.testing.assert_close(model.forward_head(**found), model(record))
    levels = model.forward_intermediates(patches, 1, patch_coord=coordinates, patch_valid=valid, output_fmt="NLC",
                                         intermediates_only=True)  # fmt: skip
    torch.testing.assert_close(
        levels, model.forward_intermediates(record, 1, output_fmt="NLC", intermediates_only=True)
    )
    assert (
        model(torch.randn(2, 6, 8, 8, 3), coordinates, valid).shape == model(torch.randn(2, 3, 32, 48)).shape == (2, 5)
    )
    with pytest.raises(OptionError, match="leave attn_mask out"):
        model(patches, coordinates, valid, attn_mask=valid)
    other = timm.create_model("test_vit", use_naflex=True, num_classes=5).eval()
    torch.testing.assert_close(other(patches, whole["patch_coord"]), other(whole))
    again = pickle.loads(pickle.dumps(other))
    torch.testing.assert_close(again(*whole.values()), other(whole))


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


@pytest.mark.parametrize("name", ["repvit_m1", "iformer_t"])
def test_a_second_classifier_is_kept_by_name(name):
    model, x = timm.create_model(name, distillation=True), torch.randn(2, 3, 64, 64)
    for kept in (True, False, True):
        model.reset_classifier(5, distillation=kept)
        assert len(model.get_classifier()) == 2 if kept else isinstance(model.get_classifier(), nn.Linear)
        model.set_distilled_training(True)
        assert isinstance(model(x), tuple) == kept
    with pytest.raises(OptionError, match="leave distillation out"):
        timm.create_model("test_resnet").reset_classifier(5, distillation=True)


@pytest.mark.parametrize("name", ["test_vit", "deit_tiny_distilled_patch16_224"])
@torch.no_grad()
def test_a_graph_of_a_vision_transformer_is_scripted(name):
    model = timm.create_model(name).eval()
    x = torch.randn(1, *model.pretrained_cfg["input_size"])
    graph = feature_extraction.create_feature_extractor(model, {"norm": "tokens"})
    torch.testing.assert_close(torch.jit.script(graph)(x)["tokens"], model.forward_features(x))


def test_what_a_network_does_not_take_is_an_assertion_error_too():
    with pytest.raises(AssertionError, match="global_pool"):
        timm.create_model("test_vit", global_pool="catavgmax")
    model = timm.create_model("test_vit")
    with pytest.raises(AssertionError, match="global_pool"):
        model.reset_classifier(3, "catavgmax")
    with pytest.raises(UsageError, match="window_size"):
        timm.create_model("swin_tiny_patch4_window7_224").set_input_size(window_size=0)
    with pytest.raises(OptionError, match="no option 'strange'"):
        timm.create_model("test_vit", strange=1)


def test_levels_that_a_network_has_not_are_refused():
    model, x = timm.create_model("test_vit"), torch.randn(1, 3, 160, 160)
    with pytest.raises(OptionError, match="leave coarse out"):
        model.forward_intermediates(x, coarse=False)
    with pytest.raises(OptionError, match="leave extra_blocks out"):
        model.prune_intermediate_layers(1, extra_blocks=True)


@torch.no_grad()
def test_a_graph_of_a_network_of_patches_looks_at_an_image():
    model = timm.create_model("naflexvit_base_patch16_gap", embed_dim=96, num_heads=3, depth=1).eval()
    x = torch.randn(1, 3, 64, 64)
    graph = feature_extraction.create_feature_extractor(model, {"norm": "tokens"})
    torch.testing.assert_close(graph(x)["tokens"], model.forward_features(x))

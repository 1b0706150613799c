"""Names that are registered, modules of families, checkpoints and folders."""

import importlib

import pytest
import torch
from client_code import SMALL

import imgzoo_timm as timm
from imgzoo_timm.models.vision_transformer import VisionTransformer


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


def test_a_saved_folder_holds_no_rates_of_training(tmp_path):
    rates = dict(drop_rate=0.2, drop_path_rate=0.1, pos_drop_rate=0.1, patch_drop_rate=0.1)
    model = timm.create_model("vit_tiny_patch16_224", depth=1, **rates)
    timm.models._hub.save_for_hf(model, tmp_path / "plain")
    stored = timm.models._hub.load_cfg_from_json(tmp_path / "plain/config.json")["model_args"]
    assert stored["depth"] == 1 and not stored.keys() & rates.keys()
    timm.models._hub.save_for_hf(model, tmp_path / "told", model_args={"drop_rate": 0.3})
    assert timm.models._hub.load_cfg_from_json(tmp_path / "told/config.json")["model_args"]["drop_rate"] == 0.3

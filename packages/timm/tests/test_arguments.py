"""Every argument that is accepted has its effect, or a reason here why it can have none."""

import ast
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import imgzoo_timm
from imgzoo.errors import OptionError, UsageError
from imgzoo_timm import data, layers, loss, models, utils

ROOT = Path(imgzoo_timm.__file__).parent
REASONS = {
    "what a subclass answers, or a protocol asks": """
        _door:* standin:* data/_info:DatasetInfo.* data/_targets:Reader._filename data/_mixup:FastCollateMixup.__call__
        data/_dataset:IterableImageDataset.* data/_dataset:seed_worker layers/_config:_Switch.__exit__
        layers/_position:*.forward layers/_rotary:Rotary.tables models/__init__:checkpoint_filter_fn
        models/_extract:FeatureHooks.keep models/_features:take_forms
        models/_features:ByChildren.* models/_initial:begin models/_initial:draw_plain
        scheduler/_schedulers:Scheduler._get_lr
        scheduler/_schedulers:PlateauLRScheduler.step_update task/_tasks:TrainingTask.* utils/_misc:ParseKwargs.__call__
        utils/_activations:avg_* models/_fusing:as_it_is
        *:<lambda>
    """,
    "only tensors are read, by torch's own reader: nothing in a file is run": """
        models/_helpers:* models/_hub:load_state_dict_from_* task/_tasks:resume_task_checkpoint
        task/_tasks:load_task_ema_checkpoint models/__init__:load_weights models/_networks:Network.load_pretrained
    """,
    "the answer is always the same": """
        models/_hub:has_hf_hub models/_hub:push_to_hf_hub models/_registry:list_models
        scheduler/_schedulers:WSDLRScheduler.get_cycle_length data/_info:CustomDatasetInfo.label_descriptions
    """,
    "exact, so that no tolerance is asked for": "data/_sequence:get_image_size_for_seq",
    "the model says it": "models/_builder:load_pretrained",
    "as in the field: of no use to this kind": """
        data/_sequence:ResizeKeepRatioToSequence.get_params data/_targets:HfReader._filename layers/_act:*
        layers/_conv:* layers/_drop:DropBlock2d.__init__ layers/_gate:* layers/_norm_forms:*
        layers/_config:set_layer_config.__init__
        layers/_attention:MapPool.init_weights layers/_attention:*.attn_dim
        layers/_patch_embed:PatchEmbedInterpolator.__init__
    """,
}


def unread(path):
    """Functions of a file with arguments that no line of them reads; one that reads `locals()` reads all."""

    def walk(node, scope):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.Lambda):
                name = f"{scope}{getattr(child, 'name', '<lambda>')}"
                given = [each.arg for each in (*child.args.posonlyargs, *child.args.args, *child.args.kwonlyargs)]
                given += [each.arg for each in (child.args.vararg, child.args.kwarg) if each]
                body = child.body if isinstance(child.body, list) else [child.body]
                read = {each.id for line in body for each in ast.walk(line) if isinstance(each, ast.Name)}
                if "locals" not in read and set(given) - read - {"self", "cls"}:
                    yield name if isinstance(child, ast.FunctionDef) else "<lambda>"
                yield from walk(child, f"{name}.")
            elif isinstance(child, ast.ClassDef):
                yield from walk(child, f"{scope}{child.name}.")
            else:
                yield from walk(child, scope)

    yield from walk(ast.parse(path.read_text()), "")


def test_every_argument_is_read_or_has_a_reason():
    found = {f"{path.relative_to(ROOT).with_suffix('').as_posix()}:{name}"
             for path in ROOT.rglob("*.py") for name in unread(path)}  # fmt: skip
    told = [Path(pattern) for row in REASONS.values() for pattern in row.split()]
    assert {name for name in found if not any(Path(name).match(str(each)) for each in told)} == set()
    assert [str(each) for each in told if not any(Path(name).match(str(each)) for name in found)] == []


NORMS = ["LayerNorm", "LayerNorm2d", "LayerNormFp32", "LayerNorm2dFp32", "GroupNorm", "GroupNorm1", "LayerNormAct",
         "LayerNormAct2d", "LayerNormActFp32", "RmsNormAct", "RmsNormAct2d"]  # fmt: skip


@pytest.mark.parametrize("name", NORMS)
def test_norms_refuse_what_they_do_not_know(name):
    with pytest.raises(TypeError, match=r"takes no momentum|unexpected keyword argument 'momentum'"):
        getattr(layers, name)(32, momentum=0.1)


@pytest.mark.parametrize("name", ["BatchNormAct2d", "GroupNormAct", "GroupNorm1Act", "LayerNormAct", "LayerNormAct2d",
                                  "LayerNormActFp32", "RmsNormAct", "RmsNormAct2d"])  # fmt: skip
def test_norms_without_affine_have_no_parameters(name):
    norm = getattr(layers, name)(32, affine=False)
    x = (
        torch.randn(2, 32, 3, 3)
        if name not in ("LayerNormAct", "LayerNormActFp32", "RmsNormAct")
        else torch.randn(2, 32)
    )
    assert list(norm.parameters()) == [] and norm(x).shape == x.shape


def test_the_focus_of_the_asymmetric_loss_may_be_a_number_to_gradients():
    grads = []
    for fixed in (False, True):
        x = torch.linspace(-2, 2, 6, dtype=torch.float64).view(2, 3).requires_grad_()
        y = torch.tensor([[1.0, 0, 1], [0, 1, 0]], dtype=torch.float64)
        value = loss.AsymmetricLossMultiLabel(disable_torch_grad_focal_loss=fixed)(x, y)
        grads.append((float(value.detach()), *torch.autograd.grad(value, x)))
    assert grads[0][0] == grads[1][0] and not torch.allclose(grads[0][1], grads[1][1])


class Drawn(torch.utils.data.Dataset):
    transform = None

    def __len__(self):
        return 4

    def __getitem__(self, i):
        info = torch.utils.data.get_worker_info()
        first = np.random.RandomState(info.seed % (2**32 - 1)).randint(1 << 30)
        return (np.random.randint(1 << 30) == first, random.random(), float(torch.rand(()))), 0


def as_drawn(batch):
    return [each[0] for each in batch]


def seven(info):
    return 7


@pytest.mark.parametrize("how, by_number", [("all", True), ("part", False), (seven, False)])
def test_workers_begin_as_asked(how, by_number):
    loader = data.create_loader(Drawn(), (3, 8, 8), 1, num_workers=2, use_prefetcher=False, collate_fn=as_drawn,
                                worker_seeding=how, persistent_workers=False)  # fmt: skip
    rows = [row for batch in loader for row in batch]
    assert rows[0][0] is by_number
    assert (rows[0] == rows[1]) is (how is seven)  # of the two workers
    with pytest.raises(UsageError, match="worker_seeding is all, part or a function"):
        data.create_loader(Drawn(), (3, 8, 8), 1, worker_seeding="some")
    with pytest.raises(UsageError, match="worker_seeding is all, part or a function"):
        data.create_naflex_loader(Drawn(), 16, worker_seeding="some", is_training=True)


def test_workers_live_from_epoch_to_epoch():
    for many in (False, True):
        loader = data.create_loader(Drawn(), (3, 8, 8), 1, num_workers=1, use_prefetcher=False, collate_fn=as_drawn,
                                    use_multi_epochs_loader=many, persistent_workers=False)  # fmt: skip
        assert loader.persistent_workers is many


def test_datasets_refuse_what_they_cannot_do(tmp_path):
    with pytest.raises(UsageError, match="leave trust_remote_code out"):
        data.create_dataset("", str(tmp_path), trust_remote_code=True)


def test_folders_of_splits_are_classes_where_no_split_is_searched(tmp_path):
    for folder in ("validation/cat", "validation/dog", "other"):
        (tmp_path / folder).mkdir(parents=True)
        Image.new("RGB", (2, 2)).save(tmp_path / folder / "0.png")
    found = data.create_dataset("", str(tmp_path), split="validation")
    assert [len(found), found[1][1]] == [2, 1]
    assert len(data.create_dataset("", str(tmp_path), split="validation", search_split=False)) == 3
    single = tmp_path / "other"
    (single / "cat").mkdir()
    (single / "0.png").rename(single / "cat" / "0.png")
    assert len(data.create_dataset("Torch/Image_Folder", str(single), search_split=False)) == 1


def test_masks_of_levels_are_refused():
    model = models.create_model("test_vit").eval()
    with pytest.raises(OptionError, match="without a mask"):
        model.get_intermediate_layers(torch.zeros(1, 3, 160, 160), attn_mask=torch.ones(1, 1))


def test_verbose_tells(caplog):
    model = models.create_model("test_resnet")
    with caplog.at_level("INFO"):
        data.resolve_data_config(model=model)
        assert caplog.text == ""
        data.resolve_data_config(model=model, verbose=True)
        assert "crop_pct=0.95" in caplog.text
        imgzoo_timm.optim.param_groups_layer_decay(model, verbose=True)
        assert "lr_scale 1.0" in caplog.text
        layers.resample_abs_pos_embed(torch.zeros(1, 5, 3), [3, 3], verbose=True)
        assert "(2, 2) resized to (3, 3)" in caplog.text


def test_switches_are_on_while_a_script_makes_its_layers():
    seen = []

    @models.register_model
    def network_that_looks_at_switches(pretrained=False, **kwargs):
        seen.append((layers.is_scriptable(), layers.is_exportable(), layers.is_no_jit()))
        return nn.Identity()

    models.create_model("network_that_looks_at_switches", scriptable=True, exportable=True)
    models.create_model("network_that_looks_at_switches")
    assert seen == [(True, True, False), (False, False, False)] and not layers.is_scriptable()


def test_fused_attention_of_a_script_waits_for_its_switch():
    assert layers.use_fused_attn() and not layers.use_fused_attn(experimental=True)
    try:
        layers.set_fused_attn(True, experimental=True)
        assert layers.use_fused_attn(experimental=True)
    finally:
        layers.set_fused_attn(True)


def test_folders_hold_what_was_asked(tmp_path):
    model = models.create_model("test_resnet", num_classes=3)
    models.save_for_hf(model, tmp_path, model_args={"drop_rate": 0.5}, safe_serialization="both")
    assert {"model.safetensors", "pytorch_model.bin"} <= {each.name for each in tmp_path.iterdir()}
    again = models.create_model(f"local-dir:{tmp_path}", pretrained=True)
    assert again.drop_rate == 0.5
    assert torch.equal(again.fc.weight, model.fc.weight)
    models.save_for_hf(model, tmp_path / "safe", safe_serialization=True)
    assert not (tmp_path / "safe" / "pytorch_model.bin").exists()


@pytest.mark.parametrize("read", [models.load_model_config_from_hf, models.load_state_dict_from_hf])
def test_a_place_for_downloads_is_told_by_the_environment(read):
    with pytest.raises(OptionError, match="HF_HUB_CACHE"):
        read("a/b", cache_dir="here")


# names


def test_names_of_models():
    from imgzoo_timm.models._factory import parse_model_name as parse

    assert parse("resnet18.a1_in1k") == parse("timm/resnet18.a1_in1k") == (None, "resnet18.a1_in1k")
    assert parse("hf-hub:a/b@r") == parse("HF_HUB:a/b@r") == ("hf-hub", "a/b@r")
    assert parse("local-dir:/a/b") == ("local-dir", "/a/b")
    for name in ("facebook/dinov2-base", "./resnet18", "/a/resnet18", "C:\\a\\resnet18", "C:resnet18", "hub:resnet18",
                 "https://a/resnet18", "local-dir:", "hf-hub:"):  # fmt: skip
        with pytest.raises(ValueError, match=r"local-dir:|names nothing") as raised:
            models.create_model(name)
        assert isinstance(raised.value, UsageError) and len(str(raised.value).splitlines()) == 1


def test_a_name_that_is_registered_again_is_told():
    import imgzoo_timm.models._registry as registry

    def network_of_two_scripts(pretrained=False, **kwargs):
        return nn.Identity()

    models.register_model(network_of_two_scripts)
    with pytest.warns(UserWarning, match="Overwriting network_of_two_scripts"):
        models.register_model(network_of_two_scripts)
    assert registry.is_model_in_modules("resnet50", "resnet") and not registry.is_model_in_modules("resnet50", "resn")
    assert __name__.rpartition(".")[2] in imgzoo_timm.list_modules()


def test_earlier_names_make_what_their_successors_do():
    import imgzoo_timm.models._registry as registry

    def network_of_today(pretrained=False, **kwargs):
        return nn.Linear(1, kwargs.get("width", 1))

    models.register_model(network_of_today)
    registry.register_model_deprecations(__name__, {"network_of_before": "network_of_today", "network_gone": None})
    assert imgzoo_timm.is_model("network_of_before") and imgzoo_timm.list_models("network_of_*y") == [
        "network_of_today"
    ]
    assert imgzoo_timm.list_models("network_of_before") == []
    with pytest.warns(UserWarning, match="say network_of_today"):
        assert models.create_model("network_of_before", width=4).out_features == 4
    with pytest.raises(RuntimeError, match="network_gone is gone"):
        models.create_model("network_gone")


@pytest.mark.parametrize("path, few", [
    ("models", "create_model VisionTransformer resnet50"), ("layers", "DropPath trunc_normal_"), ("data", "Mixup"),
    ("optim", "create_optimizer_v2"), ("scheduler", "CosineLRScheduler"), ("loss", "JsdCrossEntropy"),
    ("utils", "AverageMeter"), ("models.vision_transformer", "VisionTransformer Block vit_tiny_patch16_224"),
    ("models.resnet", "ResNet BasicBlock resnet18"), ("layers.drop", "DropPath"),
])  # fmt: skip
def test_everything_can_be_asked_for(path, few):
    names = {}
    exec(f"from imgzoo_timm.{path} import *", names)
    assert set(few.split()) <= set(names)


# weights


@pytest.mark.parametrize("base, wanted", [(3, 1), (3, 4), (13, 1), (13, 3), (13, 26), (13, 13)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_kernels_for_other_channels(base, wanted, dtype):
    from imgzoo_timm.models._manipulate import adapt_input_conv

    kernel = torch.rand(2, base, 3, 3, dtype=torch.float64).to(dtype)
    made = adapt_input_conv(wanted, kernel, base)
    rows = [kernel.double()[:, i % base] * base / wanted for i in range(wanted)]
    want = kernel.double().sum(1, keepdim=True) if wanted == 1 else torch.stack(rows, 1)
    assert made.dtype == dtype
    torch.testing.assert_close(made, want.to(dtype), rtol=1e-2 if dtype == torch.bfloat16 else 1e-6, atol=0)
    with pytest.raises(ValueError, match="at least one channel"):
        adapt_input_conv(0, kernel, base)
    with pytest.raises(NotImplementedError, match="are not of images of 7"):
        adapt_input_conv(3, kernel, 7)


def test_a_script_reads_its_weights_of_other_channels():
    from imgzoo_timm.models._builder import load_pretrained

    stored, model = (
        nn.Sequential(nn.Conv2d(chans, 4, 1), nn.Flatten(), nn.Linear(4, n)) for chans, n in ((13, 9), (1, 2))
    )
    cfg = {"state_dict": stored.state_dict(), "first_conv": "0", "classifier": "2", "input_size": (13, 1, 1)}
    load_pretrained(model, cfg, num_classes=2, in_chans=1, filter_fn=lambda state, model: state)
    torch.testing.assert_close(model[0].weight, stored[0].weight.sum(1, keepdim=True))


def test_weights_in_memory_are_fitted_as_those_of_a_file():
    small = dict(patch_size=8, embed_dim=32, depth=1, num_heads=2)
    source = models.create_model("vit_tiny_patch16_224", img_size=32, in_chans=13, num_classes=7, **small)
    cfg = dict(source.pretrained_cfg, state_dict=source.state_dict())
    model = models.create_model("vit_tiny_patch16_224", pretrained=True, pretrained_cfg=cfg, img_size=48, in_chans=26,
                                num_classes=2, **small)  # fmt: skip
    torch.testing.assert_close(model.patch_embed.proj.weight, source.patch_embed.proj.weight.repeat(1, 2, 1, 1) / 2)
    assert model.pos_embed.shape == (1, 37, 32) and model.head.weight.shape == (2, 32)
    torch.testing.assert_close(model.blocks[0].mlp.fc1.weight, source.blocks[0].mlp.fc1.weight)
    cfg["state_dict"]["strange"] = torch.zeros(1)
    with pytest.raises(RuntimeError, match="strange"):
        models.create_model("vit_tiny_patch16_224", pretrained=True, pretrained_cfg=cfg, img_size=32, in_chans=13,
                            num_classes=7, **small)  # fmt: skip


def test_files_of_weights_go_to_the_function_that_is_given(tmp_path):
    taken = []
    models.load_custom_pretrained(nn.Identity(), {"file": str(tmp_path)}, lambda model, path: taken.append(path))
    assert taken == [str(tmp_path)]


# training


def test_checkpoints_without_a_metric_never_push_out_one_with_it(tmp_path):
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def saver():
        return utils.CheckpointSaver(model, optimizer, checkpoint_dir=str(tmp_path), max_history=2)

    def kept(saver):
        return [(Path(path).name.removesuffix(".pth.tar"), metric) for path, metric in saver.checkpoint_files]

    first = saver()
    for epoch, metric in enumerate([0.5, None, 0.7, None]):
        best = first.save_checkpoint(epoch, metric)
    assert best == (0.7, 2) and kept(first) == [("checkpoint-2", 0.7), ("checkpoint-0", 0.5)]
    assert Path(first.save_milestone(9)).is_file()
    second = saver()
    assert second.load_state_dict_from_checkpoint(str(tmp_path / "last.pth.tar"))
    assert kept(second) == kept(first) and second.save_checkpoint(4, 0.1) == (0.7, 2)
    assert sorted(each.name.partition(".")[0] for each in tmp_path.iterdir()) == [
        "checkpoint-0", "checkpoint-2", "last", "milestone-9", "model_best"]  # fmt: skip
    plain = utils.CheckpointSaver(model, optimizer, checkpoint_dir=str(tmp_path / "none"), max_history=2)
    (tmp_path / "none").mkdir()
    for epoch in range(3):
        plain.save_checkpoint(epoch)
    assert kept(plain) == [("checkpoint-2", None), ("checkpoint-1", None)]


def test_statistics_of_what_modules_put_out():
    from imgzoo_timm.utils import model as module

    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    hook = module.ActivationStatsHook(network, ["0", "*"], [module.avg_sq_ch_mean, module.avg_ch_var])
    x = torch.randn(2, 3, 5, 5)
    network(x), hook.close(), network(x)
    y = network[0](x).detach()
    assert hook.stats["avg_sq_ch_mean"] == [pytest.approx(float(y.mean((0, 2, 3)).square().mean()))]
    assert len(hook.stats["avg_ch_var"]) == 3  # of both parts and the whole
    assert module.extract_spp_stats(network, ["1"], [module.avg_ch_var], [2, 3, 4, 4])["avg_ch_var"][0] > 0
    with pytest.raises(UsageError, match="matches no module"):
        module.ActivationStatsHook(network, ["x"], [module.avg_ch_var])
    with pytest.raises(ValueError, match="each has one"):
        module.ActivationStatsHook(network, ["0"], [])


def test_hybrid_embeddings_keep_modes_and_take_other_patches():
    backbone = nn.Sequential(nn.Conv2d(3, 6, 2, 2), nn.BatchNorm2d(6))
    backbone.num_features = 6
    backbone[1].eval()
    embed = layers.HybridEmbed(backbone, img_size=16, patch_size=2, embed_dim=5)
    assert backbone.training and not backbone[1].training and embed.num_patches == 16
    embed.proj.weight.requires_grad_(False)
    embed.set_input_size(img_size=32, patch_size=4)
    assert (embed.num_patches, embed.patch_size, embed.feature_size) == (16, (4, 4), (16, 16))
    assert embed.proj.weight.shape == (5, 6, 4, 4) and not embed.proj.weight.requires_grad
    assert embed(torch.zeros(1, 3, 32, 32)).shape == (1, 16, 5)
    backbone.register_forward_hook(lambda *_: pytest.fail("a size that stays is not measured"))
    embed.set_input_size(img_size=32)
    embed.set_input_size(img_size=(32, 32), patch_size=(4, 4))

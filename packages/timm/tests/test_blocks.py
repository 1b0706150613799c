"""Blocks of maps as clients hook and call them: with tokens and their grid where the field's take these."""

import copy
import importlib
import math
import pickle
from functools import partial

import pytest
import torch
from client_code import GRIDDED
from client_parts import ROWS, SIZE, build, parts

import imgzoo
import imgzoo_timm as timm
from imgzoo.errors import OptionError
from imgzoo.model import Checkpointed


def made(name, create=timm.create_model):
    torch.manual_seed(0)
    options, side, path = GRIDDED[name]
    size = dict(img_size=side) if name == "test_maxvit" else {}
    return create(name, num_classes=3, **options, **size).eval(), torch.randn(1, 3, side, side), path


def seen_by(model, path, x):
    found = []
    handle = model.get_submodule(path).register_forward_hook(lambda part, args, output: found.append((args, output)))
    with torch.no_grad():
        model(x)
    handle.remove()
    return found[0]


@pytest.mark.parametrize("name", GRIDDED)
def test_what_a_hook_on_a_block_sees_can_be_given_to_it(name):
    (model, x, path), (native, _, _) = made(name), made(name, imgzoo.create_model)
    native.load_state_dict(model.state_dict())
    args, output = seen_by(model, path, x)
    with torch.no_grad():
        torch.testing.assert_close(model(x), native(x))
        torch.testing.assert_close(model.get_submodule(path)(*args), output)
    assert args[0].ndim == output.ndim
    assert (args[0].ndim, len(args)) == ((3, 2) if name.startswith(("pvt", "twins")) else (4, 1))


@pytest.mark.parametrize("name", ["pvt_v2_b0", "twins_svt_small", "davit_tiny", "tiny_vit_5m_224"])
def test_parts_of_blocks_see_tokens(name):
    model, x, path = made(name)
    assert [seen_by(model, f"{path}.{part}", x)[0][0].ndim for part in ("attn", "mlp", "mlp.fc1")] == [3, 3, 3]


def test_attention_of_maxvit_sees_windows_of_two_sides():
    model, x, path = made("test_maxvit")
    (windows,), output = seen_by(model, f"{path}.attn_grid.attn", x)
    assert windows.shape == output.shape and windows.shape[1:3] == (2, 2)


@pytest.mark.parametrize("name", GRIDDED)
def test_networks_of_such_blocks_are_copied_traced_and_trained(name):
    model, x, path = made(name)
    with torch.no_grad():
        expected = model(x)
        for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model)), torch.fx.symbolic_trace(model),
                      torch.jit.script(model)):  # fmt: skip
            torch.testing.assert_close(other(x), expected)
    model.train().set_grad_checkpointing()
    model(x.repeat(2, 1, 1, 1)).sum().backward()
    assert all(each.grad is not None for each in model.get_submodule(path).parameters())


@pytest.mark.parametrize("row", ROWS)
def test_parts_of_a_callers_own_stand_in_networks_by_name(row):
    model = build(timm, row)
    own = {type(each).__qualname__.rpartition(".")[2] for each in model.modules()
           if "parts.<locals>" in type(each).__qualname__}  # fmt: skip
    assert own == {each for each in ROWS[row][1].values() if isinstance(each, str)}
    model(torch.randn(2, 3, 32, 32)).sum().backward()
    assert all(each.grad is not None for each in model.parameters())
    assert len(model.feature_info) == (5 if row.endswith("residual") else 2)
    if not row.endswith("residual"):
        blocks = [each for name, each in model.state_dict().items() if name.startswith("blocks.")]
        assert all(each.std() < 0.05 for each in blocks if each.ndim == 2)  # drawn as the others'


def test_published_weights_go_into_parts_of_a_callers_own(tmp_path):
    options = dict(SIZE, pretrained_cfg_overlay=dict(file=str(tmp_path / "w.pth"), num_classes=7))
    torch.save(timm.create_model("vit_tiny_patch16_224", num_classes=7, **SIZE).state_dict(), tmp_path / "w.pth")
    own = parts(timm)
    model = timm.create_model("vit_tiny_patch16_224", pretrained=True, attn_layer=own.Attention, **options)
    saved = torch.load(tmp_path / "w.pth")
    assert all(torch.equal(each, saved[key]) for key, each in model.state_dict().items())
    with pytest.raises(RuntimeError, match=r"0\.extra\.weight"):
        timm.create_model("vit_tiny_patch16_224", pretrained=True, block_fn=own.Block, **options)


@pytest.mark.parametrize("name", ["vitamin_small_224", "vit_tiny_r_s16_p8_224"])
def test_patches_of_a_backbone_are_not_replaced(name):
    with pytest.raises(OptionError, match="embed_layer: leave that out"):
        timm.create_model(
            name, device="meta", embed_layer=type("Own", (timm.layers.PatchEmbed,), {"__module__": "own"})
        )


def test_a_block_by_name_gets_the_norms_of_the_layers():
    """They take a device and a type of numbers, which a block of one's own may hand on."""
    seen = []

    class Placed(timm.models.vision_transformer.Block):
        def __init__(self, dim, norm_layer, device=None, dtype=None, **rest):
            super().__init__(dim, norm_layer=norm_layer, device=device, dtype=dtype, **rest)
            seen.append(norm_layer(dim, device=device, dtype=dtype))

    timm.create_model("vit_tiny_patch16_224", block_fn=Placed, **SIZE)
    assert {type(each) for each in seen} == {timm.layers.LayerNorm} and {each.eps for each in seen} == {1e-6}


def test_what_has_no_class_is_not_replaced_in_part():
    with pytest.raises(OptionError, match="give block_fn="):
        timm.create_model("vit_tiny_patch16_224", mlp_layer="swiglu", attn_layer=parts(timm).Attention, **SIZE)


@pytest.mark.parametrize("family, kind, options, said", [
    ("efficientvit_msra", "CascadedGroupAttention", dict(dim=16, key_dim=4, num_heads=2, attn_ratio=3), "attn_ratio=3"),
    ("tiny_vit", "Attention", dict(dim=64, key_dim=32, num_heads=2, attn_ratio=2), "attn_ratio=2"),
    ("levit", "AttentionDownsample", dict(in_dim=64, out_dim=96, key_dim=16, num_heads=4), r"attn_ratio=2\.0"),
    ("efficientformer_v2", "Attention2d", dict(dim=48, num_heads=4), "num_heads=4"),
])  # fmt: skip
def test_attention_that_is_not_here_is_refused_by_what_was_given(family, kind, options, said):
    with pytest.raises(OptionError, match=f"not .*{said}"):
        getattr(importlib.import_module(f"imgzoo_timm.models.{family}"), kind)(**options)


def test_differential_attention_knows_its_depth():
    layer = timm.layers.DiffAttention
    for given in (layer, "diff"):
        model = timm.models.VisionTransformer(**SIZE, attn_layer=given)
        starts = [block.attn.lambda_init for block in model.blocks]
        assert starts == pytest.approx([0.2, 0.8 - 0.6 * math.exp(-0.3)])


STAGED = ["swin_tiny_patch4_window7_224", "swinv2_cr_tiny_ns_224", "test_convnext", "mvitv2_tiny", "gcvit_xxtiny",
          "poolformer_s12", "fastvit_t8", "ese_vovnet19b_dw", "nextvit_small", "efficientvim_m1",
          *(name for name in GRIDDED if not name.startswith("twins"))]  # fmt: skip


@pytest.mark.parametrize("name", STAGED)
def test_stages_are_checkpointed_one_by_one(name):
    model = timm.create_model(name, device="meta")
    stages = model.get_submodule(model.feature_info.info[-1]["module"].rpartition(".")[0])
    assert not any(stage.grad_checkpointing for stage in stages) and not model.grad_checkpointing
    model.set_grad_checkpointing()
    assert all(stage.grad_checkpointing for stage in stages)
    every = [path for path, part in model.named_modules() if isinstance(part, Checkpointed)]
    model.set_grad_checkpointing(False)
    stages[1].grad_checkpointing = True
    assert [stage.grad_checkpointing for stage in stages] == [i == 1 for i in range(len(stages))]
    for stage in stages:
        stage.grad_checkpointing = True
    assert [path for path, part in model.named_modules() if isinstance(part, Checkpointed)] == every
    assert pickle.loads(pickle.dumps(model.to_empty(device="cpu"))).grad_checkpointing


STAGES = {
    "densenet121": "features.denseblock2.denselayer3", "fasternet_t0": "stages.1", "regnety_002": "s3",
    "regnetv_040": "s1", "resnetv2_18": "stages.2", "nest_tiny": "levels.1",
    "vitamin_small_224": "patch_embed.backbone", "qwen3_vit_88m": "encoder", "deepseek_vit_412m": "encoder",
    "gemma4_vit_167m": "encoder", "vit_small_r26_s32_224": "patch_embed.backbone.stages.1",
}  # fmt: skip


@pytest.mark.parametrize("name", STAGES)
def test_stages_of_any_form_are_checkpointed_one_by_one(name):
    model = timm.create_model(name, device="meta")
    stage = model.get_submodule(STAGES[name])
    assert stage.grad_checkpointing is False
    model.set_grad_checkpointing()
    assert stage.grad_checkpointing
    model.set_grad_checkpointing(False)
    stage.grad_checkpointing = True
    again = [path for path, part in model.named_modules() if isinstance(part, Checkpointed)]
    assert again and all(f"{path}.".startswith(f"{STAGES[name]}.") for path in again)
    assert copy.deepcopy(model).get_submodule(STAGES[name]).grad_checkpointing
    stage.grad_checkpointing = False
    assert not model.grad_checkpointing


def test_a_stage_that_is_checkpointed_runs_twice():
    (model, x, _), runs = made("davit_tiny"), []
    model.stages[1].grad_checkpointing = True
    for i in (1, 2):
        model.stages[i].blocks[0][0].mlp.fc1.register_forward_hook(lambda part, args, output, i=i: runs.append(i))
    model.train()(x.repeat(2, 1, 1, 1)).sum().backward()
    assert sorted(runs) == [1, 1, 2]


def test_the_width_of_attention_is_that_of_its_heads():
    attn = timm.layers.Attention(64, num_heads=4)
    attn.attn_dim = 64
    attn.head_dim = 8
    assert attn.attn_dim == 32


def test_an_embedding_by_a_class_gets_the_norm_of_patches():
    seen = []

    def embed(norm_layer, **rest):
        seen.append(norm_layer(4).eps)
        return timm.layers.PatchEmbed(norm_layer=norm_layer, **rest)

    rms = partial(timm.layers.RmsNorm, eps=0.1)
    timm.create_model("vit_tiny_patch16_224", embed_layer=embed, embed_norm_layer=rms, **SIZE)
    model = timm.models.VisionTransformer(embed_layer=embed, embed_norm_layer=rms, depth=1, embed_dim=12, num_heads=1)
    assert seen == [0.1, 0.1] and type(model.patch_embed.norm) is timm.layers.RmsNorm
    model = timm.models.VisionTransformer(embed_norm_layer=rms, depth=1, embed_dim=12, num_heads=1)
    assert type(model.blocks[0].norm1) is timm.layers.LayerNorm and model.patch_embed.norm.eps == 0.1

"""Weights in the formats of their authors load into our models and compute the same.

Each test takes the weights of one of our models, writes them as the author's code would, by hand and without the
tables under test, and loads the file. Formats whose names are mostly ours are asked for by the `format` of a tag.
"""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

import imgzoo
from imgzoo.errors import WeightsError
from imgzoo.plugin import WeightSpec, hookimpl

TINY = dict(embed_dim=32, depth=2, num_heads=4, num_classes=5)
SWIN = dict(embed_dim=16, depths=(2, 2, 2, 1), num_heads=(1, 2, 4, 8), img_size=64, window_size=4, num_classes=5)


@pytest.fixture(autouse=True)
def fresh():
    imgzoo.reload()
    yield
    imgzoo.reload()


def make(name, **options):
    """A model with every parameter away from its initial value."""
    torch.manual_seed(0)
    model = imgzoo.create_model(name, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def image(size):
    return torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def same(model, again, size):
    with torch.inference_mode():
        torch.testing.assert_close(again.eval()(image(size)), model(image(size)), rtol=1e-5, atol=1e-5)


@pytest.fixture
def tagged(monkeypatch):
    """Load a file as the tag `foreign` of a model, whose row names the format."""

    def load(name, path, form, **options):
        found = imgzoo.create_model(name, pretrained=path, **options)
        assert found.load_report.format == form, "a path is enough to know the format"
        row = WeightSpec("foreign", arch=name, url="https://example.invalid/file", license="MIT", format=form)
        plugin = SimpleNamespace(imgzoo_weights=hookimpl(lambda: [row]))
        imgzoo.register(plugin, "foreignplug")
        monkeypatch.setattr("imgzoo.loading.load.fetch_weights", lambda source: path)
        return imgzoo.create_model(f"{name}.foreign", pretrained=True, **options)

    return load


# JAX arrays


def attention_arrays(state, path, heads, joined):
    """Query, key, value and output kernels with the heads apart, from our joined layers."""
    arrays = {}
    weights = torch.cat([state[f"{path}.{name}.weight"] for name in joined]).chunk(3)
    biases = torch.cat([state[f"{path}.{name}.bias"] for name in joined]).chunk(3)
    dim = weights[0].shape[1]
    for part, weight, bias in zip(("query", "key", "value"), weights, biases):
        arrays[f"{part}/kernel"] = weight.T.reshape(dim, heads, dim // heads)
        arrays[f"{part}/bias"] = bias.reshape(heads, dim // heads)
    arrays["out/kernel"] = state[f"{path}.proj.weight"].T.reshape(heads, dim // heads, dim)
    arrays["out/bias"] = state[f"{path}.proj.bias"]
    return arrays


def dense_arrays(state, path):
    return {"kernel": state[f"{path}.weight"].T, "bias": state[f"{path}.bias"]}


def norm_arrays(state, path):
    return {"scale": state[f"{path}.weight"], "bias": state[f"{path}.bias"]}


def nest(prefix, arrays):
    return {f"{prefix}/{key}": value for key, value in arrays.items()}


def jax_block(state, i, heads, norm2, attention, mlp):
    ours = f"blocks.{i}"
    return {
        **nest("LayerNorm_0", norm_arrays(state, f"{ours}.norm1")),
        **nest(norm2, norm_arrays(state, f"{ours}.norm2")),
        **nest(attention, attention_arrays(state, f"{ours}.attn", heads, ["qkv"])),
        **nest(f"{mlp}/Dense_0", dense_arrays(state, f"{ours}.mlp.fc1")),
        **nest(f"{mlp}/Dense_1", dense_arrays(state, f"{ours}.mlp.fc2")),
    }


def jax_trunk(state):
    return {
        "embedding/kernel": state["patch_embed.proj.weight"].permute(2, 3, 1, 0),
        "embedding/bias": state["patch_embed.proj.bias"],
        **nest("Transformer/encoder_norm", norm_arrays(state, "norm")),
    }


def original_vit(model, heads=4):
    """google-research/vision_transformer, as used for the first ViT and AugReg."""
    state = model.state_dict()
    arrays = {"cls": state["cls_token"], "Transformer/posembed_input/pos_embedding": state["pos_embed"]}
    arrays |= jax_trunk(state) | nest("head", dense_arrays(state, "head"))
    for i in range(len(model.blocks)):
        block = jax_block(state, i, heads, "LayerNorm_2", "MultiHeadDotProductAttention_1", "MlpBlock_3")
        arrays |= nest(f"Transformer/encoderblock_{i}", block)
    return arrays


def big_vision(model, heads=4, scanned=False):
    """big_vision's SigLIP: two towers, attention pooling, a learned temperature and bias."""
    state = model.state_dict()
    arrays = jax_trunk(state) | {"pos_embedding": state["pos_embed"]}
    blocks = [
        jax_block(state, i, heads, "LayerNorm_1", "MultiHeadDotProductAttention_0", "MlpBlock_0")
        for i in range(len(model.blocks))
    ]
    if scanned:
        arrays |= nest("Transformer/encoderblock", {k: torch.stack([b[k] for b in blocks]) for k in blocks[0]})
    else:
        for i, block in enumerate(blocks):
            arrays |= nest(f"Transformer/encoderblock_{i}", block)
    pool = {
        "probe": state["attn_pool.latent"],
        **nest("LayerNorm_0", norm_arrays(state, "attn_pool.norm")),
        **nest("MultiHeadDotProductAttention_0", attention_arrays(state, "attn_pool", heads, ["q", "kv"])),
        **nest("MlpBlock_0/Dense_0", dense_arrays(state, "attn_pool.mlp.fc1")),
        **nest("MlpBlock_0/Dense_1", dense_arrays(state, "attn_pool.mlp.fc2")),
    }
    arrays |= nest("MAPHead_0", pool)
    text = {
        "params/txt/Encoder_0/encoder_norm/scale": torch.ones(4),
        "params/t": torch.ones(1),
        "params/b": torch.ones(1),
    }
    return nest("params/img", arrays) | text


def write_npz(path, arrays):
    np.savez(path, **{key: value.numpy() for key, value in arrays.items()})
    return path


def test_original_vit_arrays(tmp_path):
    model = make("vit_tiny_patch16_224", **TINY, img_size=64)
    path = write_npz(tmp_path / "vit.npz", original_vit(model))
    again = imgzoo.create_model("vit_tiny_patch16_224", pretrained=path, **TINY, img_size=64)
    assert again.load_report.format == "jax"
    assert again.load_report.initialized == []
    same(model, again, 64)


def test_position_table_of_another_grid_is_resized(tmp_path):
    model = make("vit_tiny_patch16_224", **TINY, img_size=64)
    path = write_npz(tmp_path / "vit.npz", original_vit(model))
    again = imgzoo.create_model("vit_tiny_patch16_224", pretrained=path, **TINY, img_size=96)
    model.set_input_size(96)
    same(model, again, 96)


def test_a_classifier_behind_a_hidden_layer_is_left_out(tmp_path):
    model = make("vit_tiny_patch16_224", **TINY, img_size=64)
    arrays = original_vit(model) | {"pre_logits/kernel": torch.eye(32), "pre_logits/bias": torch.zeros(32)}
    path = write_npz(tmp_path / "vit.npz", arrays)
    again = imgzoo.create_model("vit_tiny_patch16_224", pretrained=path, **TINY, img_size=64).eval()
    assert again.load_report.initialized == ["head.weight", "head.bias"]
    x = image(64)
    with torch.inference_mode():
        torch.testing.assert_close(again.forward_features(x), model.forward_features(x))


@pytest.mark.parametrize("scanned", [False, True])
def test_big_vision_arrays(tmp_path, scanned):
    options = dict(TINY, img_size=64, num_classes=0)
    model = make("vit_base_patch16_siglip_224", **options)
    path = write_npz(tmp_path / "siglip.npz", big_vision(model, scanned=scanned))
    again = imgzoo.create_model("vit_base_patch16_siglip_224", pretrained=path, **options)
    same(model, again, 64)


@pytest.mark.parametrize("flat", [False, True])
def test_big_vision_arrays_of_naflex(tmp_path, flat):
    model = make("vit_base_patch16_siglip_224", **TINY | {"num_classes": 0}, img_size=64)
    arrays = big_vision(model)
    if flat:
        table, kernel = "params/img/pos_embedding", "params/img/embedding/kernel"
        arrays[table], arrays[kernel] = arrays[table].unflatten(1, (4, 4))[0], arrays[kernel].flatten(0, 2)
    path = write_npz(tmp_path / "naflex.npz", arrays)
    options = dict(embed_dim=32, depth=2, num_heads=4, pos_grid=(4, 4), act="gelu")
    again = imgzoo.create_model("naflexvit_base_patch16_siglip", pretrained=path, **options)
    assert again.load_report.format == "jax"
    same(model, again, 64)


def test_mean_pooled_siglip_leaves_attention_pooling_out(tmp_path):
    options = dict(TINY, img_size=64, num_classes=0)
    model = make("vit_base_patch16_siglip_224", **options)
    path = write_npz(tmp_path / "siglip.npz", big_vision(model))
    again = imgzoo.create_model("vit_base_patch16_siglip_gap_224", pretrained=path, **options).eval()
    with torch.inference_mode():
        torch.testing.assert_close(again(image(64)), model.forward_features(image(64)).mean(1))


def test_arrays_of_a_deeper_network_are_refused(tmp_path):
    model = make("vit_tiny_patch16_224", **{**TINY, "depth": 3}, img_size=64)
    path = write_npz(tmp_path / "vit.npz", original_vit(model))
    with pytest.raises(WeightsError, match="cannot place"):
        imgzoo.create_model("vit_tiny_patch16_224", pretrained=path, **TINY, img_size=64)


# CLIP

CLIP_BLOCK = {
    "ln_1.weight": "norm1.weight",
    "ln_1.bias": "norm1.bias",
    "ln_2.weight": "norm2.weight",
    "ln_2.bias": "norm2.bias",
    "attn.in_proj_weight": "attn.qkv.weight",
    "attn.in_proj_bias": "attn.qkv.bias",
    "attn.out_proj.weight": "attn.proj.weight",
    "attn.out_proj.bias": "attn.proj.bias",
    "mlp.c_fc.weight": "mlp.fc1.weight",
    "mlp.c_fc.bias": "mlp.fc1.bias",
    "mlp.c_proj.weight": "mlp.fc2.weight",
    "mlp.c_proj.bias": "mlp.fc2.bias",
}


def clip(model):
    """OpenAI's and open_clip's two towers; the visual projection has no bias."""
    state = model.state_dict()
    visual = {
        "class_embedding": state["cls_token"][0, 0],
        "positional_embedding": state["pos_embed"][0],
        "proj": state["head.weight"].T,
        "conv1.weight": state["patch_embed.proj.weight"],
    }
    for theirs, ours in {"ln_pre": "norm_pre", "ln_post": "norm"}.items():
        visual |= {f"{theirs}.{leaf}": state[f"{ours}.{leaf}"] for leaf in ("weight", "bias")}
    for i in range(len(model.blocks)):
        for theirs, ours in CLIP_BLOCK.items():
            visual[f"transformer.resblocks.{i}.{theirs}"] = state[f"blocks.{i}.{ours}"]
    text = {"positional_embedding": torch.zeros(7, 8), "transformer.resblocks.0.ln_1.weight": torch.ones(8)}
    text |= {"logit_scale": torch.tensor(4.6), "text_projection": torch.eye(8), "ln_final.weight": torch.ones(8)}
    return text | {f"visual.{key}": value.clone() for key, value in visual.items()}


def test_clip_visual_tower(tmp_path):
    model = make("vit_base_patch32_clip_224", **TINY, img_size=64)
    torch.nn.init.zeros_(model.head.bias)
    torch.save(clip(model), tmp_path / "clip.pt")
    again = imgzoo.create_model("vit_base_patch32_clip_224", pretrained=tmp_path / "clip.pt", **TINY, img_size=64)
    assert again.load_report.format == "clip"
    same(model, again, 64)


def test_open_clip_tower_that_is_one_of_our_networks(tmp_path):
    model = make("vit_base_patch16_siglip_224", **TINY, img_size=64)
    torch.nn.init.zeros_(model.head.bias)
    state = {f"visual.trunk.{k}": v for k, v in model.state_dict().items() if not k.startswith("head.")}
    state |= {"visual.head.proj.weight": model.head.weight.detach(), "text.ln_final.weight": torch.ones(8)}
    torch.save({"state_dict": state}, tmp_path / "tower.pt")
    again = imgzoo.create_model("vit_base_patch16_siglip_224", pretrained=tmp_path / "tower.pt", **TINY, img_size=64)
    assert again.load_report.format == "open-clip-trunk"
    same(model, again, 64)


# self-supervised and distilled training in torch


def test_dino_training_checkpoint(tmp_path):
    options = dict(TINY, num_classes=0, img_size=64)
    model = make("vit_small_patch16_224", **options)
    teacher = {f"backbone.{key}": value for key, value in model.state_dict().items()}
    teacher |= {"head.mlp.0.weight": torch.eye(8), "head.last_layer.weight_v": torch.eye(8)}
    student = {f"module.{key}": torch.zeros_like(value) for key, value in teacher.items()}
    torch.save({"student": student, "teacher": teacher, "epoch": 100}, tmp_path / "dino.pth")
    again = imgzoo.create_model("vit_small_patch16_224", pretrained=tmp_path / "dino.pth", **options)
    same(model, again, 64)


def dinov2(model):
    """facebookresearch/dinov2: the class token has a row of the table, registers none, a mask token stays unused."""
    state = dict(model.state_dict())
    if "reg_token" in state:
        state["register_tokens"] = state.pop("reg_token")
        row = torch.randn(1, 1, state["cls_token"].shape[2])
        state["cls_token"] = state["cls_token"] - row
        state["pos_embed"] = torch.cat([row, state["pos_embed"]], dim=1)
    if model.blocks[0].mlp.fc2.in_features * 2 == model.blocks[0].mlp.fc1.out_features:
        for theirs, ours in (("w12", "fc1"), ("w3", "fc2")):
            for leaf in ("weight", "bias"):
                for i in range(len(model.blocks)):
                    state[f"blocks.{i}.mlp.{theirs}.{leaf}"] = state.pop(f"blocks.{i}.mlp.{ours}.{leaf}")
    state["mask_token"] = torch.zeros(1, state["cls_token"].shape[2])
    return state


@pytest.mark.parametrize(
    "name", ["vit_small_patch14_dinov2", "vit_small_patch14_reg4_dinov2", "vit_giant_patch14_reg4_dinov2"]
)
def test_dinov2(tmp_path, tagged, name):
    options = dict(TINY, num_classes=0, img_size=56)
    model = make(name, **options)
    torch.save(dinov2(model), tmp_path / "dinov2.pth")
    again = tagged(name, tmp_path / "dinov2.pth", "dino", **options)
    same(model, again, 56)


def test_dinov2_blocks_in_chunks(tmp_path):
    options = dict(TINY, num_classes=0, img_size=56)
    model = make("vit_small_patch14_dinov2", **options)
    state = {}
    for key, value in dinov2(model).items():
        for i in range(len(model.blocks)):
            key = key.replace(f"blocks.{i}.", f"chunks.{i}.{i}.")
        state[key.replace("chunks.", "blocks.")] = value
    torch.save({"teacher": {f"backbone.{key}": value for key, value in state.items()}}, tmp_path / "dinov2.pth")
    again = imgzoo.create_model("vit_small_patch14_dinov2", pretrained=tmp_path / "dinov2.pth", **options)
    same(model, again, 56)


def test_masked_autoencoder_with_its_decoder(tmp_path, tagged):
    options = dict(TINY, num_classes=0, img_size=64)
    model = make("vit_base_patch16_224", **options)
    decoder = {
        "mask_token": torch.zeros(1, 1, 8),
        "decoder_embed.weight": torch.eye(8),
        "decoder_norm.bias": torch.ones(8),
    }
    torch.save({"model": {**model.state_dict(), **decoder}}, tmp_path / "mae.pth")
    same(model, tagged("vit_base_patch16_224", tmp_path / "mae.pth", "mae", **options), 64)


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_deit_checkpoints_have_our_names(tmp_path, name):
    model = make(name, **TINY, img_size=64)
    torch.save({"model": model.state_dict()}, tmp_path / "deit.pth")
    again = imgzoo.create_model(name, pretrained=tmp_path / "deit.pth", **TINY, img_size=96)
    assert again.load_report.adapted == ["pos_embed: grid 4x4 resized to 6x6"]
    model.set_input_size(96)
    same(model, again, 96)


def test_deit3_layer_scales(tmp_path, tagged):
    model = make("deit3_small_patch16_224", **TINY, img_size=64)
    state = {}
    for key, value in model.state_dict().items():
        state[key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2")] = value
    assert "blocks.0.gamma_1" in state
    torch.save({"model": state}, tmp_path / "deit3.pth")
    again = tagged("deit3_small_patch16_224", tmp_path / "deit3.pth", "deit3", **TINY, img_size=64)
    assert again.load_report.format == "deit3"
    same(model, again, 64)


RADIO = {"vit_base_patch16_radio_v3": True, "vit_large_patch16_radio_v3": False,
         "naflexvit_base_patch16_radio_v3": True, "naflexvit_huge_patch16_radio_v4": False}  # fmt: skip


@pytest.mark.parametrize("name, corners", RADIO.items())
def test_radio(tmp_path, name, corners):
    """Positions of a whole table, (1, 128 * 128, D), are stretched to a square around the grid and cut."""
    options = dict(embed_dim=32, depth=2, num_heads=4, img_size=(48, 80))
    model = make(name, **options)
    state = {"radio_model.input_conditioner.norm_mean": torch.zeros(3, 1, 1),
             "radio_model.summary_idxs": torch.tensor([0, 1, 2])}  # fmt: skip
    for key, value in model.blocks.state_dict().items():
        state[f"radio_model.model.blocks.{key.replace('.gamma', '.grandma')}"] = value
    parts = "radio_model.model.patch_generator"
    kernel = state[f"{parts}.embedder.weight"] = torch.randn(32, 3 * 16 * 16)
    table = state[f"{parts}.pos_embed"] = torch.randn(1, 128 * 128, 32)
    tokens = state[f"{parts}.cls_token.token"] = torch.randn(model.num_prefix_tokens, 32)
    torch.save(state, tmp_path / "radio.pth")
    again = imgzoo.create_model(name, pretrained=tmp_path / "radio.pth", **options).eval()
    assert again.load_report.format == "radio"
    patches = torch.nn.functional.unfold(image(80)[:, :, :48], 16, stride=16).transpose(1, 2) @ kernel.T
    table = table.reshape(1, 128, 128, 32).permute(0, 3, 1, 2)
    table = torch.nn.functional.interpolate(table, (5, 5), mode="bilinear", align_corners=corners)[:, :, :3]
    embedded = torch.cat([tokens.expand(2, -1, -1), patches + table.flatten(2).transpose(1, 2)], dim=1)
    with torch.inference_mode():
        given = again.embed(image(80)[:, :, :48])
        torch.testing.assert_close(given[0] if name.startswith("naflex") else given, embedded, rtol=0, atol=1e-4)
        for block, other in zip(again.blocks, model.blocks):
            assert all(torch.equal(a, b) for a, b in zip(block.state_dict().values(), other.state_dict().values()))


# Swin


def original_swin(model):
    """microsoft/Swin-Transformer: merging closes a stage, index and mask are stored."""
    state = {}
    for key, value in model.state_dict().items():
        for stage in (1, 2, 3):
            key = key.replace(f"layers.{stage}.downsample", f"before.{stage - 1}.downsample")
        state[key.replace("before", "layers").replace("head.fc", "head")] = value
    for i, stage in enumerate(model.layers):
        for j, block in enumerate(stage.blocks):
            state[f"layers.{i}.blocks.{j}.attn.relative_position_index"] = block.attn.relative_position_index
            if block.attn_mask is not None:
                state[f"layers.{i}.blocks.{j}.attn_mask"] = block.attn_mask
    return state


def test_original_swin(tmp_path, tagged):
    model = make("swin_tiny_patch4_window7_224", **SWIN)
    state = original_swin(model)
    assert "layers.0.downsample.reduction.weight" in state and "layers.3.downsample.reduction.weight" not in state
    torch.save({"model": state}, tmp_path / "swin.pth")
    again = tagged("swin_tiny_patch4_window7_224", tmp_path / "swin.pth", "original", **SWIN)
    same(model, again, 64)


def test_original_swin_with_another_window(tmp_path, tagged):
    model = make("swin_tiny_patch4_window7_224", **SWIN)
    torch.save({"model": original_swin(model)}, tmp_path / "swin.pth")
    wide = {**SWIN, "window_size": 8, "img_size": 128}
    again = tagged("swin_tiny_patch4_window7_224", tmp_path / "swin.pth", "original", **wide)
    model.set_input_size(img_size=128, window_size=8)
    same(model, again, 128)

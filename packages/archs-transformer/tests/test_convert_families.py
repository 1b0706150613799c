"""Checkpoints of the authors of each family, written by hand in their names, load whole and compute the same."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import authors_names as names
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import imgzoo
from imgzoo.errors import WeightsError
from imgzoo_layers.reparam import reparameterize

State = dict[str, torch.Tensor]


class Case(NamedTuple):
    """`theirs(state)` writes our weights in the names of `format`; an optional model name and its options."""

    format: str
    theirs: Callable[[State], State]
    name: str
    options: dict[str, Any]
    size: int = 64


PROJECTED = ("open-clip-trunk", "perception", "transformers", "mobileclip")
"""Formats whose classifier is a projection without bias."""
TINY = dict(embed_dim=64, depth=2, num_heads=4, img_size=64, patch_size=16, num_classes=5)
BARE = TINY | {"num_classes": 0}
FLEX = dict(embed_dim=64, depth=2, num_heads=4, pos_grid=(4, 4))
LITTLE = dict(embed_dim=(32, 48), key_dim=8, num_heads=(2, 3), depth=(2, 1), img_size=64, num_classes=5)
FAST = dict(depths=(1, 1, 1, 1), embed_dims=(16, 16, 32, 64), num_classes=5)
TOWER = dict(embed_dim=32, depth=2, num_heads=2)
CASES = [
    Case("open-clip-trunk", names.trunk, "eva02_base_patch16_clip_224", TINY),
    Case("open-clip-trunk", names.trunk, "vit_pe_core_base_patch16_224", TINY),
    Case("open-clip-trunk", names.trunk, "swin_tiny_patch4_window7_224",
         dict(embed_dim=16, depths=(1, 1), num_heads=(1, 2), img_size=64, window_size=4, num_classes=5)),
    Case("eva", names.eva02, "eva02_base_patch14_224", TINY),
    Case("eva", names.eva02_packed, "eva02_small_patch14_336", TINY),
    Case("eva", names.eva02_pretrained, "eva02_base_patch14_224", BARE),
    Case("eva-clip", names.eva_clip, "eva02_base_patch16_clip_224", TINY),
    Case("perception", names.perception, "vit_pe_core_base_patch16_224", TINY),
    Case("perception-tower", names.perception_tower, "vit_pe_lang_large_patch14_448", BARE),
    Case("perception-tower", names.perception_tower, "vit_pe_spatial_base_patch16_512", BARE),
    Case("transformers", names.hugging, "vit_base_patch16_siglip_224", BARE),
    Case("transformers", names.hugging, "vit_base_patch16_clip_224", TINY),
    Case("transformers", names.hugging, "naflexvit_base_patch16_siglip", FLEX),
    Case("vit", names.vit_of_naflex, "naflexvit_base_patch16_gap", FLEX),
    Case("vit", names.vit_of_naflex, "naflexvit_base_patch16_radio_v3", FLEX | {"reg_tokens": 0}),
    Case("original", names.sam, "samvit_base_patch16",
         dict(embed_dim=64, depth=2, num_heads=4, img_size=64, global_blocks=(1,))),
    Case("original-encoder", names.sam_encoder, "samvit_base_patch16",
         dict(embed_dim=64, depth=2, num_heads=4, img_size=64, global_blocks=(1,))),
    Case("original", names.swin_v2, "swinv2_tiny_window8_256",
         dict(embed_dim=16, depths=(1, 2), num_heads=(1, 2), img_size=64, window_size=4, num_classes=5)),
    Case("original", names.levit, "levit_128s", LITTLE),
    Case("original", names.levit, "levit_conv_128s", LITTLE),
    Case("jax", names.mixer, "mixer_s16_224", dict(embed_dim=64, num_blocks=2, img_size=64, num_classes=5)),
    Case("original", names.resmlp, "resmlp_12_224", dict(embed_dim=64, num_blocks=2, img_size=64, num_classes=5)),
    Case("original", names.fastvit, "fastvit_t8", FAST),
    Case("original", names.fastvit, "fastvit_sa12", FAST),
    Case("mobileclip", names.mobileclip, "fastvit_mci0", FAST),
    Case("original", names.xcit, "xcit_nano_12_p16_224", dict(embed_dim=32, depth=2, num_heads=4, num_classes=5)),
    Case("original", names.csatv2, "csatv2",
         dict(dims=(8, 8, 16, 16), depths=(1, 1, 2, 2), transformer_depths=(0, 0, 1, 1), num_heads=2, head_dim=8,
              num_classes=5), 128),
    Case("language-model", names.qwen, "qwen3_vit_88m", TOWER),
    Case("language-model", names.qwen, "qwen3_vit_88m_merge", TOWER | {"out_features": 24}),
    Case("tower", names.qwen_tower, "qwen3_vit_88m_enc", TOWER | {"out_features": 24}),
    Case("language-model", names.gemma, "gemma4_vit_167m", TOWER | {"hidden": 48, "head_dim": 16}, 96),
    Case("tower", names.gemma_tower, "gemma4_vit_570m_enc", TOWER | {"hidden": 48, "head_dim": 16}, 96),
    Case("language-model", names.deepseek, "deepseek_vit_412m", TOWER, 126),
    Case("language-model", names.deepseek, "deepseek_vit_412m_enc", TOWER | {"out_features": 24}, 126),
    Case("aim", names.aim, "aimv2_large_patch14_224", BARE),
    Case("original", names.beit, "beit_base_patch16_224", TINY),
    Case("original", names.beit_pretrained, "beit_base_patch16_224", BARE | {"depth": 1}),
    Case("original", names.beit_v2_pretrained, "beitv2_base_patch16_224", BARE | {"depth": 1}),
    Case("beit3", names.beit3, "beit3_base_patch16_224", TINY),
    Case("dinov3", names.dinov3, "vit_base_patch16_dinov3_qkvb", BARE),
    Case("dinov3", names.dinov3, "vit_small_plus_patch16_dinov3", BARE),
    Case("dinov3-transformers", names.dinov3_transformers, "vit_base_patch16_dinov3_qkvb", BARE),
    Case("dinov3-transformers", names.dinov3_transformers, "vit_small_plus_patch16_dinov3_qkvb", BARE),
]  # fmt: skip


def make(name, options):
    """A model with every parameter away from its initial value."""
    torch.manual_seed(0)
    model = imgzoo.create_model(name, **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


def write(state, path):
    if any("/" in key for key in state):
        path = path.with_suffix(".npz")
        np.savez(path, **{key: value.numpy() for key, value in state.items()})
    else:
        torch.save({"model": {key: value.detach().clone() for key, value in state.items()}}, path)
    return path


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.format}-{case.theirs.__name__}-{case.name}")
def test_authors_names(tmp_path, case):
    model = make(case.name, case.options)
    state = case.theirs(model.state_dict())
    if case.format in PROJECTED and model.num_classes:
        torch.nn.init.zeros_(model.get_classifier().bias)
    again = imgzoo.create_model(case.name, pretrained=write(state, tmp_path / "theirs.pth"), **case.options).eval()
    assert again.load_report.format == case.format
    assert again.load_report.initialized == []
    assert all("of one pixel" in note for note in again.load_report.adapted)
    image = torch.randn(2, 3, case.size, case.size, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(again(image), model(image), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.format}-{case.theirs.__name__}-{case.name}")
@pytest.mark.parametrize("fault", ["lost", "strange"])
def test_a_wrong_name_is_refused(tmp_path, case, fault):
    """Neither a tensor that is missing nor one of a layer too many loads in silence."""
    state = case.theirs(make(case.name, case.options).state_dict())
    kernels = [
        key for key, value in state.items() if value.ndim > 1 and re.search(r"[._]\d+[./].*(weight|kernel)", key)
    ]
    kernel = next(key for key in kernels if "text" not in key)
    if fault == "lost":
        del state[kernel]
    else:
        state[re.sub(r"([._])\d+([./])", r"\g<1>77\2", kernel, count=1)] = state[kernel].clone()
    with pytest.raises(WeightsError):
        imgzoo.create_model(case.name, pretrained=write(state, tmp_path / "theirs.pth"), **case.options)


def test_biases_that_a_dinov3_name_lacks_are_not_dropped(tmp_path):
    state = names.dinov3(make("vit_base_patch16_dinov3_qkvb", BARE).state_dict())
    path = write(state, tmp_path / "theirs.pth")
    with pytest.raises(WeightsError, match="_dinov3_qkvb"):
        imgzoo.create_model("vit_base_patch16_dinov3", pretrained=path, **BARE)
    path = write({key: value * ("qkv.bias" not in key) for key, value in state.items()}, tmp_path / "zeros.pth")
    assert imgzoo.create_model("vit_base_patch16_dinov3", pretrained=path, **BARE).load_report.initialized == []


@pytest.mark.parametrize("theirs", [dict, names.fastvit], ids=["our names", "their names"])
@pytest.mark.parametrize("name", ["fastvit_t8", "fastvit_sa12", "fastvit_mci0"])
def test_fused_branches(tmp_path, name, theirs):
    """Weights fused for inference load into branches, which compute the same, can be trained, and fuse again."""
    model = make(name, FAST)
    fused = reparameterize(model)
    path = write(theirs(fused.state_dict()), tmp_path / "fused.pth")
    again = imgzoo.create_model(name, pretrained=path, **FAST).eval()
    assert again.load_report.format == ("fused" if theirs is dict else "original")
    assert again.load_report.initialized == []
    image = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        expected = model(image)
        for network in (fused, again, reparameterize(again)):
            torch.testing.assert_close(network(image), expected, rtol=1e-4, atol=1e-4 * expected.abs().max().item())


def write_shards(state, folder):
    """Two files with the tower's tensors in turn, a third with the rest, index and configuration beside them."""
    tower = [key for key in state if "vis" in key or key.startswith("aligner.")]
    places = {key: f"model-{tower.index(key) % 2 + 1 if key in tower else 3}-of-3.safetensors" for key in state}
    folder.mkdir(exist_ok=True)
    for name in set(places.values()):
        save_file({key: state[key].detach().contiguous() for key in state if places[key] == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))
    (folder / "config.json").write_text(json.dumps({"architectures": ["SomeForConditionalGeneration"]}))
    return folder


TOWERS = [case for case in CASES if case.format == "language-model"]


@pytest.mark.parametrize("case", TOWERS, ids=lambda case: case.name)
def test_a_tower_out_of_the_files_of_a_language_model(tmp_path, case):
    model = make(case.name, case.options)
    folder = write_shards(case.theirs(model.state_dict()), tmp_path / "language")
    (folder / "model-3-of-3.safetensors").unlink()  # what is not needed need not be there
    image = torch.randn(1, 3, case.size, case.size, generator=torch.Generator().manual_seed(1))
    for where in (folder, folder / "model.safetensors.index.json", f"local-dir:{folder}"):
        again = imgzoo.create_model(case.name, pretrained=where, **case.options).eval()
        assert again.load_report.format == "language-model" and again.load_report.initialized == []
    other = imgzoo.create_model(case.name, **case.options).eval()
    assert imgzoo.load_checkpoint(other, folder).format == "language-model"
    with torch.inference_mode():
        for network in (again, other):
            torch.testing.assert_close(network(image), model(image), rtol=1e-5, atol=1e-5)


def test_a_tower_from_the_hub_brings_only_its_files(tmp_path, monkeypatch):
    case, asked = TOWERS[0], []
    model = make(case.name, case.options)
    folder = write_shards(case.theirs(model.state_dict()), tmp_path / "language")

    def hub_file(repo, filename, missing_ok=False):
        asked.append((repo, filename))
        cached = tmp_path / filename
        if missing_ok and not (folder / filename).exists():
            return None
        return Path(shutil.copy(folder / filename, cached))

    monkeypatch.setattr("imgzoo.loading.places.hub_file", hub_file)
    again = imgzoo.create_model(case.name, pretrained="hf-hub:acme/language@v1", **case.options)
    assert again.load_report.format == "language-model"
    assert {repo for repo, _ in asked} == {"acme/language@v1"}
    files = ["model.safetensors.index.json", "model-1-of-3.safetensors", "model-2-of-3.safetensors"]
    assert [name for _, name in asked if "bin" not in name][1:] == files


@pytest.mark.parametrize("fault, said", [
    ("missing", "there is no weight file"), ("outside", "no .safetensors file of its folder"),
    ("lost", "does not have it"), ("empty", "no 'weight_map'"),
])  # fmt: skip
def test_an_index_that_lies_is_refused(tmp_path, fault, said):
    case = TOWERS[0]
    folder = write_shards(case.theirs(make(case.name, case.options).state_dict()), tmp_path / "language")
    index = folder / "model.safetensors.index.json"
    places = json.loads(index.read_text())["weight_map"]
    if fault == "missing":
        (folder / "model-1-of-3.safetensors").unlink()
    elif fault == "outside":
        places = {key: f"../language/{name}" for key, name in places.items()}
    elif fault == "lost":
        places["model.visual.blocks.7.norm1.weight"] = "model-1-of-3.safetensors"
    index.write_text(json.dumps({} if fault == "empty" else {"weight_map": places}))
    with pytest.raises(WeightsError, match=re.escape(said)):
        imgzoo.create_model(case.name, pretrained=folder, **case.options)


def test_two_tensors_for_one_place_are_refused(tmp_path):
    state = names.eva02(make("eva02_base_patch14_224", TINY).state_dict())
    state["blocks.0.mlp.norm.weight"] = state["blocks.0.mlp.ffn_ln.weight"] + 1
    with pytest.raises(WeightsError, match=r"several tensors for blocks\.0\.mlp\.norm\.weight"):
        imgzoo.create_model("eva02_base_patch14_224", pretrained=write(state, tmp_path / "theirs.pth"), **TINY)

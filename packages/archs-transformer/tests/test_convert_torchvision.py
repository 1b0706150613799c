"""Weights of torchvision's transformers load into ours and compute the same, in float64."""

import re
from functools import partial

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torchvision.models import MaxVit, VisionTransformer, swin_transformer

import imgzoo
from imgzoo.errors import WeightsError

SWIN = dict(patch_size=[4, 4], embed_dim=16, depths=[2, 2, 1], num_heads=[1, 2, 4], window_size=[4, 4], num_classes=7)
OURS = dict(embed_dim=16, depths=(2, 2, 1), num_heads=(1, 2, 4), window_size=4, img_size=64)
V2 = dict(block=swin_transformer.SwinTransformerBlockV2, downsample_layer=swin_transformer.PatchMergingV2)
VIT = dict(image_size=32, patch_size=8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=128, num_classes=7)
MAX = dict(input_size=(64, 64), stem_channels=16, partition_size=2, block_channels=[32, 64], block_layers=[1, 2],
           head_dim=32, stochastic_depth_prob=0.0, num_classes=7)  # fmt: skip
LIKE = dict(padding="", act="gelu", attn_act="gelu", pool="avg3")
TINY = dict(dims=(32, 64), depths=(1, 2), stem_dims=(16, 16), blocks=("M", "M"), head_hidden=64, img_size=64)
CASES = {
    "swin": (partial(swin_transformer.SwinTransformer, **SWIN), "swin_tiny_patch4_window7_224", OURS),
    "swin v2": (partial(swin_transformer.SwinTransformer, **SWIN, **V2), "swinv2_tiny_window8_256", OURS),
    "vit": (partial(VisionTransformer, **VIT), "vit_base_patch16_224",
            dict(img_size=32, patch_size=8, depth=2, num_heads=4, embed_dim=32)),
    "maxvit": (partial(MaxVit, **MAX), "maxvit_tiny_tf_224", TINY | LIKE),
    "maxvit, another table": (partial(MaxVit, **MAX), "maxvit_tiny_tf_224", TINY | LIKE | {"rel_pos": "bias"}),
}  # fmt: skip
VARIANTS = {"swin_t": "swin_tiny_patch4_window7_224", "swin_s": "swin_small_patch4_window7_224",
            "swin_b": "swin_base_patch4_window7_224", "swin_v2_t": "swinv2_tiny_window8_256",
            "swin_v2_s": "swinv2_small_window8_256", "swin_v2_b": "swinv2_base_window8_256",
            "vit_b_16": "vit_base_patch16_224", "vit_b_32": "vit_base_patch32_224",
            "maxvit_t": "maxvit_tiny_tf_224"}  # fmt: skip


def of_torchvision(make, path):
    """A network with every parameter and statistic at a random value, and its file."""
    torch.manual_seed(0)
    theirs = make().eval()
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        for key, buffer in theirs.named_buffers():
            if "running" in key:
                buffer.add_(torch.rand_like(buffer) * 0.1)
    save_file({key: value.contiguous() for key, value in theirs.state_dict().items()}, path)
    return theirs.double()


@pytest.mark.parametrize("make, name, options", CASES.values(), ids=CASES)
def test_torchvision(tmp_path, make, name, options):
    path = tmp_path / "theirs.safetensors"
    theirs = of_torchvision(make, path)
    model = imgzoo.create_model(name, pretrained=path, **options).double().eval()
    assert (model.load_report.format, model.num_classes, model.load_report.initialized) == ("torchvision", 7, [])
    bare = imgzoo.create_model(name, pretrained=path, num_classes=0, **options).double().eval()
    side = options["img_size"]
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    with torch.inference_mode():
        want = theirs(x)
        torch.testing.assert_close(model(x), want, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model.get_classifier()(bare(x)), want, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("theirs, ours", VARIANTS.items())
def test_every_variant_of_torchvision(tmp_path, theirs, ours):
    make = partial(getattr(torchvision.models, theirs), weights=None)
    network = of_torchvision(make, tmp_path / "theirs.safetensors").float()
    options = LIKE if "max" in ours else {}
    model = imgzoo.create_model(ours, pretrained=tmp_path / "theirs.safetensors", **options).eval()
    x = torch.randn(1, *model.pretrained_cfg["input_size"])
    with torch.inference_mode():
        want = network(x)
        assert (model(x) - want).abs().max() <= 1e-4 * want.abs().max()


@pytest.mark.parametrize("name, options, said", [
    ("maxvit_tiny_tf_224", {}, "give padding='', act='gelu', attn_act='gelu', pool='avg3'"),
    *[("maxvit_tiny_tf_224", {key: each for key, each in LIKE.items() if key != lost}, "computes otherwise")
      for lost in LIKE],
    ("maxvit_tiny_rw_224", LIKE, "do not fit"),
])  # fmt: skip
def test_a_maxvit_that_computes_otherwise_is_refused(tmp_path, name, options, said):
    path = tmp_path / "theirs.safetensors"
    of_torchvision(partial(MaxVit, **MAX), path)
    with pytest.raises(WeightsError, match=re.escape(said)):
        imgzoo.create_model(name, pretrained=path, **{**TINY, "head_hidden": None if "rw" in name else 64, **options})


@pytest.mark.parametrize("case", CASES)
def test_a_file_that_lacks_a_layer_is_refused(tmp_path, case):
    make, name, options = CASES[case]
    path = tmp_path / "theirs.safetensors"
    state = of_torchvision(make, path).state_dict()
    lost = next(key for key in state if "mlp" in key and key.endswith("weight") and state[key].ndim == 2)
    save_file({key: value.contiguous() for key, value in state.items() if key != lost}, path)
    with pytest.raises(WeightsError, match="lacks"):
        imgzoo.create_model(name, pretrained=path, **options)

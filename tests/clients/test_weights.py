"""Weights of transformers and open_clip: their networks and ours compute the same, in float64, from the same file."""

import open_clip
import pytest
import torch
import transformers
from safetensors.torch import save_file

import imgzoo
from imgzoo.errors import WeightsError

SMALL = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128, image_size=32,
             patch_size=8, layer_norm_eps=1e-6)  # fmt: skip
OURS = dict(embed_dim=32, depth=2, num_heads=4, img_size=32, patch_size=8)
DIMS = dict(depths=[1, 2, 1, 1], hidden_sizes=[8, 16, 24, 32])
CONV = dict(depths=(1, 2, 1, 1), dims=(8, 16, 24, 32))
WINDOWS = dict(embed_dim=16, depths=[2, 2, 1], num_heads=[1, 2, 4], image_size=64, window_size=4)
SWIN = dict(embed_dim=16, depths=(2, 2, 1), num_heads=(1, 2, 4), img_size=64, window_size=4)
BEIT = dict(use_relative_position_bias=True, layer_scale_init_value=0.1)
SCALED = OURS | {"layer_scale": 0.1}
REGISTERS = dict(num_register_tokens=4, layer_norm_eps=1e-5)
GATED = dict(use_gated_mlp=True, hidden_act="silu")


def logits(output):
    return output.logits


def last(output):
    return output.last_hidden_state


def pooled(output):
    return output.pooler_output


def embedded(output):
    return output.image_embeds


CASES = {  # kind of network -> its options, what of its output is ours, our name, options
    "ViTForImageClassification": (SMALL, logits, "vit_base_patch16_224", OURS),
    "ViTModel": (SMALL, last, "vit_base_patch16_224", OURS),
    "DeiTForImageClassificationWithTeacher": (SMALL, logits, "deit_tiny_distilled_patch16_224", OURS),
    "DeiTModel": (SMALL, last, "deit_tiny_distilled_patch16_224", OURS),
    "Dinov2Model": (SMALL, last, "vit_small_patch14_dinov2", SCALED),
    "Dinov2Model, gated": (SMALL | {"use_swiglu_ffn": True}, last, "vit_giant_patch14_dinov2",
                           SCALED | {"mlp_ratio": 176 / 32}),
    "Dinov2WithRegistersModel": (SMALL, last, "vit_small_patch14_reg4_dinov2", SCALED),
    "DINOv3ViTModel": (SMALL | REGISTERS, last, "vit_small_patch16_dinov3_qkvb", OURS),
    "DINOv3ViTModel, gated": (SMALL | REGISTERS | GATED, last, "vit_small_plus_patch16_dinov3_qkvb",
                              OURS | {"mlp_ratio": 4}),
    "DINOv3ConvNextModel": (DIMS, pooled, "convnext_tiny", CONV),
    "BeitForImageClassification": (SMALL | BEIT, logits, "beit_base_patch16_224", OURS),
    "BeitModel": (SMALL | BEIT, pooled, "beit_base_patch16_224", OURS),
    "SwinForImageClassification": (WINDOWS, logits, "swin_tiny_patch4_window7_224", SWIN),
    "SwinModel": (WINDOWS, pooled, "swin_tiny_patch4_window7_224", SWIN),
    "Swinv2ForImageClassification": (WINDOWS, logits, "swinv2_tiny_window8_256", SWIN),
    "ConvNextForImageClassification": (DIMS, logits, "convnext_tiny", CONV),
    "ConvNextModel": (DIMS, pooled, "convnext_tiny", CONV),
    "ConvNextV2ForImageClassification": (DIMS, logits, "convnextv2_tiny", CONV),
    "ResNetForImageClassification": ({"depths": [1, 2, 1, 1]}, logits, "resnet50", {"layers": (1, 2, 1, 1)}),
    "ResNetForImageClassification, basic": (
        {"depths": [1, 2, 1, 1], "hidden_sizes": [64, 128, 256, 512], "layer_type": "basic"}, logits, "resnet18",
        {"layers": (1, 2, 1, 1)}),
    "SiglipVisionModel": (SMALL, pooled, "vit_base_patch16_siglip_224", OURS | {"act": "gelu_tanh"}),
    "CLIPVisionModelWithProjection": (SMALL | {"projection_dim": 7, "layer_norm_eps": 1e-5}, embedded,
                                      "vit_base_patch16_clip_quickgelu_224", OURS),
}  # fmt: skip


def randomized(network):
    """Every parameter and statistic at a random value."""
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
        for key, buffer in network.named_buffers():
            if "running" in key:
                buffer.add_(torch.rand_like(buffer) * 0.1)
    return network.double().eval()


def of_transformers(case):
    kind, _, _ = case.partition(",")
    config_of = getattr(transformers, kind).config_class
    if kind.startswith("CLIP"):
        config_of = transformers.CLIPVisionConfig
    config = config_of(**CASES[case][0], **({"num_labels": 7} if "Classification" in kind else {}))
    return randomized(getattr(transformers, kind)(config))


@pytest.mark.parametrize("spelled", ["saved", "in memory"])
@pytest.mark.parametrize("case", CASES)
def test_transformers(case, spelled, tmp_path):
    """Files say other names than networks in memory do: both are read."""
    _, read, name, options = CASES[case]
    theirs = of_transformers(case)
    if spelled == "saved":
        theirs.save_pretrained(tmp_path)
    else:
        save_file({key: value.contiguous() for key, value in theirs.state_dict().items()}, tmp_path / "theirs")
        (tmp_path / "theirs").rename(tmp_path / "model.safetensors")
    path = tmp_path / "model.safetensors"
    if read in (last, pooled):
        options = options | {"num_classes": 0}
    ours = imgzoo.create_model(name, pretrained=path, dtype=torch.float64, **options).eval()
    assert ours.load_report.format.startswith(("transformers", "dinov3")) and ours.load_report.initialized == []
    side = options.get("img_size", 64)
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    with torch.no_grad():
        want = read(theirs(x)).flatten(1) if read is pooled else read(theirs(x))
        got = ours.forward_features(x) if read is last else ours(x)
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)
    if read is logits:
        assert ours.num_classes == 7


def test_siglip_2_of_any_aspect(tmp_path):
    config = transformers.Siglip2VisionConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
                                              intermediate_size=128, num_patches=16, patch_size=8)  # fmt: skip
    theirs = randomized(transformers.Siglip2VisionModel(config))
    theirs.save_pretrained(tmp_path)
    ours = imgzoo.create_model("naflexvit_base_patch16_siglip", pretrained=tmp_path / "model.safetensors", embed_dim=32,
                               depth=2, num_heads=4, patch_size=8, pos_grid=(4, 4), dtype=torch.float64)  # fmt: skip
    x = torch.randn(1, 3, 32, 32, dtype=torch.float64)
    patches = x.unfold(2, 8, 8).unfold(3, 8, 8).permute(0, 2, 3, 4, 5, 1).flatten(3).flatten(1, 2)
    with torch.no_grad():
        shape, mask = torch.tensor([[4, 4]]), torch.ones(1, 16, dtype=torch.bool)
        want = theirs(pixel_values=patches, pixel_attention_mask=mask, spatial_shapes=shape).pooler_output
        torch.testing.assert_close(ours.eval()(x), want, rtol=1e-5, atol=1e-5)


def test_a_classifier_of_two_things_is_refused(tmp_path):
    config = transformers.Dinov2Config(**SMALL, num_labels=7)
    randomized(transformers.Dinov2ForImageClassification(config)).save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    with pytest.raises(WeightsError, match="give num_classes=0"):
        imgzoo.create_model("vit_small_patch14_dinov2", pretrained=path, num_classes=7, **SCALED)
    assert imgzoo.create_model("vit_small_patch14_dinov2", pretrained=path, **SCALED).num_classes == 0


def test_one_classifier_for_two_tokens_is_refused(tmp_path):
    randomized(transformers.DeiTForImageClassification(transformers.DeiTConfig(**SMALL))).save_pretrained(tmp_path)
    with pytest.raises(WeightsError, match="give num_classes=0"):
        imgzoo.create_model("deit_tiny_distilled_patch16_224", pretrained=tmp_path / "model.safetensors", **OURS)


def test_pretraining_of_beit_shares_a_table(tmp_path):
    config = transformers.BeitConfig(**SMALL, use_shared_relative_position_bias=True, layer_scale_init_value=0.1)
    theirs = randomized(transformers.BeitForMaskedImageModeling(config))
    theirs.save_pretrained(tmp_path)
    ours = imgzoo.create_model("beit_base_patch16_224", pretrained=tmp_path / "model.safetensors", num_classes=0,
                               dtype=torch.float64, **OURS).eval()  # fmt: skip
    x = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    with torch.no_grad():
        want = theirs.beit(x).last_hidden_state  # which no norm follows
        torch.testing.assert_close(ours.forward_features(x), want, rtol=1e-5, atol=1e-5)


TOWER = dict(embed_dim=16, text_cfg=dict(context_length=8, vocab_size=50, width=16, heads=2, layers=1))
VIT = dict(image_size=32, patch_size=8, width=64, head_width=16, layers=2)


@pytest.mark.parametrize("vision, name, options", [
    (VIT, "vit_base_patch16_clip_224", OURS | {"embed_dim": 64}),
    (VIT | {"ls_init_value": 0.1}, "vit_base_patch16_clip_224", SCALED | {"embed_dim": 64}),
    (dict(image_size=64, width=64, layers=[3, 4, 6, 3]), "resnet50_clip", {"img_size": 64}),
])  # fmt: skip
def test_towers_of_open_clip(vision, name, options, tmp_path):
    """Its own ViT and ResNet."""
    theirs = randomized(open_clip.CLIP(vision_cfg=open_clip.CLIPVisionCfg(**vision), embed_dim=TOWER["embed_dim"],
                                       text_cfg=open_clip.CLIPTextCfg(**TOWER["text_cfg"])))  # fmt: skip
    torch.save(theirs.state_dict(), tmp_path / "tower.pt")
    ours = imgzoo.create_model(name, pretrained=tmp_path / "tower.pt", dtype=torch.float64, **options)
    assert ours.load_report.format == "clip" and ours.load_report.initialized == []
    x = torch.randn(2, 3, vision["image_size"], vision["image_size"], dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours.eval()(x), theirs.encode_image(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name, side, options", [
    ("swin_tiny_patch4_window7_224", 224, {}), ("convnext_atto", 64, {}), ("vit_tiny_patch16_224", 224, {}),
])  # fmt: skip
@pytest.mark.parametrize("projection", ["linear", "mlp"])
def test_trunks_of_open_clip(name, side, options, projection, tmp_path):
    """A network of timm with open_clip's projection: the projection is our classifier where it is one layer."""
    vision = open_clip.CLIPVisionCfg(timm_model_name=name, timm_pool="", timm_proj=projection, image_size=side)
    theirs = randomized(open_clip.CLIP(vision_cfg=vision, embed_dim=16,
                                       text_cfg=open_clip.CLIPTextCfg(**TOWER["text_cfg"])))  # fmt: skip
    torch.save(theirs.state_dict(), tmp_path / "tower.pt")
    if projection == "mlp":
        with pytest.raises(WeightsError, match="cannot place"):
            imgzoo.create_model(name, pretrained=tmp_path / "tower.pt", **options)
        return
    ours = imgzoo.create_model(name, pretrained=tmp_path / "tower.pt", dtype=torch.float64, **options).eval()
    assert (ours.load_report.format, ours.num_classes) == ("open-clip-trunk", 16)
    x = torch.randn(1, 3, side, side, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs.encode_image(x), rtol=1e-5, atol=1e-5)

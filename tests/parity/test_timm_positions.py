"""Embeddings by the map of a network, and rotary positions, beside the peer's."""

import pytest
import torch
from timm_kit import both, same_tensors
from torch import nn

import imgzoo

import kit

pytestmark = pytest.mark.parity

HYBRIDS = ("vit_tiny_r_s16_p8_224", "vit_small_r26_s32_224", "vitamin_small_224", "vit_base_mci_224")


def pair(name, **options):
    mine, other = (make(name, **options).eval().double() for make in both("models", "create_model"))
    kit.perturb(other)
    mine.load_state_dict(other.state_dict())
    return mine, other


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", HYBRIDS)
def test_embeddings_by_a_map_have_the_attributes(name, dynamic):
    mine, other = pair(name, depth=1, dynamic_img_size=dynamic)
    for key in ("flatten", "output_fmt", "strict_img_size", "dynamic_img_pad", "img_size", "patch_size", "grid_size",
                "num_patches", "feature_size", "feature_ratio", "feature_dim"):  # fmt: skip
        assert getattr(mine.patch_embed, key) == getattr(other.patch_embed, key), key
    x = kit.image(224).double()
    with torch.no_grad():
        patches = [model.patch_embed(x) for model in (mine, other)]
        same_tensors(*patches)
        same_tensors(*(model._pos_embed(each) for model, each in zip((mine, other), patches)))
        assert mine.patch_embed.feat_ratio() == other.patch_embed.feat_ratio()
        assert mine.patch_embed.dynamic_feat_size((256, 320)) == other.patch_embed.dynamic_feat_size((256, 320))


@pytest.mark.parametrize("size", [(230, 250), (40, 100)])
@pytest.mark.parametrize("name", HYBRIDS)
def test_maps_are_filled_up_to_patches_not_images(name, size):
    options = dict(depth=1, dynamic_img_size=True, dynamic_img_pad=True)
    other = kit.timm.create_model(name, **options).eval().double()
    kit.perturb(other)
    mine = imgzoo.create_model(name, **options).eval().double()
    mine.load_state_dict(other.state_dict())
    x = torch.randn(1, 3, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        kit.assert_equal(mine(x), other(x), name)


@pytest.mark.parametrize("options", [{}, {"dynamic_img_size": True}])
@pytest.mark.parametrize("name", ["vit_small_r26_s32_224", "vitamin_small_224", "vit_base_mci_224"])
def test_convolutions_see_all_of_an_image(name, options):
    other = kit.timm.create_model(name, depth=1, img_size=230, **options).eval().double()
    kit.perturb(other)
    mine = imgzoo.create_model(name, depth=1, img_size=230, **options).eval().double()
    mine.load_state_dict(other.state_dict())
    x = kit.image(230).double()
    with torch.no_grad():
        kit.assert_equal(mine(x), other(x), name)


ROTARY = {
    "eva02_tiny_patch14_224": (112, 112), "vit_small_patch16_rope_mixed_224": (112, 112),
    "vit_pe_core_tiny_patch16_384": (96, 96), "vit_small_patch16_dinov3": (96, 128),
}  # fmt: skip


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", ROTARY)
def test_rotary_positions(name, dynamic):
    mine, other = pair(name, depth=2, img_size=ROTARY[name], dynamic_img_size=dynamic)
    x = torch.randn(1, 3, *ROTARY[name], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        tokens, angles = zip(*(model._pos_embed(model.patch_embed(x)) for model in (mine, other)))
    same_tensors(*tokens)
    same_tensors(*angles)
    assert mine.rope_mixed == other.rope_mixed
    with torch.no_grad():
        shape = (5, 7) if dynamic else None
        same_tensors(*(model.rope.get_embed(shape, dtype=torch.float64) for model in (mine, other)))
    told = ("rotate_half", "shift_coords", "rescale_coords", "aug_active")
    told = [name for name in told if hasattr(other.rope, name)]
    assert {name: getattr(mine.rope, name) for name in told} == {name: getattr(other.rope, name) for name in told}
    halves = [[block.attn.rotate_half for block in model.blocks] for model in (mine, other)]
    assert halves[0] == halves[1] and "aug_active" in told


@pytest.mark.parametrize("sections", [None, (4, 2, 3), (8, 4, 20)])
def test_sections_need_not_fill_the_frequencies(sections):
    options = dict(img_size=(80, 144), depth=1, embed_dim=64, num_heads=2, rope_type="mrope", use_rot_pos_emb=True,
                   rope_mrope_section=sections)  # fmt: skip
    mine, other = pair("eva02_tiny_patch14_224", patch_size=16, **options)
    same_tensors(*(model.rope.get_embed((5, 7), dtype=torch.float64) for model in (mine, other)))
    assert tuple(mine.rope.mrope_section) == tuple(other.rope.mrope_section)
    x = torch.randn(1, 3, 80, 144, dtype=torch.float64)
    with torch.no_grad():
        kit.assert_equal(mine(x), other(x), "mrope")


BEGUN = ("beit_base_patch16_224", "cait_xxs24_224", "coat_tiny", "convit_tiny", "crossvit_9_240", "davit_tiny",
         "deit_tiny_distilled_patch16_224", "efficientformer_l1", "efficientformerv2_s0", "efficientvim_m1",
         "eva02_tiny_patch14_224", "fastvit_t8", "swinv2_tiny_window8_256", "tiny_vit_5m_224", "vit_tiny_patch16_224",
         "vitamin_small_224", "volo_d1_224", "xcit_nano_12_p16_224")  # fmt: skip


@pytest.mark.parametrize("name", BEGUN)
def test_layers_begin_as_in_the_field(name):
    with torch.device("meta"):
        models = [make(name) for make in both("models", "create_model")]
    for layer in (nn.Linear(64, 48), nn.Conv2d(3, 64, 3), nn.LayerNorm(8), nn.BatchNorm2d(8)):
        drawn = []
        for model in models:
            for parameter in layer.parameters():
                nn.init.constant_(parameter, 7.0)
            model._init_weights(layer)
            drawn.append([(each.detach().std().item(), each.detach().mean().item()) for each in layer.parameters()])
        for (mine, center), (other, middle) in zip(*drawn):
            assert mine == pytest.approx(other, rel=0.3) and center == pytest.approx(middle, abs=0.1), layer


SHRUNK = ("beit_base_patch16_224", "eva02_tiny_patch14_224", "vit_tiny_patch16_224", "vit_relpos_small_patch16_224",
          "naflexvit_base_patch16_gap")  # fmt: skip


@pytest.mark.parametrize("name", SHRUNK)
def test_layers_shrink_with_depth(name):
    mine, other = (make(name, depth=3, embed_dim=48, num_heads=3) for make in both("models", "create_model"))
    mine.load_state_dict(other.state_dict())
    for model in (mine, other):
        model.fix_init_weight()
    for key, value in other.state_dict().items():
        torch.testing.assert_close(mine.state_dict()[key], value, msg=key)


CLASSIFIED = ("crossvit_9_240", "efficientvim_m1", "efficientvim_m1_dist", "iformer_t", "levit_128", "levit_256d",
              "caformer_s18", "poolformer_s12", "repvit_m0_9", "sequencer2d_s", "samvit_base_patch16", "volo_d1_224",
              "deit_tiny_distilled_patch16_224", "resnet18")  # fmt: skip


@pytest.mark.parametrize("name", CLASSIFIED)
def test_the_classifier_is_the_same_part(name):
    found = []
    with torch.device("meta"):
        for model in [make(name, num_classes=5) for make in both("models", "create_model")]:
            heads = model.get_classifier()
            heads = heads if isinstance(heads, tuple) else (heads,)
            found.append([path for path, part in model.named_modules() for head in heads if part is head])
    assert found[0] == found[1]

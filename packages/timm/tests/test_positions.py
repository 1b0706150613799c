"""Embeddings by the map of a network, and positions, as clients call and patch them."""

import pickle

import pytest
import torch
from torch import nn

import imgzoo_timm as timm
from imgzoo.errors import OptionError
from imgzoo_timm.layers import HybridEmbed
from imgzoo_timm.models import deit, eva, vision_transformer, vision_transformer_sam

HYBRIDS = {"vit_small_r26_s32_224": 32, "vit_tiny_r_s16_p8_224": 32, "vitamin_small_224": 16, "vit_base_mci_224": 16}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", HYBRIDS)
def test_embeddings_by_a_map_give_a_map_where_images_have_any_size(name, dynamic):
    model = timm.create_model(name, depth=1, num_classes=3, dynamic_img_size=dynamic).eval()
    embed, side = model.patch_embed, 224 // HYBRIDS[name]
    x, dim = torch.randn(1, 3, 224, 224), model.embed_dim
    patches = embed(x)
    assert isinstance(embed, HybridEmbed) and embed.feat_ratio() == HYBRIDS[name]
    assert patches.shape == ((1, side, side, dim) if dynamic else (1, side * side, dim))
    tokens = model.norm(model.blocks(model.norm_pre(model._pos_embed(patches))))
    torch.testing.assert_close(tokens, model.forward_features(x), rtol=0, atol=0)
    if dynamic:
        assert model(torch.randn(2, 3, 128, 96)).shape == (2, 3)
    torch.testing.assert_close(pickle.loads(pickle.dumps(model))(x), model(x), rtol=0, atol=0)


PATCHED = {
    "vit_tiny_patch16_224": (vision_transformer, 1), "vitamin_small_224": (vision_transformer, 0),
    "deit_tiny_distilled_patch16_224": (deit, 2), "eva02_tiny_patch14_224": (eva, 1),
}  # fmt: skip


@pytest.mark.parametrize("name", PATCHED)
def test_a_function_put_in_place_of_the_resampling_is_called(name, monkeypatch):
    module, prefix = PATCHED[name]
    model = timm.create_model(name, depth=1, dynamic_img_size=True).eval()
    x = torch.randn(1, 3, 112, 112)
    plain, seen, original = model(x), [], module.resample_abs_pos_embed

    def smooth(*args, **options):
        seen.append(options)
        return original(*args, **options, antialias=False)

    def same(*args, **options):
        return original(*args, **options)

    monkeypatch.setattr(module, "resample_abs_pos_embed", smooth, raising=False)
    assert not torch.equal(model(x), plain)
    side = 112 // model.patch_size[0]
    assert seen == [dict(new_size=(side, side), old_size=(2 * side, 2 * side), num_prefix_tokens=prefix)]
    monkeypatch.setattr(module, "resample_abs_pos_embed", same, raising=False)
    torch.testing.assert_close(model(x), plain)


def test_a_function_put_in_place_of_the_resampling_of_maps_is_called(monkeypatch):
    made = dict(depth=1, embed_dim=48, num_heads=3, global_attn_indexes=(0,))
    model = timm.create_model("samvit_base_patch16", img_size=224, **made)
    seen = []

    def told(table, size):
        seen.append((tuple(table.shape), tuple(size)))
        return original(table, size)

    original = vision_transformer_sam.resample_abs_pos_embed_nhwc
    monkeypatch.setattr(vision_transformer_sam, "resample_abs_pos_embed_nhwc", told, raising=False)
    model(torch.randn(1, 3, 96, 64))
    assert seen == [((1, 14, 14, 48), (6, 4))]


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "vit_small_patch16_rope_mixed_224",
                                  "vit_pe_core_tiny_patch16_384"])  # fmt: skip
def test_rotary_networks_run_step_by_step(name, dynamic):
    model = timm.create_model(name, depth=2, img_size=112, dynamic_img_size=dynamic).eval()
    x = torch.randn(1, 3, 112, 112)
    tokens, turns = model._pos_embed(model.patch_embed(x))
    tokens = model.norm_pre(tokens)
    for i, block in enumerate(model.blocks):
        tokens = block(tokens, rope=turns[i] if model.rope_mixed else turns)
    torch.testing.assert_close(model.norm(tokens), model.forward_features(x), rtol=0, atol=0)
    assert model.rope_mixed == ("mixed" in name)
    with pytest.raises(OptionError, match="leave attn_mask"):
        model.blocks[0](tokens, rope=None, is_causal=True)


def test_a_hook_on_a_block_of_mixed_angles_sees_its_own():
    model, seen = timm.create_model("vit_small_patch16_rope_mixed_224", depth=2).eval(), []
    model.blocks[1].register_forward_pre_hook(lambda module, args: seen.append(args[1]))
    x = torch.randn(1, 3, 224, 224)
    model(x)
    torch.testing.assert_close(seen[0], model._pos_embed(model.patch_embed(x))[1][1])


def test_layers_begin_by_the_word_of_their_family():
    model, other = (timm.create_model(name, depth=1) for name in ("eva02_tiny_patch14_224", "cait_xxs24_224"))
    parts = nn.Linear(64, 8), nn.LayerNorm(8), nn.BatchNorm2d(8)
    for network, drawn in ((model, 3), (other, 2)):
        for part in parts:
            nn.init.constant_(part.weight, 7.0)
            network._init_weights(part)
        assert sum(not (part.weight == 7).any() for part in parts) == drawn
    before = model.blocks[0].attn.proj.weight.clone()
    model.fix_init_weight()
    torch.testing.assert_close(model.blocks[0].attn.proj.weight, before / 2**0.5)
    assert not hasattr(other, "fix_init_weight")


@pytest.mark.parametrize("kind", ["cat", "mixed", "dinov3", "mrope"])
def test_the_rotary_position_of_a_network_tells_of_itself(kind):
    moves = dict(shift_coords=0.5, jitter_coords=1.5, rescale_coords=2.0)
    options = {f"rope_{name}": value for name, value in moves.items()}
    model = timm.models.Eva(img_size=32, patch_size=8, embed_dim=64, depth=2, num_heads=2, rope_type=kind,
                            use_rot_pos_emb=True, **options)  # fmt: skip
    assert model.rope.aug_active and {name: getattr(model.rope, name) for name in moves} == moves
    assert model.rope.rotate_half == model.blocks[0].attn.rotate_half == (kind == "mrope")
    model.train()
    assert not torch.equal(model.rope.get_embed(), model.rope.get_embed())
    model.rope.aug_active = False
    torch.testing.assert_close(model.rope.get_embed(), model.eval().rope.get_embed((4, 4)))
    model.train().rope.aug_active = True
    assert not torch.equal(model.rope.get_embed(), model.rope.get_embed())
    batch = model.eval().rope.get_batch_embeds([(2, 3), (1, 2)], seq_len=6)
    torch.testing.assert_close(batch[1][..., :2, :], model.rope.get_embed((1, 2)))
    assert model.rope.get_embed(dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["mixed", "dinov3", "mrope"])
@pytest.mark.parametrize("shape", [(), (3,), (2, 3, 4)])
def test_grids_have_two_sides(kind, shape):
    make = timm.layers.create_rope_embed
    module = make(kind, dim=64, num_heads=2, **(dict(depth=2) if kind == "mixed" else {}))
    with pytest.raises(ValueError, match=f"2 spatial dimensions, not {len(shape)}"):
        module.get_embed(shape)


def test_learned_angles_that_move_are_computed_wide():
    module = timm.layers.RotaryEmbeddingMixed(64, depth=1, num_heads=2, shift_coords=0.5).to(torch.bfloat16)
    assert module.train().get_embed((2, 3)).dtype == torch.float32
    assert module.eval().get_embed((2, 3)).dtype == torch.bfloat16


def test_a_switch_is_no_amount_that_places_move_by():
    with pytest.raises(TypeError, match="shift_coords is a number"):
        timm.layers.RotaryEmbeddingCat(64, shift_coords=torch.tensor(True))

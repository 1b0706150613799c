"""Patches of images of several shapes in one batch: each gets the logits that it gets alone."""

import pickle

import pytest
import torch

import imgzoo
from imgzoo.errors import CapabilityError, UsageError
from imgzoo.model import Patches, take_patches

TINY = dict(embed_dim=32, depth=2, num_heads=4, num_classes=5, layer_scale=None)
SHAPES = [(160, 160), (224, 96), (96, 320), (64, 64)]
NAMES = [f"naflexvit_base_patch16_{kind}" for kind in ("gap", "map", "par_gap", "parfac_gap", "radio_v3", "siglip")]


def patchified(images, side=16):
    """Images (3, h, w) of any shapes as one record in the field's spelling."""
    rows = []
    for x in images:
        patches = x.unflatten(2, (-1, side)).unflatten(1, (-1, side)).permute(1, 3, 2, 4, 0)
        grid = torch.stack(torch.meshgrid(*map(torch.arange, patches.shape[:2]), indexing="ij"), -1)
        rows.append((patches.flatten(2).flatten(0, 1), grid.flatten(0, 1)))
    longest = max(len(patches) for patches, _ in rows)
    found = [torch.zeros(len(rows), longest, *row.shape[1:], dtype=row.dtype) for row in rows[0]]
    valid = torch.zeros(len(rows), longest, dtype=torch.bool)
    for i, row in enumerate(rows):
        valid[i, : len(row[0])] = True
        for part, value in zip(found, row, strict=True):
            part[i, : len(value)] = value
    return {"patches": found[0], "patch_coord": found[1], "patch_valid": valid}


def made(name, **options):
    torch.manual_seed(0)
    model = imgzoo.create_model(name, **{**TINY, **options}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model, [torch.randn(3, *shape) for shape in SHAPES]


@pytest.mark.parametrize("name", NAMES)
def test_a_mixed_batch_gives_each_image_its_own_logits(name):
    model, images = made(name)
    for pool in (None, *(("avg", "max", "avgmax", "map") if name.endswith(("_map", "_gap")) else ())):
        model.reset_classifier(5, pool)
        record = patchified(images)
        with torch.inference_mode():
            alone = torch.cat([model(x[None]) for x in images])
            torch.testing.assert_close(model(record), alone, rtol=0, atol=1e-5)
            record["patches"][~record["patch_valid"]] = 9.0  # what fills up is never read
            record["patch_coord"][~record["patch_valid"]] = 77
            torch.testing.assert_close(model(Patches.of(record)), alone, rtol=0, atol=1e-5)


def test_levels_of_patches_are_tokens():
    model, images = made(NAMES[0])
    record = patchified(images)
    with torch.inference_mode():
        levels = model.forward_intermediates(record, output_fmt="NLC", intermediates_only=True)
        for i, x in enumerate(images):
            alone = model.forward_intermediates(x[None], output_fmt="NLC", intermediates_only=True)
            for level, expected in zip(levels, alone, strict=True):
                torch.testing.assert_close(level[i, : expected.shape[1]], expected[0], rtol=0, atol=1e-5)
    with pytest.raises(UsageError, match="'NLC'"):
        model.forward_intermediates(record)
    with pytest.raises(UsageError, match="patch_valid is missing"):
        model({"patches": record["patches"], "patch_coord": record["patch_coord"]})


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_base_patch16_siglip_224", "deit3_small_patch16_224",
                                  "deit_tiny_distilled_patch16_224", "eva02_tiny_patch14_224",
                                  "vit_small_patch16_rope_mixed_224"])  # fmt: skip
def test_networks_of_images_take_patches_with_their_own_weights(name):
    torch.manual_seed(0)
    model = imgzoo.create_model(name, depth=2, num_classes=5).eval()
    side, keys = model.patch_size[0], list(model.state_dict())
    images = [torch.randn(3, h * side // 16, w * side // 16) for h, w in SHAPES]
    take_patches(take_patches(model))
    assert list(model.state_dict()) == keys
    with torch.inference_mode():
        alone = torch.cat([model(x[None]) for x in images])
        torch.testing.assert_close(model(patchified(images, side)), alone, rtol=0, atol=1e-5)
    twin = pickle.loads(pickle.dumps(model))
    torch.testing.assert_close(twin(patchified(images, side)), alone, rtol=0, atol=1e-5)


PARTS = {"vit_tiny_patch16_224": {}, "vit_base_patch16_siglip_224": {}, "vit_base_patch16_sapiens2": {},
         "eva02_tiny_patch14_224": {"global_pool": "avg"}}  # fmt: skip


@pytest.mark.parametrize("name", PARTS)
def test_parts_of_networks_of_images_take_patches(name):
    options = {"num_heads": 4, "embed_dim": 32, "depth": 2, "num_classes": 5, **PARTS[name]}
    model = imgzoo.create_model(name, **options, use_naflex=True).eval()
    side, prefix = model.patch_size[0], model.num_prefix_tokens
    images = [torch.randn(3, h * side // 16, w * side // 16) for h, w in [*SHAPES, SHAPES[1]]]
    x = Patches.of(patchified(images, side))
    mixed = torch.stack([torch.randperm(x.valid.shape[1]) for _ in images])  # in any order, fillings between
    x = Patches(*(torch.stack([row[order] for row, order in zip(part, mixed)]) for part in x))
    back = mixed.argsort(1)
    with torch.inference_mode():
        features = model.forward_features(x)
        torch.testing.assert_close(model.forward_head(features, valid=x.valid), model(x), rtol=0, atol=1e-5)
        final, levels = model.forward_intermediates(x, output_fmt="NLC", return_prefix_tokens=True)
        torch.testing.assert_close(final, features)
        if prefix:
            levels, before = zip(*levels, strict=True)
            assert [each.shape for each in before] == [(5, prefix, 32)] * 2
        for i, image in enumerate(images):
            alone = model.forward_features(image[None])[0]
            ordered = torch.cat([features[i, :prefix], features[i, prefix:][back[i]]])
            torch.testing.assert_close(ordered[: len(alone)], alone, rtol=0, atol=1e-5)
            assert ordered[len(alone) :].abs().sum() == 0
            last = model.forward_intermediates(image[None], 1, output_fmt="NLC", intermediates_only=True)[0][0]
            torch.testing.assert_close(levels[-1][i][back[i]][: len(last)], last, rtol=0, atol=1e-5)
        alone = model.forward_intermediates(x, [0], output_fmt="NLC", intermediates_only=True)
        torch.testing.assert_close(alone[0], levels[0])
    with pytest.raises(UsageError, match="'NLC'"):
        model.forward_intermediates(x)


def test_features_that_are_not_one_a_patch_are_refused():
    x = patchified([torch.randn(3, 32, 48)])
    thinned = imgzoo.create_model("vit_tiny_patch16_224", depth=1, patch_drop_rate=0.5, use_naflex=True)
    maps = imgzoo.create_model("test_resnet", use_naflex=True)
    for model in (thinned, maps):
        with pytest.raises(UsageError, match="one for each patch"):
            model.forward_features(x)
    assert thinned.eval().forward_features(x).shape == (1, 7, 192)
    dropping = imgzoo.create_model("naflexvit_base_patch16_gap", **TINY, patch_drop_rate=0.5)
    with pytest.raises(UsageError, match="patch dropout"):
        dropping.forward_intermediates(x, output_fmt="NLC")
    assert len(dropping.eval().forward_intermediates(x, output_fmt="NLC")[1]) == 2


@pytest.mark.parametrize("name", ["swin_tiny_patch4_window7_224", "cait_xxs24_224"])
def test_networks_of_one_size_do_not_take_patches(name):
    with pytest.raises(CapabilityError, match=f"{name} takes images of one size"):
        take_patches(imgzoo.create_model(name, device="meta"))


def test_patches_export_with_any_batch_and_length():
    model, images = made(NAMES[0])
    batch, length = torch.export.Dim("batch", min=1, max=64), torch.export.Dim("length", min=2, max=4096)
    shapes = ({0: batch, 1: length},) * 3
    seen, others = (Patches.of(patchified(some)) for some in (images, images[1:3] + images[:1]))
    program = torch.export.export(model, (seen,), dynamic_shapes=(Patches(*shapes),))
    torch.testing.assert_close(program.module()(others), model(others), rtol=0, atol=1e-5)


@pytest.mark.parametrize("rope, named", [(None, False), ("axial", False), ("mixed", True)])
def test_angles_that_are_learned_have_no_decay(rope, named):
    model = imgzoo.create_model("naflexvit_base_patch16_gap", device="meta", depth=1, rope=rope)
    assert ("rope.freqs" in model.no_weight_decay()) is ("rope.freqs" in dict(model.named_parameters())) is named


ROPE = [dict(rope="axial", rope_reference=(8, 8)), dict(rope="mixed"), dict(rope="dinov3", rope_halves=True),
        dict(rope="mrope", rope_sections=(2, 1, 1))]  # fmt: skip


@pytest.mark.parametrize("options", ROPE, ids=lambda options: options["rope"])
def test_positions_turn_each_image_by_its_own_grid(options):
    model, images = made(NAMES[0], **options)
    plain, _ = made(NAMES[0])
    with torch.inference_mode():
        alone = torch.cat([model(x[None]) for x in images])
        torch.testing.assert_close(model(patchified(images)), alone, rtol=0, atol=1e-5)
        assert (alone - torch.cat([plain(x[None]) for x in images])).abs().max() > 1e-4
    moving, _ = made(NAMES[0], **options, rope_random_shift=0.5, rope_jitter=1.5, rope_rescale=2.0, patch_drop_rate=0.5)
    moving.train()
    for x in (patchified(images), images[0][None]):
        assert moving(x).isfinite().all() and not torch.equal(moving(x), moving(x))


def test_rotary_options_that_cannot_be_are_refused():
    for options, words in ((dict(rope="what"), "'mrope' or None"), (dict(rope="mixed", rope_halves=True), "mixed rope"),
                           (dict(rope="axial", rope_jitter=0.5), "jitter of at least 1"),
                           (dict(rope="mrope", rope_sections=(2, 2)), "sections of time, rows and columns are 3"),
                           (dict(rope="axial", embed_dim=20, num_heads=2), "multiple of 4 channels, not of 10"),
                           (dict(pos_mode="nearest"), "pos_mode is 'bilinear' or 'bicubic', not 'nearest'"),
                           (dict(rope="axial", rope_random_shift=-1.0), "rope_random_shift must be")):  # fmt: skip
        with pytest.raises(UsageError, match=words):
            imgzoo.create_model(NAMES[0], **{**TINY, **options})


def test_use_naflex_stays_with_what_is_saved(tmp_path):
    model = imgzoo.create_model("vit_tiny_patch16_224", depth=1, num_classes=5, use_naflex=True).eval()
    imgzoo.save_model(model, tmp_path / "saved")
    again = imgzoo.create_model(str(tmp_path / "saved"), pretrained=True).eval()
    images = [torch.randn(3, *shape) for shape in SHAPES]
    with torch.inference_mode():
        torch.testing.assert_close(again(patchified(images)), model(patchified(images)))
    with pytest.raises(CapabilityError, match="one size"):
        imgzoo.create_model("swin_tiny_patch4_window7_224", use_naflex=True, device="meta")


def test_patches_of_other_sizes_need_the_option():
    options = dict(embed_dim=24, depth=1, num_heads=2, num_classes=5)
    places, valid = torch.cartesian_prod(torch.arange(2), torch.arange(3))[None], torch.ones(1, 6, dtype=torch.bool)
    model = imgzoo.create_model("naflexvit_base_patch16_gap", **options).eval()
    with pytest.raises(UsageError, match="patches are of 16x16 pixels, not 8x8: any_patch_size=True"):
        model((torch.randn(1, 6, 8, 8, 3), places, valid))
    other = imgzoo.create_model("naflexvit_base_patch16_gap", any_patch_size=True, **options).eval()
    other.load_state_dict(model.state_dict())
    own = torch.randn(1, 6, 16, 16, 3)
    torch.testing.assert_close(other((own, places, valid)), model((own, places, valid)))
    large = torch.nn.functional.interpolate(own[0].permute(0, 3, 1, 2), scale_factor=2, mode="bicubic", antialias=True)
    large = large.permute(0, 2, 3, 1)[None]
    torch.testing.assert_close(
        other((large, places, valid)), model((own, places, valid))
    )  # what enlarging added is nothing
    other((large, places, valid)).sum().backward()
    assert other.embeds.proj.weight.grad.abs().sum() > 0


GATED = dict(gated_attn=True, mlp="glu", mlp_multiple=24, attn_only_layer_scale=True, layer_scale=0.5)
BLOCKS = [dict(diff_attn=True), GATED, {**GATED, "rope": "mixed", "key_bias": False},
          dict(key_bias=True, qkv_fused=False),
          dict(num_kv_heads=(2, 1), rope="axial", abs_pos=False), dict(conv_embed=True, pool_include_prefix=True),
          dict(key_bias=False, pool_include_prefix=True, global_pool="map", conv_embed=True)]  # fmt: skip


@pytest.mark.parametrize("options", BLOCKS, ids=str)
def test_any_block_gives_each_image_its_own_logits_and_levels(options, tmp_path):
    model, images = made(NAMES[0], **options)
    model, images = model.double(), [x.double() for x in images]
    record = patchified(images)
    with torch.inference_mode():
        alone = torch.cat([model(x[None]) for x in images])
        record["patches"][~record["patch_valid"]] = 9.0
        torch.testing.assert_close(model(record), alone, rtol=0, atol=1e-6)
        levels = model.forward_intermediates(record, output_fmt="NLC", intermediates_only=True)
        own = model.forward_intermediates(images[1][None], output_fmt="NLC", intermediates_only=True)
        for level, expected in zip(levels, own, strict=True):
            torch.testing.assert_close(level[1, : expected.shape[1]], expected[0], rtol=0, atol=1e-6)
        imgzoo.save_model(model, tmp_path / "saved")
        again = imgzoo.create_model(str(tmp_path / "saved"), pretrained=True).eval().double()
        torch.testing.assert_close(again(record), alone, rtol=0, atol=1e-6)
    x = images[1][None]
    with torch.no_grad():
        torch.testing.assert_close(torch.fx.symbolic_trace(model)(x), alone[1:2])
        torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), alone[1:2])
    model.set_input_size((96, 64))
    model.reset_classifier(3, "avg")
    assert model(record).shape == (len(SHAPES), 3) and model(images[0][None]).shape == (1, 3)


def test_a_convolution_of_patches_takes_patches_of_other_sizes_and_weights_of_images(tmp_path):
    vit = imgzoo.create_model(
        "vit_tiny_patch16_224", depth=1, num_classes=5, class_token=False, global_pool="avg", layer_scale=0.5
    )
    torch.save(vit.state_dict(), tmp_path / "vit.pth")
    small = dict(
        embed_dim=192,
        depth=1,
        num_heads=3,
        num_classes=5,
        reg_tokens=0,
        any_patch_size=True,
        layer_scale=None,
        pos_grid=(14, 14),
    )
    found = []
    for conv in (False, True):
        model = imgzoo.create_model(NAMES[0], conv_embed=conv, pretrained=tmp_path / "vit.pth", **small).eval()
        assert model.embeds.proj.weight.ndim == (4 if conv else 2)
        places, valid = torch.cartesian_prod(torch.arange(2), torch.arange(3))[None], torch.ones(1, 6, dtype=torch.bool)
        with torch.no_grad():
            found.append([model(torch.ones(1, 3, 32, 48)),
                          *(model((torch.linspace(-1, 1, 6 * side * side * 3).view(1, 6, side, side, 3), places, valid))
                            for side in (16, 8))])  # fmt: skip
    for got, want in zip(*found, strict=True):
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize(("options", "text"), [
    (dict(gated_attn=True, diff_attn=True), "know no diff_attn"),
    (dict(key_bias=True, proj_bias=False), "no proj_bias"), (dict(qkv_fused=False), "give key_bias=True, too"),
    (dict(mlp_multiple=8), "mlp_multiple is at least 0"), (dict(num_kv_heads=(1, 2, 4)), "each of 2 blocks, not 3"),
    (dict(rope="mixed", num_kv_heads=2), "num_kv_heads out"),
    (dict(key_bias=False, num_kv_heads=2), "use a layer each"), (dict(mlp="gated"), "mlp is one of")])  # fmt: skip
def test_blocks_refuse_what_does_not_fit(options, text):
    with pytest.raises(UsageError, match=text) as raised:
        made(NAMES[0], **options)
    assert len(str(raised.value).splitlines()) == 1


def test_towers_of_language_models_fill_up_the_tokens_of_smaller_images():
    small = dict(embed_dim=32, depth=1, num_heads=2, head_dim=16, hidden=64, places=32, use_naflex=True)
    images = [torch.rand(3, *shape) for shape in [(48, 96), (48, 48), (96, 96)]]
    record = patchified(images)
    model = imgzoo.create_model("gemma4_vit_167m_enc", **small).eval()
    with torch.no_grad():
        soft, tokens = model(record), model.forward_features(record)
        assert soft.shape == (3, 4, 32) and tokens.shape == (3, 36, 32)
        for i, x in enumerate(images):
            alone = model(x[None])[0]
            torch.testing.assert_close(soft[i, : len(alone)], alone)
            assert not soft[i, len(alone) :].any()
            own = model.forward_features(x[None]).flatten(1, 2)[0]
            torch.testing.assert_close(tokens[i, : len(own)], own)
            assert not tokens[i, len(own) :].any()
    net = imgzoo.create_model("convnext_atto", use_naflex=True, num_classes=3)
    with pytest.raises(UsageError, match="features of patches are tokens"):
        net.forward_features(patchified([torch.rand(3, 64, 64)]))

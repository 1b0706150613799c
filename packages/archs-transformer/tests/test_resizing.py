"""Networks with position tables take another image size: told later, or with a checkpoint of the old size."""

import copy

import pytest
import torch

import imgzoo
from imgzoo.errors import CapabilityError, UsageError
from imgzoo.loading import save_model
from imgzoo.model import TokenModel

SMALL = {
    "beit_base_patch16_224": dict(embed_dim=32, depth=2, num_heads=4),
    "cait_xxs24_224": dict(embed_dim=32, depth=2, num_heads=4),
    "convit_tiny": dict(embed_dim=32, depth=3, num_heads=4, local_up_to_layer=2),
    "crossvit_9_240": dict(embed_dims=(16, 32), depth=1, stages=2),
    "crossvit_9_dagger_240": dict(embed_dims=(16, 32), depth=1, stages=2),
    "test_coatnet": {},
    "test_maxvit": {},
    "maxvit_tiny_tf_224": dict(dims=(32, 32, 64, 64), depths=(1, 1, 1, 1), stem_dims=(8, 16), head_hidden=64),
    "maxxvit_rmlp_nano_rw_256": dict(dims=(32, 32, 64, 64), depths=(1, 1, 1, 1), stem_dims=(8, 16)),
    "vit_tiny_r_s16_p8_224": dict(embed_dim=48, depth=2),
    "levit_128s": dict(embed_dim=(16, 32, 48), key_dim=8, depth=(1, 1, 1), num_heads=(2, 3, 4)),
    "levit_conv_128s": dict(embed_dim=(16, 32, 48), key_dim=8, depth=(1, 1, 1), num_heads=(2, 3, 4)),
    "gmixer_12_224": dict(embed_dim=32, num_blocks=2),
    "gmlp_ti16_224": dict(embed_dim=32, num_blocks=2),
    "resmlp_12_224": dict(embed_dim=32, num_blocks=2),
    "volo_d1_224": dict(layers=(1, 1, 1, 1), embed_dims=(16, 32, 32, 32), num_heads=(2, 4, 4, 4), stem_dim=8),
    "pit_ti_224": dict(base_dims=(8, 8, 8), depths=(1, 1, 1)),
    "tnt_s_patch16_224": dict(embed_dim=32, depth=2, num_heads=4),
    "tnt_s_legacy_patch16_224": dict(embed_dim=32, depth=2, num_heads=4),
    "gcvit_xxtiny": dict(embed_dim=16, depths=(1, 2, 2, 1), num_heads=(1, 2, 4, 8)),
    "mvitv2_tiny": dict(embed_dim=(8, 16, 32, 64), num_heads=(1, 2, 4, 8)),
    "mvitv2_small_cls": dict(embed_dim=(8, 16, 32, 64), depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8)),
    "mvitv2_large": dict(embed_dim=(8, 16, 32, 64), depths=(1, 1, 2, 1), num_heads=(1, 2, 4, 8)),
    "samvit_base_patch16": dict(embed_dim=32, depth=3, num_heads=2, global_blocks=(1,), neck_chans=16),
}
SIZES = [(96, 96), (64, 128)]


def make(name, size, **options):
    torch.manual_seed(0)
    model = imgzoo.create_model(name, img_size=size, num_classes=5, **SMALL[name], **options).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_checkpoint_of_another_size(name, size, tmp_path):
    """Loading at a new size and setting the size later give the same network."""
    model = make(name, (64, 64))
    save_model(model, tmp_path)
    loaded = imgzoo.create_model(
        name, pretrained=str(tmp_path / "model.safetensors"), img_size=size, num_classes=5, **SMALL[name]
    ).eval()
    model.set_input_size(size)
    x = torch.randn(2, 3, *size)
    torch.testing.assert_close(loaded(x), model(x))
    for level, row in zip(model.forward_intermediates(x, intermediates_only=True), model.feature_info, strict=True):
        assert level.shape[1] == row["num_chs"]
        assert abs(level.shape[-1] - size[1] / row["reduction"]) <= 1
    assert loaded.load_report.adapted or name == "maxxvit_rmlp_nano_rw_256", "a network of offsets needs no resizing"


SWIN = dict(embed_dim=16, depths=(2, 2, 2, 1), num_heads=(1, 2, 4, 8))
ODD = {"gcvit_xxtiny": SMALL["gcvit_xxtiny"], "mvitv2_tiny": SMALL["mvitv2_tiny"], "swin_tiny_patch4_window7_224": SWIN,
       "swinv2_tiny_window8_256": SWIN, "swinv2_cr_tiny_ns_224": SWIN}  # fmt: skip


@pytest.mark.parametrize("size", [(98, 102), (33, 70)])
@pytest.mark.parametrize("name", ODD)
@torch.no_grad()
def test_an_image_need_not_be_whole_patches_or_windows(name, size):
    model, x = imgzoo.create_model(name, img_size=size, num_classes=5, **ODD[name]).eval(), torch.randn(1, 3, *size)
    assert model(x).shape == (1, 5)
    assert len(model.forward_intermediates(x, intermediates_only=True)) == 4


@pytest.mark.parametrize("name", SMALL)
@torch.no_grad()
def test_same_size_changes_nothing(name):
    model = make(name, (64, 64))
    x = torch.randn(2, 3, 64, 64)
    before = model(x)
    model.set_input_size((64, 64))
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("name", SMALL)
def test_other_sizes_are_refused_until_told(name):
    model = make(name, (64, 64))
    with pytest.raises(ValueError, match="set_input_size"):
        model(torch.randn(1, 3, 96, 96))


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_tables_fitted_in_the_call_are_those_of_the_size(size):
    """SAM's encoder, whose maps and offsets all follow the image."""
    name, x = "samvit_base_patch16", torch.randn(2, 3, *size)
    model = make(name, (64, 64), dynamic_img_size=True)
    answer = model(x)
    model.set_input_size(size)
    torch.testing.assert_close(answer, model(x))


@torch.no_grad()
def test_branches_of_a_crossvit_scale_an_image_of_any_size():
    model, x = make("crossvit_9_240", (64, 64), dynamic_img_size=True), torch.randn(2, 3, 96, 80)
    answer = model(x)
    assert answer.isfinite().all() and not torch.equal(answer, model(x[:, :, :80]))
    assert model.forward_intermediates(x, intermediates_only=True)[0].shape[2:] == (5, 5)


@torch.no_grad()
def test_windows_of_a_size_take_images_of_any():
    """Of the size that it is made for, a network answers as before."""
    torch.manual_seed(0)
    model = imgzoo.create_model("efficientvit_m0", img_size=112, dynamic_img_size=True, num_classes=5).eval()
    usual = imgzoo.create_model("efficientvit_m0", img_size=112, num_classes=5).eval()
    usual.load_state_dict(model.state_dict())
    x = torch.randn(2, 3, 112, 112)
    torch.testing.assert_close(model(x), usual(x))
    for size in ((224, 160), (48, 300)):
        assert model(torch.randn(1, 3, *size)).isfinite().all()


SWIN = dict(embed_dim=16, depths=(2, 2), num_heads=(2, 4), window_size=4)
CASES = {
    **SMALL,
    "swin_tiny_patch4_window7_224": SWIN,
    "vit_tiny_patch16_224": dict(embed_dim=32, depth=2, num_heads=2),
}


def build(name):
    return make(name, (64, 64)) if name in SMALL else imgzoo.create_model(name, img_size=64, **CASES[name]).eval()


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_frozen_tables_stay_frozen_in_their_type(name):
    model = build(name).bfloat16()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    model.set_input_size((96, 96))
    assert not any(p.requires_grad for p in model.parameters())
    assert {t.dtype for t in (*model.parameters(), *model.buffers()) if t.is_floating_point()} == {torch.bfloat16}
    assert model(torch.randn(1, 3, 96, 96, dtype=torch.bfloat16)).isfinite().all()


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_what_is_refused_changes_nothing(name):
    model = build(name)
    x, before = torch.randn(1, 3, 64, 64), copy.deepcopy(model.state_dict())
    expected, size = model(x), model.img_size
    for options in (dict(img_size=0), dict(img_size=(96,)), dict(img_size=96, no_such_option=1)):
        with pytest.raises((UsageError, ValueError, CapabilityError)):
            model.set_input_size(**options)
        assert model.img_size == size and all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        assert torch.equal(model(x), expected)


WINDOWED = {
    "swin_tiny_patch4_window7_224": dict(embed_dim=16, depths=(2, 2, 2, 1), num_heads=(1, 2, 4, 8)),
    "swinv2_tiny_window8_256": dict(embed_dim=16, depths=(2, 2, 2, 1), num_heads=(1, 2, 4, 8)),
    "swinv2_cr_tiny_ns_224": dict(embed_dim=16, depths=(2, 2, 2, 1), num_heads=(1, 2, 4, 8)),
}
WINDOWS = [dict(window_size=4), dict(window_size=(2, 4)), dict(always_partition=True), dict(window_ratio=16),
           dict(img_size=(64, 96), window_size=6, always_partition=True), dict(img_size=96)]  # fmt: skip


@pytest.mark.parametrize("options", WINDOWS, ids=str)
@pytest.mark.parametrize("name", WINDOWED)
@torch.no_grad()
def test_windows_that_were_set_come_back_from_a_file(name, options, tmp_path):
    model = imgzoo.create_model(name, img_size=64, num_classes=5, **WINDOWED[name]).eval()
    for parameter in model.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    model.set_input_size(**options)
    save_model(model, tmp_path)
    again, x = imgzoo.create_model(tmp_path, pretrained=True).eval(), torch.randn(1, 3, *model.img_size)
    torch.testing.assert_close(again(x), model(x))


@pytest.mark.parametrize("name", WINDOWED)
@torch.no_grad()
def test_windows_follow_the_patch_grid_and_come_back(name):
    given = [(7, 4), (14, 7), (7, 14), (5, 3)]
    model = imgzoo.create_model(name, img_size=224, window_size=given, num_classes=5, **WINDOWED[name]).eval()
    for size, windows in (
        ((256, 320), [(8, 5), (16, 10), (8, 20), (5, 4)]), (64, [(2, 1), (4, 2), (2, 4), (1, 1)]), (224, given),
    ):  # fmt: skip
        model.set_input_size(size)
        assert model.windows == windows
        assert torch.isfinite(model(torch.randn(1, 3, *model.img_size))).all()
    model.set_input_size((64, 64), window_ratio=32)
    assert model.windows == [(1, 1)] * 4
    model.set_input_size(window_size=3, window_ratio=2)  # windows that are named go first
    assert model.windows == [(3, 3)] * 4


@pytest.mark.parametrize("name", WINDOWED)
def test_two_numbers_are_the_sides_of_windows_also_of_two_stages(name):
    two = dict(embed_dim=16, depths=(2, 2), num_heads=(1, 2), num_classes=5)
    model = imgzoo.create_model(name, img_size=64, window_size=(2, 4), **two)
    assert model.windows == [(2, 4)] * 2
    model.set_input_size(window_size=(4, 2))
    assert model.windows == [(4, 2)] * 2
    model.set_input_size(window_size=((2, 2), (4, 4)))
    assert model.windows == [(2, 2), (4, 4)]


@pytest.mark.parametrize("name", WINDOWED)
@torch.no_grad()
def test_patches_of_another_size(name):
    model = imgzoo.create_model(name, img_size=(64, 96), patch_size=2, num_classes=5, **WINDOWED[name]).eval()
    model.set_input_size((96, 128), patch_size=4)
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    maps = model.forward_intermediates(torch.randn(1, 3, 96, 128), intermediates_only=True)
    assert [each.shape[2:] for each in maps] == [(24, 32), (12, 16), (6, 8), (3, 4)]


def test_the_fraction_of_the_grid_that_windows_are():
    name = "swinv2_cr_tiny_ns_224"
    model = imgzoo.create_model(name, img_size=(256, 320), window_ratio=(8, 8, 4, 8), device="meta", **WINDOWED[name])
    assert model.windows == [(8, 10), (8, 10), (16, 20), (8, 10)]


SENSELESS = (0, -1, 3.5, "8", (8,), (8, 8, 8), (0, 8), True, [None] * 4, float("nan"))


@pytest.mark.parametrize("option", ["img_size", "window_size", "window_ratio", "patch_size"])
@pytest.mark.parametrize("name", [*CASES, *WINDOWED])
def test_sizes_without_sense_are_one_typed_sentence(name, option):
    small = {**CASES, **WINDOWED}[name]
    model = imgzoo.create_model(name, img_size=64, device="meta", **small)
    for value in SENSELESS:
        with pytest.raises((UsageError, CapabilityError)):
            model.set_input_size(**{option: value})


REST = [name for name in CASES if issubclass(imgzoo.get_spec(name).load(), TokenModel)]


@pytest.mark.parametrize("name", REST)
@torch.no_grad()
def test_what_lies_beyond_whole_patches_is_not_seen(name):
    model = imgzoo.create_model(name, img_size=64, num_classes=5, **CASES[name]).eval()
    try:
        wide = imgzoo.create_model(name, img_size=(67, 67), num_classes=5, **CASES[name]).eval()
    except UsageError as error:
        assert "divide" in str(error)
        return
    wide.load_state_dict(model.state_dict())
    x = torch.randn(1, 3, 67, 67)
    if "legacy" in name or "_r_" in name or "hybrid" in name:
        assert wide(x).shape == (1, 5)
        return
    torch.testing.assert_close(wide(x), model(x[:, :, :64, :64].contiguous()))


@torch.no_grad()
def test_a_failure_in_the_middle_is_undone(monkeypatch):
    model = build("swin_tiny_patch4_window7_224")
    x = torch.randn(1, 3, 64, 64)
    expected, resized = model(x), []
    kind = type(model.layers[0].blocks[0].attn.tables["relative_position_bias_table"])
    whole = kind.resize

    def breaks(self, table, old, new):
        resized.append(new)
        if len(resized) == 2:
            raise RuntimeError("no memory")
        return whole(self, table, old, new)

    monkeypatch.setattr(kind, "resize", breaks)
    with pytest.raises(RuntimeError, match="no memory"):
        model.set_input_size((64, 64), window_size=3)
    assert torch.equal(model(x), expected)


@pytest.mark.parametrize("word", ["fast", "median", "catavgmax", "map"])
@pytest.mark.parametrize("name", ["beit_base_patch16_224", "pit_ti_224", "crossvit_9_240", "cait_xxs24_224"])
def test_unfitting_pool_words_are_refused_and_change_nothing(name, word):
    with pytest.raises(UsageError, match="pool"):
        imgzoo.create_model(name, img_size=64, global_pool=word, **CASES[name])
    model = build(name)
    head = model.get_classifier()
    with pytest.raises(UsageError):
        model.reset_classifier(3, word)
    assert model.get_classifier() == head if isinstance(head, tuple) else model.get_classifier() is head

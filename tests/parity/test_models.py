"""Numbers equal the peer's on shared weights: one variant of every distinct structure, two sizes, eval and train."""

import pytest
import torch

import imgzoo
from imgzoo.groups import layer_ids

import kit
from structures import COMPARED, DOUBLE

pytestmark = pytest.mark.parity
NAMES = [name for names in COMPARED.values() for name in names]
COLOR_ONLY = ("csatv2",)  # the peer's takes no other images
FAMILY = {name: family for family, names in COMPARED.items() for name in names}


@pytest.fixture(autouse=True)
def precision(request):
    double = request.node.callspec.params["name"] in DOUBLE
    torch.set_default_dtype(torch.float64 if double else torch.float32)
    yield
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("name", NAMES)
def test_logits_and_levels(name):
    peer, ours = kit.pair(name)
    for size in dict.fromkeys(kit.input_sizes(name)):
        x = kit.image(size)
        with torch.inference_mode():
            kit.assert_equal(ours(x), peer(x), f"logits at {size}")
            peer_final, peer_levels = peer.forward_intermediates(x)
            final, levels = ours.forward_intermediates(x)
            seen = final if hasattr(peer, "reset_classifier") else final.view_as(peer_final)  # our grid
            kit.assert_equal(seen, peer_final, f"features at {size}")
            for i, (level, expected) in enumerate(zip(levels, peer_levels, strict=True)):
                kit.assert_equal(level, expected, f"level {i} at {size}")
            if not hasattr(peer, "reset_classifier"):  # an encoder without a head
                continue
            kit.assert_equal(
                ours.forward_head(final, pre_logits=True),
                peer.forward_head(peer_final, pre_logits=True),
                f"pre-logits at {size}",
            )


FREE = ["test_byobnet", "resnetv2_18d", "nf_regnet_b1", "test_resnet", "vovnet39a", "selecsls42", "test_convnext"]
"""Networks with every kind of pool in front of a shortcut, or beside a strided convolution."""


@pytest.mark.parametrize("name", FREE)
def test_sizes_that_no_stage_divides(name):
    peer, ours = kit.pair(name)
    with torch.inference_mode():
        kit.assert_equal(ours(kit.image(107)), peer(kit.image(107)), "logits at 107")


@pytest.mark.parametrize("name", ["test_resnet", "vovnet39a"])
def test_pools_of_larger_images(name):
    from timm.layers import TestTimePoolHead

    from imgzoo_train.models.views import TestPool

    peer, ours = kit.pair(name)
    ours = TestPool(ours)
    peer = TestTimePoolHead(peer, original_pool=ours.window)
    size = ours.pretrained_cfg["input_size"][1]
    with torch.inference_mode():
        kit.assert_equal(ours(kit.image(size + 64)), peer(kit.image(size + 64)), "logits")


STEMS = ["3x3", "7x7", "7x7_pool", "deep", "deep_pool", "deep_quad"]


@pytest.mark.parametrize("stem", STEMS)
@pytest.mark.parametrize("name", ["nf_resnet26"])
def test_stems(name, stem):
    peer, ours = kit.pair(name, stem_type=stem)
    with torch.inference_mode():
        kit.assert_equal(ours(kit.image(75)), peer(kit.image(75)), stem)
    assert [ours.feature_info[i]["module"] for i in range(5)] == [row["module"] for row in peer.feature_info]


@pytest.mark.parametrize("gate", ["cbam", "lcbam", "coord", "scoord", "ela", "strip", "nl"])
@pytest.mark.parametrize("name", ["resnet18"])
def test_gates_of_places(name, gate):
    peer, ours = kit.pair(name, block_args={"attn_layer": gate})
    with torch.inference_mode():
        kit.assert_equal(ours(kit.image(75)), peer(kit.image(75)), gate)


@pytest.mark.parametrize("name", ["inception_v3"])
def test_auxiliary_classifier(name):
    peer, ours = kit.pair(name, aux_logits=True)
    with torch.no_grad():
        for mine, theirs in zip(ours.train()(kit.image(299)), peer.train()(kit.image(299)), strict=True):
            kit.assert_equal(mine, theirs, "training")
        kit.assert_equal(ours.eval()(kit.image(299)), peer.eval()(kit.image(299))[0], "evaluation")


@pytest.mark.parametrize("name", NAMES)
def test_normalized_levels(name):
    peer, ours = kit.pair(name)
    x = kit.image(kit.input_sizes(name)[0], batch=1)
    with torch.inference_mode():
        try:
            expected = peer.forward_intermediates(x, norm=True, intermediates_only=True)
        except AssertionError:
            assert FAMILY[name] in ("hiera", "hieradet_sam2"), "the peer has no norm for these alone"
            return
        kit.assert_equal(ours.forward_intermediates(x, norm=True, intermediates_only=True), expected, "levels")


@pytest.mark.parametrize("name", NAMES)
def test_training_mode(name):
    """Batch statistics and running averages move alike; dropping parts is off, since both draw at random."""
    options = {"drop_path_rate": 0.0} if FAMILY[name].startswith("swin") else {}
    peer, ours = kit.pair(name, **options)
    peer.train(), ours.train()
    ours.layout = "plain"  # round as the peer does: batch statistics of few values amplify it
    x = kit.image(kit.input_sizes(name)[0], batch=4)
    with torch.no_grad():
        torch.manual_seed(0)  # dropout inside layers draws the same
        logits = ours(x)
        torch.manual_seed(0)
        kit.assert_equal(logits, peer(x), "logits", 1e-4)
    for (key, value), expected in zip(ours.state_dict().items(), peer.state_dict().values(), strict=True):
        if value.is_floating_point():
            kit.assert_equal(value, expected, key, 1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_layer_groups(name):
    from timm.models import group_parameters

    peer, ours = kit.pair(name)
    for coarse in (False, True) if hasattr(peer, "group_matcher") else ():  # else the conformance kit alone looks
        try:
            matcher = peer.group_matcher(coarse=coarse)
        except AssertionError:  # RDNet's has no coarse groups
            continue
        expected = group_parameters(peer, matcher, reverse=True)
        assert layer_ids(ours, ours.group_matcher(coarse)) == expected, "coarse" if coarse else "fine"
    expected = peer.no_weight_decay() if hasattr(peer, "no_weight_decay") else set()
    parameters = {n for n, p in ours.named_parameters() if p.ndim > 1}
    assert ours.no_weight_decay() & parameters == {n for n in expected if n in parameters}


@pytest.mark.parametrize("chans", [1, 5])
@pytest.mark.parametrize("name", [names[0] for names in COMPARED.values() if names[0] not in COLOR_ONLY])
def test_input_channels(name, chans):
    peer, ours = kit.pair(name, in_chans=chans, num_classes=7)
    x = kit.image(kit.input_sizes(name)[0], chans)
    with torch.inference_mode():
        kit.assert_equal(ours(x), peer(x), "logits")


@pytest.mark.parametrize("stride", [8, 16])
@pytest.mark.parametrize("name", NAMES)
def test_output_stride(name, stride):
    if "output_stride" not in imgzoo.get_spec(name).capabilities:
        with pytest.raises(imgzoo.errors.CapabilityError):
            imgzoo.create_model(name, output_stride=stride)
        return
    ours = imgzoo.create_model(name, output_stride=stride).eval()
    x = kit.image(kit.input_sizes(name)[0], batch=1)
    with torch.inference_mode():
        expected_levels, strides = kit.levels_of_peer(name, ours, x, output_stride=stride)
        levels = ours.forward_intermediates(x, intermediates_only=True)
        for i, (level, expected) in enumerate(zip(levels, expected_levels, strict=True)):
            kit.assert_equal(level, expected, f"level {i}")
    assert ours.feature_info.reduction() == strides

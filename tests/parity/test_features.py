"""Feature extractors exchange their weights with the peer's, under its keys, and give its levels."""

import pytest
import timm
import torch
from torchvision.models.feature_extraction import create_feature_extractor

import imgzoo
import imgzoo_timm

import kit
from small import SMALLEST
from structures import COMPARED, DOUBLE

pytestmark = pytest.mark.parity

OWN_LEVELS = {"sedarknet21"}
"""The peer leaves out the deepest level of this one darknet."""


@pytest.mark.parametrize("name", [SMALLEST[family] for family in COMPARED])
def test_extractors_exchange_weights(name):
    try:
        peer = timm.create_model(name, features_only=True).eval()
    except (RuntimeError, NotImplementedError) as error:
        pytest.skip(f"the peer has no extractor of it: {error}")
    ours = imgzoo.create_model(name, features_only=True, out_indices=list(peer.feature_info.out_indices)).eval()
    kit.perturb(peer)
    missing = ours.load_state_dict(peer.state_dict(), strict=False).missing_keys
    assert not missing
    plain = {key.removeprefix("model.") for key in ours.state_dict()}
    forms = ({*ours.flat_state_dict()}, {*ours.state_dict()}, {f"body.{key}" for key in plain})
    assert any(form <= peer.state_dict().keys() for form in forms)
    assert imgzoo.create_model(name, features_only=True, device="meta").out_indices == list(
        peer.feature_info.out_indices
    )
    x = kit.image(kit.input_sizes(name)[0])
    if name in DOUBLE:
        ours, peer, x = ours.double(), peer.double(), x.double()
    with torch.inference_mode():
        for level, expected in zip(ours(x), peer(x), strict=True):
            if expected.shape != level.shape:  # channels last
                expected = expected.permute(0, 3, 1, 2)
            kit.assert_equal(level, expected, "level")


@pytest.mark.parametrize("family", COMPARED)
def test_default_levels(family):
    """Of every name, the levels that come where `out_indices` does not say."""
    for name in imgzoo.list_models():
        if imgzoo.get_spec(name).family != family or name in OWN_LEVELS:
            continue
        with torch.device("meta"):
            try:
                theirs = timm.create_model(name, features_only=True).feature_info
            except (RuntimeError, NotImplementedError) as error:
                pytest.skip(f"the peer has no extractor of it: {error}")
            ours = imgzoo.create_model(name, features_only=True)
        assert list(ours.out_indices) == list(theirs.out_indices), name
        assert ours.feature_info.channels() == theirs.channels(), name
        assert ours.feature_info.reduction() == theirs.reduction(), name


@pytest.mark.parametrize("name", ["pit_ti_224", "swinv2_cr_tiny_ns_224", "csatv2", "test_resnet"])
def test_graphs_have_the_levels_at_the_names_of_the_peer(name):
    """Those whose stages hand on pairs or maps in another order, and one that has constants of its own."""
    peer = timm.create_model(name).eval()
    kit.perturb(peer)
    ours = imgzoo.create_model(name).eval()
    ours.load_state_dict(peer.state_dict())
    names = [row["module"] for row in peer.feature_info]
    x = kit.image(kit.input_sizes(name)[0]).double()
    found, expected = (create_feature_extractor(model.double(), names, suppress_diff_warning=True)(x) for model in
                       (ours, peer))  # fmt: skip
    for each in names:
        level, other = (given[each] if isinstance(given[each], torch.Tensor) else given[each][0]
                        for given in (found, expected))  # fmt: skip
        kit.assert_equal(level, other, each)


SPARING = ["efficientvim_m1_dist", "gemma4_vit_570m_enc", "levit_conv_128s", "sedarknet21"]
"""Names whose extractors hold what the smallest of their family do not."""


@pytest.mark.parametrize("name", [*(SMALLEST[family] for family in COMPARED), *SPARING])
def test_states_of_extractors_load_into_those_of_the_stand_in_and_back(name):
    with torch.device("meta"):
        try:
            peer = timm.create_model(name, features_only=True)
        except (RuntimeError, NotImplementedError) as error:
            pytest.skip(f"the peer has no extractor of it: {error}")
        made = imgzoo_timm.create_model(name, features_only=True)
        native = imgzoo.create_model(name, features_only=True, out_indices=list(peer.feature_info.out_indices))
    assert list(made.state_dict()) == list(peer.state_dict())
    assert made.feature_info.out_indices == peer.feature_info.out_indices
    for extractor in (made, native):
        for state in (peer.state_dict(), native.state_dict(), native.flat_state_dict()):
            extractor.load_state_dict(state)


@pytest.mark.parametrize("indices", [None, (1, 3)])
def test_levels_of_hrnet_before_they_are_widened(indices):
    options = dict(features_only=True, feature_location="", out_indices=indices)
    peer, made = (create("hrnet_w18_small", **options).double().eval() for create in
                  (timm.create_model, imgzoo_timm.create_model))  # fmt: skip
    kit.perturb(peer)
    made.load_state_dict(peer.state_dict())  # which keeps branches that no level needs
    assert made.feature_info.get_dicts() == peer.feature_info.get_dicts()
    x = kit.image(64).double()
    with torch.inference_mode():
        for level, expected in zip(made(x), peer(x), strict=True):
            kit.assert_equal(level, expected, "level")

"""Networks of fixed size that are set to another, beside the peer's that is created for it or set to it too."""

import pytest
import torch

import imgzoo

import kit

pytestmark = pytest.mark.parity

CREATED = {"crossvit_9_240": 120, "efficientvit_m1": 128, "mvitv2_tiny": 128}


@pytest.mark.parametrize("name", CREATED)
def test_set_is_as_created(name):
    size = CREATED[name]
    peer = kit.timm.create_model(name, img_size=size).eval()
    kit.perturb(peer)
    ours = imgzoo.create_model(name).eval()
    ours.set_input_size(size)
    ours.load_state_dict(peer.state_dict())
    x = kit.image(size)
    with torch.no_grad():
        kit.assert_equal(ours(x), peer(x), f"{size} pixels")


@pytest.mark.parametrize("size", [128, 288])
def test_tables_are_resized_the_same(size):
    peer, ours = kit.pair("efficientvit_m1")
    peer.set_input_size(size)
    ours.set_input_size(size)
    x = kit.image(size)
    with torch.no_grad():
        kit.assert_equal(ours(x), peer(x), f"{size} pixels")

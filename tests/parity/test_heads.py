"""Networks with several classifiers, given another: the keys, shapes and answers are the peer's, for every name."""

import pytest
import timm
import torch

import imgzoo

from structures import COMPARED

pytestmark = pytest.mark.parity

SEVERAL = ("crossvit", "deit", "efficientformer", "efficientformer_v2", "efficientvim", "iformer", "levit", "pit",
           "repvit", "swiftformer", "volo")  # fmt: skip
"""Families of which some names have several."""
CHANGES = ((7,), (7, "avg"), (0,), (5,))


def heads(model) -> int:
    classifier = model.get_classifier()
    return len(classifier) if isinstance(classifier, (list, tuple)) else 1


def state_and_answer(model, x) -> tuple[dict, tuple]:
    return {key: value.shape for key, value in model.state_dict().items()}, model(x).shape


@pytest.mark.parametrize("family", SEVERAL)
def test_new_classifiers_are_the_peers(family):
    several = 0
    for name in imgzoo.list_models():
        if imgzoo.get_spec(name).family != family:
            continue
        with torch.device("meta"):
            peer, ours = timm.create_model(name).eval(), imgzoo.create_model(name).eval()
            several += heads(ours) > 1
            x = torch.zeros(2, *ours.pretrained_cfg["input_size"])
            for change in CHANGES:
                try:
                    peer.reset_classifier(*change)
                except AssertionError:  # a pool that it does not offer there
                    with pytest.raises(imgzoo.errors.UsageError):
                        ours.reset_classifier(*change)
                    continue
                ours.reset_classifier(*change)
                assert state_and_answer(ours, x) == state_and_answer(peer, x), (name, change)
    assert several


@pytest.mark.parametrize("family", [family for family in COMPARED if family not in SEVERAL])
def test_the_other_families_have_one(family):
    for name in COMPARED[family]:
        assert heads(imgzoo.create_model(name, device="meta")) == 1

"""Stochastic depth drops branches beside a shortcut: a network in which no block has one takes no rate of it."""

import pytest

import imgzoo
from imgzoo.errors import CapabilityError


@pytest.mark.parametrize("name", ["lcnet_050", "mobilenetv1_100", "mobilenetv1_100h", "test_efficientnet"])
def test_a_rate_that_would_do_nothing_is_refused(name):
    with pytest.raises(CapabilityError, match="no block of this network has a branch to drop; leave drop_path_rate"):
        imgzoo.create_model(name, drop_path_rate=0.1, device="meta")
    imgzoo.create_model(name, drop_path_rate=0.0, device="meta")
    imgzoo.create_model("efficientnet_b0", drop_path_rate=0.1, device="meta")

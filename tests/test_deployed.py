"""What is deployed answers as the network it was made of: every family, first those whose branches merge."""

import sys
from pathlib import Path

import pytest
import torch

import imgzoo

sys.path.insert(0, str(Path(__file__).parent / "parity"))
from small import QUICK, image

MERGING = {"fastvit_t8": {"depths": [1, 1, 1, 1]}, "fastvit_mci0": {"depths": [1, 1, 1, 1]}, "iformer_t": {},
           "repvit_m0_9": {}, "repghostnet_050": {}, "ghostnetv3_050": {}, "lcnetv2_small": {}, "mobileone_s0": {},
           "repvgg_a0": {}}  # fmt: skip


@pytest.mark.parametrize("name", MERGING)
def test_branches_merge_in_what_is_deployed(name):
    deployed(name, MERGING[name])


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK)
def test_every_family_is_deployed(name):
    deployed(name, QUICK[name])


def deployed(name, options):
    torch.manual_seed(0)
    model = imgzoo.create_model(name, num_classes=7, **options).double().eval()
    x = image(model, 2).double()
    fast = imgzoo.deploy(model, example=x)
    assert fast.parity.reparameterized > 0 or name not in MERGING
    with torch.no_grad():
        expected = model(x)
        torch.testing.assert_close(fast(x), expected, rtol=0, atol=1e-9 * expected.abs().max().item())

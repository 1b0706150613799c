"""imgzoo-acme keeps imgzoo's contract, and its network is what it says."""

import imgzoo
import torch
from imgzoo.testing import parametrize_with_checks


@parametrize_with_checks("acme")
def test_conformance(subject, check):
    check(subject)


def test_a_block_sees_rows_and_columns():
    model = imgzoo.create_model("acme_net_tiny", num_classes=10).eval()
    image = torch.zeros(1, 3, 64, 64)
    dot = image.clone()
    dot[..., 32, 32] = 1.0
    changed = (model.forward_features(dot) - model.forward_features(image)).abs().sum(1)[0] > 0
    assert changed[2].all() and changed[:, 2].all()
